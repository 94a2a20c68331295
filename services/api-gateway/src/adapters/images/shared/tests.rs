//! Against a real S3 server, moto, which checks signatures.

use bytes::Bytes;
use cloud_core::{
    model::{ImageFormat, ImageSource, Labels, Meta, Visibility},
    ports::{ImageStore as _, Tx as _},
};
use cloud_domain::ProjectId;
use cloud_testkit::{S3Server, process::Objects};
use object_store::multipart::MultipartStore as _;

use super::*;
use crate::adapters::{
    images::{ImageFiles, ImageOptions, Probing},
    sql::SqlStore,
};

/// Half a MiB: a raw disk.
const SIZE: usize = 512 << 10;

fn disk(seed: u8) -> Vec<u8> {
    (0..SIZE).map(|i| u8::try_from(i % 251).unwrap() ^ seed).collect()
}

fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Gateways of one cloud, and the bucket that they share.
struct World {
    s3: S3Server,
    objects: Objects,
    cloud: CloudId,
    dir: tempfile::TempDir,
}

/// A gateway's images.
struct Gateway {
    images: ImageFiles,
    dir: PathBuf,
}

impl World {
    async fn new() -> Self {
        let s3 = S3Server::start().await.unwrap();
        Self { objects: s3.objects().unwrap(), s3, cloud: CloudId::random(), dir: tempfile::tempdir().unwrap() }
    }

    fn options(&self, gateway: &str) -> ImageOptions {
        // Writes the secret's file.
        self.s3.flags(self.dir.path()).unwrap();
        let bucket = BucketOptions {
            endpoint: Some(self.s3.endpoint()),
            region: "us-east-1".to_owned(),
            bucket: self.s3.bucket().to_owned(),
            prefix: "thecloud".to_owned(),
            virtual_host: false,
            access_key: self.s3.key().0.to_owned(),
            secret_file: self.dir.path().join("s3-secret"),
            cache_max_bytes: None,
        };
        ImageOptions {
            dir: self.dir.path().join(gateway),
            import_dir: Some(self.dir.path().to_owned()),
            max_bytes: 64 << 20,
            allow_private: false,
            timeout: Duration::from_secs(20),
            bucket: Some(bucket),
        }
    }

    fn with(&self, options: ImageOptions) -> Gateway {
        let dir = options.dir.clone();
        let images = ImageFiles::with(options, self.cloud, Probing::Header, Arc::new(|_| false)).unwrap();
        Gateway { images, dir }
    }

    fn gateway(&self, name: &str) -> Gateway {
        self.with(self.options(name))
    }

    fn key(&self, id: ImageId, bytes: &[u8]) -> String {
        format!("thecloud/{}/{id}/{}", self.cloud, sha(bytes))
    }

    async fn keys(&self) -> Vec<String> {
        self.objects.keys().await.unwrap()
    }

    async fn store(&self) -> SqlStore {
        SqlStore::open(&format!("sqlite:{}", self.dir.path().join("c.db").display())).await.unwrap()
    }
}

impl Gateway {
    fn shared(&self) -> &Arc<Shared> {
        self.images.shared.as_ref().unwrap()
    }

    async fn upload(&self, id: ImageId, bytes: &[u8]) -> Result<ImageFile, FetchError> {
        let mut upload = self.images.begin(id).await?;
        upload.write(Bytes::copy_from_slice(bytes)).await?;
        self.images.finish(upload, None, "").await
    }

    async fn hold(&self, id: ImageId, bytes: &[u8]) -> Result<HeldImage, FetchError> {
        Ok(self.images.hold(id, &sha(bytes), bytes.len() as u64).await?.unwrap())
    }

    fn files(&self, below: &str) -> usize {
        std::fs::read_dir(self.dir.join(below)).unwrap().count()
    }

    async fn marks(&self) -> Vec<String> {
        self.shared().marks.list().await.unwrap().into_iter().map(|mark| mark.name).collect()
    }

    /// Makes every mark two hours old.
    fn age(&self) {
        for entry in std::fs::read_dir(self.dir.join("marks")).unwrap() {
            let file = File::options().write(true).open(entry.unwrap().path()).unwrap();
            file.set_modified(SystemTime::now() - 2 * ENTERING).unwrap();
        }
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, FetchError>, why: &str) {
    match result {
        Err(FetchError::Refused(message)) => assert!(message.contains(why), "`{message}` does not say `{why}`"),
        other => panic!("{other:?} instead of a refusal with `{why}`"),
    }
}

#[track_caller]
fn later<T: std::fmt::Debug>(result: Result<T, FetchError>, why: &str) {
    match result {
        Err(FetchError::Later(message)) => assert!(message.contains(why), "`{message}` does not say `{why}`"),
        other => panic!("{other:?} instead of `{why}` for now"),
    }
}

/// An image's row.
async fn enter(store: &SqlStore, id: ImageId, status: ImageStatus, sha256: &str) {
    let row = Image {
        architecture: "x86_64".to_owned(),
        meta: Meta::new(
            *id.as_uuid(),
            ProjectId::random(),
            "default",
            &format!("i-{}", id.as_uuid().simple()),
            Labels::new(),
        ),
        visibility: Visibility::Private,
        status,
        status_reason: String::new(),
        source: ImageSource::Upload,
        format: Some(ImageFormat::Raw),
        sha256: sha256.to_owned(),
        size_bytes: SIZE as u64,
        virtual_size_bytes: SIZE as u64,
    };
    let mut tx = store.begin().await.unwrap();
    tx.insert(&row).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_an_object_of_its_cloud_and_goes_alone() {
    let w = World::new().await;
    let (a, id, bytes) = (w.gateway("a"), ImageId::random(), disk(0));
    let mut foreign = vec![
        "something-else".to_owned(),
        format!("thecloud/{}/{id}/{}", CloudId::random(), sha(&bytes)),
        format!("thecloud/{}/{id}-not/{}", w.cloud, sha(&bytes)),
        format!("{}/{id}/{}", w.cloud, sha(&bytes)),
    ];
    foreign.sort();
    for key in &foreign {
        w.objects.put(key, vec![1]).await.unwrap();
    }
    let file = a.upload(id, &bytes).await.unwrap();
    assert_eq!((file.sha256.as_str(), file.size_bytes), (sha(&bytes).as_str(), SIZE as u64));
    assert_eq!(std::fs::read(&file.path).unwrap(), bytes);
    assert_eq!(w.objects.get(&w.key(id, &bytes)).await.unwrap(), bytes);
    assert_eq!(a.hold(id, &bytes).await.unwrap().path(), file.path);
    a.images.remove(id).await.unwrap();
    a.images.remove(id).await.unwrap();
    assert_eq!(w.keys().await, foreign, "what is not the image's stays");
    refused(a.hold(id, &bytes).await, "has no object");
    assert_eq!((a.files("cache"), a.files("incoming"), a.files("marks")), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_gateway_has_every_image_by_one_download() {
    let w = World::new().await;
    let (a, b, id, bytes) = (w.gateway("a"), w.gateway("b"), ImageId::random(), disk(0));
    a.upload(id, &bytes).await.unwrap();
    let held = futures::future::join_all((0..20).map(|_| b.hold(id, &bytes))).await;
    for held in held {
        assert_eq!(std::fs::read(held.unwrap().path()).unwrap(), bytes);
    }
    let get = format!("GET /{}/{}", w.s3.bucket(), w.key(id, &bytes));
    assert_eq!(w.s3.log().unwrap().matches(&get).count(), 1, "{}", w.s3.log().unwrap());
    drop(b);
    // Its file outlives the process.
    let b = w.gateway("b");
    assert_eq!(b.files("cache"), 1);
    w.objects.delete(&w.key(id, &bytes)).await.unwrap();
    b.hold(id, &bytes).await.unwrap();
    assert_eq!(b.files("incoming"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_image_goes_in_parts() {
    let w = World::new().await;
    let (a, b, id) = (w.gateway("a"), w.gateway("b"), ImageId::random());
    let bytes: Vec<u8> = disk(0).into_iter().cycle().take((40 << 20) + 512).collect();
    a.upload(id, &bytes).await.unwrap();
    assert_eq!(w.s3.log().unwrap().matches("partNumber=").count(), 3);
    assert_eq!(w.keys().await, [w.key(id, &bytes)]);
    assert_eq!(std::fs::read(b.hold(id, &bytes).await.unwrap().path()).unwrap(), bytes);
    assert_eq!(a.shared().marks.list().await.unwrap()[0].upload, None, "the upload has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_noticed() {
    let w = World::new().await;
    let (a, b, id, bytes) = (w.gateway("a"), w.gateway("b"), ImageId::random(), disk(0));
    a.upload(id, &bytes).await.unwrap();
    let key = w.key(id, &bytes);
    w.objects.put(&key, disk(1)).await.unwrap();
    refused(b.hold(id, &bytes).await, &format!("is damaged: its SHA-256 is {}", sha(&disk(1))));
    w.objects.put(&key, disk(0)[1..].to_vec()).await.unwrap();
    refused(b.hold(id, &bytes).await, "is damaged: it has 524287 bytes, and 524288 were put there");
    assert_eq!((b.files("cache"), b.files("incoming")), (0, 0));
    w.objects.put(&key, bytes.clone()).await.unwrap();
    b.hold(id, &bytes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_server_nothing_is_kept_or_removed_and_all_goes_on_after() {
    let mut w = World::new().await;
    let (a, b, id, bytes) = (w.gateway("a"), w.gateway("b"), ImageId::random(), disk(0));
    a.upload(id, &bytes).await.unwrap();
    let upload = a.images.begin(ImageId::random()).await.unwrap();
    w.s3.kill();
    let refusal = "Connection refused";
    later(a.images.check().await, refusal);
    later(a.images.begin(ImageId::random()).await.map(|_| ()), "cannot be listed");
    later(b.hold(id, &bytes).await, refusal);
    later(a.images.remove(id).await, refusal);
    // Begun before, ended now.
    let mut upload = upload;
    upload.write(Bytes::from(disk(1))).await.unwrap();
    later(a.images.finish(upload, None, "").await, refusal);
    assert_eq!(a.files("cache"), 1, "the file of what could not be removed stays");
    a.hold(id, &bytes).await.unwrap();
    w.s3.restart().await.unwrap();
    a.images.check().await.unwrap();
    w.objects.put(&w.key(id, &bytes), bytes.clone()).await.unwrap();
    b.hold(id, &bytes).await.unwrap();
    a.images.remove(id).await.unwrap();
    assert_eq!(w.keys().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_or_bucket_is_told_in_the_servers_words() {
    let w = World::new().await;
    let secret = w.dir.path().join("wrong");
    std::fs::write(&secret, "not-the-secret\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    type Change = Box<dyn Fn(&mut BucketOptions)>;
    let wrong: [(Change, &str); 3] = [
        (Box::new(move |b| b.secret_file.clone_from(&secret)), "SignatureDoesNotMatch"),
        (Box::new(|b| b.access_key = "AKIANOBODY".to_owned()), "InvalidAccessKeyId"),
        (Box::new(|b| b.bucket = "nonesuch".to_owned()), "NoSuchBucket"),
    ];
    for (change, code) in wrong {
        let mut options = w.options("a");
        change(options.bucket.as_mut().unwrap());
        let a = w.with(options);
        later(a.images.check().await, code);
        later(a.upload(ImageId::random(), &disk(0)).await, code);
        // What is not there is not taken for what was removed.
        later(a.images.remove(ImageId::random()).await, code);
        later(a.hold(ImageId::random(), &disk(0)).await, code);
    }
    assert_eq!(w.keys().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_in_the_bucket_is_settled_by_the_row() {
    let w = World::new().await;
    let (a, store) = (w.gateway("a"), w.store().await);
    let [ready, other, error, deleted, importing, unknown] = [(); 6].map(|()| ImageId::random());
    for id in [ready, other, error, deleted, importing, unknown] {
        a.upload(id, &disk(0)).await.unwrap();
    }
    enter(&store, ready, ImageStatus::Ready, &sha(&disk(0))).await;
    enter(&store, other, ImageStatus::Ready, &sha(&disk(1))).await;
    enter(&store, error, ImageStatus::Error, "").await;
    enter(&store, deleted, ImageStatus::Deleted, &sha(&disk(0))).await;
    enter(&store, importing, ImageStatus::Importing, "").await;
    w.objects.put(&w.key(other, &disk(1)), disk(1)).await.unwrap();
    a.images.upkeep(&store).await;
    let all = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    let stays = [w.key(ready, &disk(0)), w.key(other, &disk(1)), w.key(importing, &disk(0))];
    let young = w.key(unknown, &disk(0));
    assert_eq!(w.keys().await, all(stays.iter().chain([&young]).cloned().collect()), "an upload may still be entered");
    a.age();
    let active = a.shared().marks.begin(&cache::name(unknown, &sha(&disk(0))));
    a.images.upkeep(&store).await;
    assert_eq!(w.keys().await, all(stays.iter().chain([&young]).cloned().collect()), "a put is under way");
    drop(active);
    a.images.upkeep(&store).await;
    assert_eq!(w.keys().await, all(stays.to_vec()));
    assert_eq!(a.marks().await, [cache::name(importing, &sha(&disk(0)))]);
    // Files of images that are none went, too.
    a.hold(ready, &disk(0)).await.unwrap();
    refused(a.hold(deleted, &disk(0)).await, "has no object");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_a_crash_left_are_given_up() {
    let w = World::new().await;
    let (a, store, id) = (w.gateway("a"), w.store().await, ImageId::random());
    let key = object_store::path::Path::parse(w.key(id, &disk(0))).unwrap();
    let server = a.shared().bucket.server();
    let begin = async || {
        let upload = server.create_multipart(&key).await.unwrap();
        server.put_part(&key, &upload, 0, disk(0).into()).await.unwrap();
        a.shared().mark(&cache::name(id, &sha(&disk(0))), &upload).await.unwrap();
        upload
    };
    let gone = async |upload: String| {
        let log = w.s3.log().unwrap();
        let aborted = |line: &&str| line.contains("DELETE /") && line.contains(&upload) && line.contains(" 204 ");
        assert_eq!(log.lines().filter(aborted).count(), 1, "{log}");
        assert!(server.put_part(&key, &upload, 1, disk(0).into()).await.is_err(), "it takes no more");
    };
    let upload = begin().await;
    a.images.upkeep(&store).await;
    gone(upload).await;
    // Or by the next attempt.
    let upload = begin().await;
    a.upload(id, &disk(0)).await.unwrap();
    gone(upload).await;
    assert_eq!(w.objects.get(key.as_ref()).await.unwrap(), disk(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_time_before_the_bucket_are_put_into_it() {
    let w = World::new().await;
    let store = w.store().await;
    let [good, damaged, deleted, unknown] = [(); 4].map(|()| ImageId::random());
    let before = w.with(ImageOptions { bucket: None, ..w.options("a") });
    for id in [good, damaged, deleted, unknown] {
        before.upload(id, &disk(0)).await.unwrap();
    }
    assert_eq!(w.keys().await, [""; 0]);
    drop(before);
    let (a, b) = (w.gateway("a"), w.gateway("b"));
    enter(&store, good, ImageStatus::Ready, &sha(&disk(0))).await;
    enter(&store, damaged, ImageStatus::Ready, &sha(&disk(1))).await;
    enter(&store, deleted, ImageStatus::Deleted, &sha(&disk(0))).await;
    // It can be sent at once.
    a.hold(good, &disk(0)).await.unwrap();
    a.images.upkeep(&store).await;
    a.images.upkeep(&store).await;
    assert_eq!(w.keys().await, [w.key(good, &disk(0))]);
    b.hold(good, &disk(0)).await.unwrap();
    let mut left = a.images.ids().unwrap();
    left.sort();
    let mut wanted = vec![damaged, unknown];
    wanted.sort();
    assert_eq!(left, wanted, "what is not in the bucket stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_make_room_and_come_back_save_those_that_are_sent() {
    let w = World::new().await;
    let mut options = w.options("a");
    options.bucket.as_mut().unwrap().cache_max_bytes = Some(SIZE as u64);
    let (a, [first, second]) = (w.with(options), [(); 2].map(|()| ImageId::random()));
    a.upload(first, &disk(0)).await.unwrap();
    let sent = a.hold(first, &disk(0)).await.unwrap();
    a.upload(second, &disk(1)).await.unwrap();
    a.hold(second, &disk(1)).await.unwrap();
    assert!(sent.path().exists(), "it is being sent");
    let path = sent.path();
    drop(sent);
    a.hold(second, &disk(1)).await.unwrap();
    a.shared().make_room().await;
    assert!(!path.exists() && a.files("cache") == 1);
    assert_eq!(std::fs::read(a.hold(first, &disk(0)).await.unwrap().path()).unwrap(), disk(0));
    assert_eq!(w.keys().await.len(), 2, "objects do not make room");
}
