use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use cloud_domain::{CloudId, ImageId, Mib, SnapshotId, VolumeId};
use futures::{Stream, future::join_all, stream};
use sha2::Digest as _;

use super::{
    backend::{FoundImage, FoundSnapshot, FoundVolume},
    call::Call,
    fake::{Fake, Newest, VIRTUAL_SIZE},
    model::{Format, ImageSpec, Sha256, SnapshotSpec, Source, ThinStatus, VolumeSpec},
    *,
};

const MIB: u64 = 1 << 20;

struct Fixture {
    fake: Arc<Fake>,
    storage: Storage,
    cloud: CloudId,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Rules::default())
    }

    fn with(rules: Rules) -> Self {
        let fake = Arc::new(Fake::default());
        let storage = Storage::new(fake.clone(), Arc::new(Newest::default()), rules);
        Self { fake, storage, cloud: CloudId::random() }
    }

    fn call(&self) -> Call {
        self.version(1)
    }

    fn version(&self, version: u64) -> Call {
        Call { cloud_id: self.cloud, session_id: String::new(), epoch: 1, version, incarnation: None }
    }

    fn foreign_call() -> Call {
        Self::new().call()
    }

    async fn ensure(&self, spec: &VolumeSpec, may_create: bool) -> Result<model::Volume, StorageError> {
        self.storage.ensure_volume(self.call(), spec.clone(), may_create).await
    }

    async fn put(&self, image: &(ImageSpec, Bytes)) -> Result<model::Image, StorageError> {
        self.storage.put_image(self.call(), image.0, parts(&image.1)).await
    }
}

fn parts(bytes: &Bytes) -> impl Stream<Item = Result<Bytes, StorageError>> + Unpin + Send + use<> {
    stream::iter(bytes.chunks(1000).map(|c| Ok(Bytes::copy_from_slice(c))).collect::<Vec<_>>())
}

fn blank(mib: u64) -> VolumeSpec {
    let (size, pool) = (mib.try_into().unwrap(), "default".parse().unwrap());
    VolumeSpec { id: VolumeId::random(), size, source: Source::Blank, pool }
}

fn from(image: &ImageSpec, mib: u64) -> VolumeSpec {
    VolumeSpec { source: Source::Image { image_id: image.id }, ..blank(mib) }
}

fn image() -> (ImageSpec, Bytes) {
    let bytes = Bytes::from(ImageId::random().to_string().repeat(1000));
    let sha256 = Sha256::from(<[u8; 32]>::from(sha2::Sha256::digest(&bytes)));
    let spec = ImageSpec { id: ImageId::random(), format: Format::Raw, size_bytes: bytes.len() as u64, sha256 };
    (spec, bytes)
}

#[tokio::test]
async fn a_volume_is_created_only_where_that_is_allowed_and_found_ever_after() {
    let t = Fixture::new();
    let spec = blank(10);
    assert!(matches!(t.ensure(&spec, false).await, Err(StorageError::DataMissing(id)) if id == spec.id));
    let made = t.ensure(&spec, true).await.unwrap();
    assert_eq!((made.size_bytes, made.owner.cloud_id), (10 * MIB, t.cloud));
    for may_create in [true, false] {
        assert_eq!(t.ensure(&spec, may_create).await.unwrap(), made);
    }
    assert_eq!(t.fake.created.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn lost_data_are_never_replaced_by_a_fresh_volume() {
    let t = Fixture::new();
    let spec = blank(10);
    t.fake.volumes.lock().unwrap().insert(spec.id, FoundVolume::Lost(t.call().owner()));
    assert!(matches!(t.ensure(&spec, true).await, Err(StorageError::DataLost(_))));
    assert!(matches!(t.ensure(&spec, false).await, Err(StorageError::DataMissing(_))));
    assert_eq!(t.fake.created.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_unfinished_volume_is_made_anew_only_where_that_is_allowed() {
    let t = Fixture::new();
    let spec = blank(10);
    t.fake.volumes.lock().unwrap().insert(spec.id, FoundVolume::Unfinished(t.call().owner()));
    assert!(matches!(t.ensure(&spec, false).await, Err(StorageError::DataMissing(_))));
    t.ensure(&spec, true).await.unwrap();
}

#[tokio::test]
async fn another_specification_is_refused_by_what_is_different() {
    let t = Fixture::new();
    let cached = image();
    t.put(&cached).await.unwrap();
    let spec = blank(10);
    t.ensure(&spec, true).await.unwrap();
    let difference = |error| match error {
        StorageError::Differs { difference, .. } => difference,
        other => panic!("{other}"),
    };
    let other = VolumeSpec { source: Source::Image { image_id: cached.0.id }, ..spec.clone() };
    assert!(difference(t.ensure(&other, true).await.unwrap_err()).contains("made from blank"));
    let greater = VolumeSpec { size: 11.try_into().unwrap(), ..spec.clone() };
    assert!(difference(t.ensure(&greater, true).await.unwrap_err()).contains("ResizeVolume"));
    let smaller = VolumeSpec { size: 9.try_into().unwrap(), ..spec.clone() };
    assert!(difference(t.ensure(&smaller, true).await.unwrap_err()).contains("made with 10485760 bytes"));
    let elsewhere = VolumeSpec { pool: "ssd".parse().unwrap(), ..spec };
    assert!(matches!(t.ensure(&elsewhere, true).await, Err(StorageError::NoSuchPool(_))));
}

#[tokio::test]
async fn a_grown_volume_is_still_the_one_of_every_size_that_it_had() {
    let t = Fixture::new();
    let spec = blank(10);
    t.ensure(&spec, true).await.unwrap();
    let size = |mib: u64| Mib::try_from(mib).unwrap();
    let grown = t.storage.resize_volume(t.call(), spec.id, size(30)).await.unwrap();
    assert_eq!(grown.size_bytes, 30 * MIB);
    t.storage.resize_volume(t.call(), spec.id, size(30)).await.unwrap();
    let error = t.storage.resize_volume(t.call(), spec.id, size(20)).await.unwrap_err();
    assert!(matches!(error, StorageError::Invalid { field: "size_bytes", .. }), "{error}");
    for (mib, same) in [(9, false), (10, true), (20, true), (30, true), (31, false)] {
        let spec = VolumeSpec { size: size(mib), ..spec.clone() };
        assert_eq!(t.ensure(&spec, false).await.is_ok(), same, "{mib} MiB");
    }
}

#[tokio::test]
async fn nothing_of_others_is_touched() {
    let t = Fixture::new();
    let spec = blank(10);
    t.ensure(&spec, true).await.unwrap();
    let cached = image();
    t.put(&cached).await.unwrap();
    let size = spec.size;
    let stranger = Fixture::foreign_call;
    let refused = |result: Result<(), StorageError>| assert!(matches!(result, Err(StorageError::OtherCloud { .. })));
    refused(t.storage.ensure_volume(stranger(), spec.clone(), true).await.map(drop));
    refused(t.storage.remove_volume(stranger(), spec.id).await);
    refused(t.storage.resize_volume(stranger(), spec.id, size).await.map(drop));
    refused(t.storage.remove_image(stranger(), cached.0.id).await);
    refused(t.storage.put_image(stranger(), cached.0, parts(&cached.1)).await.map(drop));

    let other = blank(10);
    t.fake.volumes.lock().unwrap().insert(other.id, FoundVolume::Foreign("/x".into()));
    let refused = |result: Result<(), StorageError>| assert!(matches!(result, Err(StorageError::Foreign(_))));
    refused(t.ensure(&other, true).await.map(drop));
    refused(t.storage.remove_volume(t.call(), other.id).await);
    refused(t.storage.resize_volume(t.call(), other.id, size).await.map(drop));
    assert_eq!(t.storage.volumes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_volume_needs_its_image_and_its_images_size() {
    let t = Fixture::new();
    let cached = image();
    let spec = from(&cached.0, VIRTUAL_SIZE / MIB);
    assert!(matches!(t.ensure(&spec, true).await, Err(StorageError::ImageNotCached { .. })));
    t.put(&cached).await.unwrap();
    let small = from(&cached.0, VIRTUAL_SIZE / MIB - 1);
    assert!(matches!(t.ensure(&small, true).await, Err(StorageError::Invalid { field: "spec.size_bytes", .. })));
    t.ensure(&spec, true).await.unwrap();

    let error = t.storage.remove_image(t.call(), cached.0.id).await.unwrap_err();
    assert!(
        matches!(error, StorageError::ImageInUse { count: 1, ref example, .. } if *example == format!("volume {}", spec.id)),
        "{error}"
    );
    t.storage.remove_volume(t.call(), spec.id).await.unwrap();
    for _ in 0..2 {
        t.storage.remove_image(t.call(), cached.0.id).await.unwrap();
        t.storage.remove_volume(t.call(), spec.id).await.unwrap();
    }
    assert!(matches!(t.storage.image(cached.0.id).await, Err(StorageError::NoSuchImage(_))));
}

#[tokio::test]
async fn the_reserve_is_kept() {
    let t = Fixture::with(Rules { reserve_bytes: Some(1000), ..Rules::default() });
    t.fake.free.store(999, Ordering::Relaxed);
    assert!(matches!(t.ensure(&blank(1), true).await, Err(StorageError::NoSpace { reserve: 1000, .. })));
    t.fake.free.store(1000, Ordering::Relaxed);
    t.ensure(&blank(1), true).await.unwrap();
    let cached = image();
    assert!(matches!(t.put(&cached).await, Err(StorageError::NoSpace { .. })));
    t.fake.free.store(1000 + cached.0.size_bytes, Ordering::Relaxed);
    t.put(&cached).await.unwrap();
}

#[tokio::test]
async fn an_unhealthy_pool_states_no_facts() {
    let t = Fixture::new();
    t.fake.healthy.store(false, Ordering::Relaxed);
    let spec = blank(1);
    let unhealthy = |error: StorageError| assert!(matches!(error, StorageError::PoolNotHealthy { .. }), "{error}");
    unhealthy(t.ensure(&spec, false).await.unwrap_err());
    unhealthy(t.ensure(&spec, true).await.unwrap_err());
    unhealthy(t.storage.remove_volume(t.call(), spec.id).await.unwrap_err());
    unhealthy(t.storage.image(ImageId::random()).await.unwrap_err());
    unhealthy(t.put(&image()).await.unwrap_err());
}

#[tokio::test]
async fn older_calls_are_refused_even_after_the_removal() {
    let t = Fixture::new();
    let spec = blank(1);
    t.storage.ensure_volume(t.version(5), spec.clone(), true).await.unwrap();
    t.storage.remove_volume(t.version(6), spec.id).await.unwrap();
    let error = t.storage.ensure_volume(t.version(5), spec.clone(), true).await.unwrap_err();
    assert!(matches!(error, StorageError::NotAdmitted(_)), "{error}");
    assert!(t.storage.volumes().await.unwrap().is_empty());
}

#[tokio::test]
async fn calls_for_one_volume_follow_one_another_and_others_run_beside() {
    let t = Fixture::new();
    let (same, other) = (blank(1), blank(1));
    let all = join_all((0..20).map(|_| t.ensure(&same, true)));
    assert!(all.await.into_iter().all(|volume| volume.is_ok()));
    assert_eq!(t.fake.created.load(Ordering::SeqCst), 1);

    t.fake.gate.forget_permits(usize::MAX);
    let (first, second) = (blank(1), other);
    let open = async {
        while t.fake.under_way.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        t.fake.gate.add_permits(2);
    };
    let both = tokio::time::timeout(Duration::from_secs(10), async {
        tokio::join!(t.ensure(&first, true), t.ensure(&second, true), open)
    });
    let (first, second, ()) = both.await.expect("both are under way at the same time");
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_impatient_caller_stops_nothing() {
    let t = Fixture::with(Rules { patience: Duration::from_secs(1), ..Rules::default() });
    t.fake.gate.forget_permits(usize::MAX);
    let spec = blank(1);
    assert!(matches!(t.ensure(&spec, true).await, Err(StorageError::Slow { .. })));
    // The lock is still held.
    assert!(matches!(t.ensure(&spec, true).await, Err(StorageError::Slow { .. })));
    t.fake.gate.add_permits(1);
    t.ensure(&spec, true).await.unwrap();
    assert_eq!(t.fake.created.load(Ordering::SeqCst), 1);
    t.storage.stop().await;
    assert!(matches!(t.ensure(&spec, true).await, Err(StorageError::Stopping)));
}

#[tokio::test]
async fn an_image_comes_whole_or_not_at_all() {
    let t = Fixture::new();
    let (spec, bytes) = image();
    let put = |spec, bytes: Bytes| t.storage.put_image(t.call(), spec, parts(&bytes));
    let corrupt = |error: StorageError, text: &str| match error {
        StorageError::Corrupt { difference, .. } => assert!(difference.contains(text), "{difference}"),
        other => panic!("{other}"),
    };
    corrupt(put(spec, bytes.slice(1..)).await.unwrap_err(), "announced were 36000");
    corrupt(put(spec, [&bytes[..], b"x"].concat().into()).await.unwrap_err(), "more than the announced 36000");
    corrupt(put(spec, vec![7; bytes.len()].into()).await.unwrap_err(), "SHA-256 is");
    corrupt(put(ImageSpec { format: Format::Qcow2, ..spec }, bytes.clone()).await.unwrap_err(), "it is raw");
    let broken = stream::iter([Ok(bytes.slice(..10)), Err(StorageError::Stopping)]);
    let error = t.storage.put_image(t.call(), spec, broken).await.unwrap_err();
    assert!(matches!(error, StorageError::Stopping));
    assert!(t.storage.images().await.unwrap().is_empty());
    assert_eq!(put(spec, bytes).await.unwrap().virtual_size_bytes, VIRTUAL_SIZE);
}

#[tokio::test]
async fn an_equal_image_is_not_read_again_and_another_is_refused() {
    let t = Fixture::new();
    let (spec, bytes) = image();
    let both = join_all((0..2).map(|_| t.storage.put_image(t.call(), spec, parts(&bytes)))).await;
    assert!(both.into_iter().all(|image| image.is_ok()));
    let never = stream::pending::<Result<Bytes, StorageError>>();
    t.storage.put_image(t.call(), spec, never).await.unwrap();
    let (mut other, bytes) = image();
    other.id = spec.id;
    let error = t.storage.put_image(t.call(), other, parts(&bytes)).await.unwrap_err();
    assert!(matches!(&error, StorageError::Differs { difference, .. } if difference.contains("SHA-256")), "{error}");
}

#[tokio::test]
async fn a_lost_image_that_volumes_stand_on_comes_back_only_as_it_was() {
    let t = Fixture::new();
    let cached = image();
    let image_there = t.put(&cached).await.unwrap();
    t.ensure(&from(&cached.0, 100), true).await.unwrap();
    t.fake.images.lock().unwrap().insert(cached.0.id, FoundImage::Lost(image_there));
    let (mut other, bytes) = image();
    other.id = cached.0.id;
    assert!(matches!(t.put(&(other, bytes)).await, Err(StorageError::Differs { .. })));
    t.put(&cached).await.unwrap();
    assert_eq!(t.storage.image(cached.0.id).await.unwrap(), image_there);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_stop_coming_end_the_call() {
    let t = Fixture::new();
    let never = stream::pending::<Result<Bytes, StorageError>>();
    let error = t.storage.put_image(t.call(), image().0, never).await.unwrap_err();
    assert!(matches!(error, StorageError::Stalled { seconds: 60, .. }), "{error}");
}

fn snapshot_of(volume: &VolumeSpec) -> SnapshotSpec {
    SnapshotSpec { id: SnapshotId::random(), volume: volume.id, pool: volume.pool.clone() }
}

#[tokio::test]
async fn a_snapshot_is_taken_only_where_that_is_allowed_and_found_ever_after() {
    let t = Fixture::new();
    let volume = blank(10);
    let spec = snapshot_of(&volume);
    let ensure = |may_create| t.storage.ensure_snapshot(t.call(), spec.clone(), may_create);
    assert!(matches!(ensure(true).await, Err(StorageError::NoSuchVolume(id)) if id == volume.id));
    t.ensure(&volume, true).await.unwrap();
    assert!(matches!(ensure(false).await, Err(StorageError::SnapshotMissing(id)) if id == spec.id));
    let taken = ensure(true).await.unwrap();
    assert_eq!((taken.volume, taken.size_bytes), (volume.id, 10 * MIB));
    t.storage.remove_volume(t.call(), volume.id).await.unwrap();
    for may_create in [true, false] {
        assert_eq!(ensure(may_create).await.unwrap(), taken, "it outlives its volume");
    }
    assert_eq!(t.storage.snapshots().await.unwrap(), [taken]);
    for _ in 0..2 {
        t.storage.remove_snapshot(t.call(), spec.id).await.unwrap();
    }
    assert!(t.storage.snapshots().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_lost_snapshot_is_not_taken_again_and_another_volumes_is_refused() {
    let t = Fixture::new();
    let (volume, other) = (blank(10), blank(10));
    t.ensure(&volume, true).await.unwrap();
    t.ensure(&other, true).await.unwrap();
    let spec = snapshot_of(&volume);
    t.fake.snapshots.lock().unwrap().insert(spec.id, FoundSnapshot::Lost(t.call().owner()));
    for (may_create, lost) in [(true, true), (false, false)] {
        let error = t.storage.ensure_snapshot(t.call(), spec.clone(), may_create).await.unwrap_err();
        assert_eq!(matches!(error, StorageError::SnapshotLost(_)), lost, "{error}");
        assert_eq!(matches!(error, StorageError::SnapshotMissing(_)), !lost, "{error}");
    }
    let spec = snapshot_of(&volume);
    t.storage.ensure_snapshot(t.call(), spec.clone(), true).await.unwrap();
    let of_another = SnapshotSpec { volume: other.id, ..spec.clone() };
    let error = t.storage.ensure_snapshot(t.call(), of_another, true).await.unwrap_err();
    assert!(matches!(error, StorageError::Differs { .. }), "{error}");
    let error = t.storage.remove_snapshot(Fixture::foreign_call(), spec.id).await.unwrap_err();
    assert!(matches!(error, StorageError::OtherCloud { .. }), "{error}");
    let of_a_foreign_one = t.storage.ensure_snapshot(Fixture::foreign_call(), snapshot_of(&volume), true).await;
    assert!(matches!(of_a_foreign_one, Err(StorageError::OtherCloud { .. })));
}

#[tokio::test]
async fn a_copy_is_at_least_as_large_as_what_it_is_of_and_of_the_same_cloud() {
    let t = Fixture::new();
    let volume = blank(10);
    t.ensure(&volume, true).await.unwrap();
    let snapshot = snapshot_of(&volume);
    t.storage.ensure_snapshot(t.call(), snapshot.clone(), true).await.unwrap();
    let sources = [Source::Snapshot { snapshot_id: snapshot.id }, Source::Volume { volume_id: volume.id }];
    for source in sources {
        let small = t.ensure(&VolumeSpec { source, ..blank(9) }, true).await.unwrap_err();
        assert!(matches!(small, StorageError::Invalid { field: "spec.size_bytes", .. }), "{small}");
        let spec = VolumeSpec { source, ..blank(12) };
        let foreign = t.storage.ensure_volume(Fixture::foreign_call(), spec.clone(), true).await.unwrap_err();
        assert!(matches!(foreign, StorageError::OtherCloud { .. }), "{foreign}");
        let copy = t.ensure(&spec, true).await.unwrap();
        assert_eq!((copy.source, copy.size_bytes), (source, 12 * MIB));
        assert_eq!(t.ensure(&spec, false).await.unwrap(), copy);
    }
    let itself = blank(10);
    let itself = VolumeSpec { source: Source::Volume { volume_id: itself.id }, ..itself };
    assert!(matches!(t.ensure(&itself, true).await, Err(StorageError::Invalid { field: "spec.volume_id", .. })));
    let nothing = VolumeSpec { source: Source::Snapshot { snapshot_id: SnapshotId::random() }, ..blank(10) };
    assert!(matches!(t.ensure(&nothing, true).await, Err(StorageError::NoSuchSnapshot(_))));
}

#[tokio::test]
async fn beyond_the_limits_of_a_thin_pool_nothing_is_made_grown_or_taken() {
    let t = Fixture::new();
    let volume = blank(10);
    t.ensure(&volume, true).await.unwrap();
    let good = ThinStatus { data_permille: 950, metadata_permille: 900, virtual_bytes: 20 << 40 };
    let promised = (20 << 40) - 40 * MIB;
    let cases = [
        ("its data", ThinStatus { data_permille: 951, ..good }),
        ("its metadata", ThinStatus { metadata_permille: 901, ..good }),
        ("what its volumes promise", good),
    ];
    for (name, thin) in cases {
        *t.fake.thin.lock().unwrap() = Some(thin);
        let at_limit = |error: StorageError| match error {
            StorageError::AtLimit { what, .. } => assert_eq!(what, name),
            other => panic!("{other}"),
        };
        at_limit(t.ensure(&blank(10), true).await.unwrap_err());
        at_limit(t.storage.ensure_snapshot(t.call(), snapshot_of(&volume), true).await.unwrap_err());
        let larger = Mib::try_from(20).unwrap();
        at_limit(t.storage.resize_volume(t.call(), volume.id, larger).await.unwrap_err());
        t.ensure(&volume, true).await.unwrap();
    }
    *t.fake.thin.lock().unwrap() = Some(ThinStatus { virtual_bytes: promised, ..good });
    t.ensure(&blank(40), true).await.unwrap();
    assert!(t.ensure(&blank(41), true).await.is_err());
}

#[tokio::test]
async fn an_object_is_found_in_whichever_pool_has_it() {
    let (first, second) =
        (Arc::new(Fake::default()), Arc::new(Fake { name: "ssd".parse().unwrap(), ..Fake::default() }));
    let admission = Arc::new(Newest::default());
    let storage = |fake: &Arc<Fake>| Storage::new(fake.clone(), admission.clone(), Rules::default());
    let pools = Pools::new([storage(&first), storage(&second)]);
    let t = Fixture::new();
    let spec = VolumeSpec { pool: "ssd".parse().unwrap(), ..blank(10) };
    pools.ensure_volume(t.call(), spec.clone(), true).await.unwrap();
    assert_eq!((first.volumes.lock().unwrap().len(), second.volumes.lock().unwrap().len()), (0, 1));
    assert_eq!(
        pools.resize_volume(t.call(), spec.id, None, Mib::try_from(20).unwrap()).await.unwrap().size_bytes,
        20 * MIB
    );
    assert_eq!(pools.volumes().await.unwrap().len(), 1);
    let nowhere = "tape".parse().unwrap();
    let nothing = pools.remove_volume(t.call(), spec.id, Some(&nowhere)).await.unwrap_err();
    assert!(matches!(nothing, StorageError::NoSuchPool(_)), "{nothing}");
    pools.remove_volume(t.call(), spec.id, None).await.unwrap();
    assert!(pools.volumes().await.unwrap().is_empty());
    second.healthy.store(false, Ordering::Relaxed);
    let all = pools.all().await;
    assert_eq!(
        all.iter().map(|(name, answer)| (name.to_string(), answer.is_ok())).collect::<Vec<_>>(),
        [("default".into(), true), ("ssd".into(), false)]
    );
}
