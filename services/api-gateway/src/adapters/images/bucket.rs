//! A bucket of an S3-compatible server. What each call there may cost is bounded: images go in parts, and nothing waits for ever.
//!
//! An image is the object `<prefix>/<cloud's id>/<image's id>/<SHA-256>`. Nothing outside of `<prefix>/<cloud's id>/` is ever read, written, listed or
//! removed. Since the key says what the bytes are, two attempts at one image that were given different bytes do not overwrite each other's.

use std::{
    error::Error,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cloud_core::ports::FetchError;
use cloud_domain::{CloudId, ImageId};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    BackoffConfig, ClientOptions, MultipartId, ObjectStore, ObjectStoreExt as _, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    multipart::MultipartStore as _,
    path::Path as Key,
};
use tokio::time::timeout;

use super::{Incoming, incoming::blocking, machine};

/// What is sent in one request, at the least where there is more. S3 takes parts from 5 MiB on.
const PART: u64 = 16 << 20;
/// Parts of an object, at the most (S3's own limit).
const PARTS: u64 = 10_000;
/// Parts on their way at a time: this many of them are in memory.
const PARALLEL: usize = 3;
/// To connect.
const CONNECT: Duration = Duration::from_secs(10);
/// For a request without a body of note, its repetitions included.
const ANSWER: Duration = Duration::from_secs(30);
/// For a part to be taken, its repetitions included; between two chunks of an object that is read.
const STALL: Duration = Duration::from_secs(120);

/// What operators set of the bucket that images are kept in.
#[derive(Debug, Clone)]
pub struct BucketOptions {
    /// The server, such as `https://s3.example.org`; none: that of AWS in the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What the keys of all objects begin with.
    pub prefix: String,
    /// Whether the bucket is in the host name, not in the path.
    pub virtual_host: bool,
    /// The id of the access key.
    pub access_key: String,
    /// The file with its secret, which only its owner may read.
    pub secret_file: PathBuf,
    /// How many bytes of images are kept on this machine; none: all that were needed once.
    pub cache_max_bytes: Option<u64>,
}

/// The objects of one cloud in a bucket.
pub(super) struct Bucket {
    store: AmazonS3,
    /// What the keys of this cloud begin with.
    root: Key,
    /// The bucket's name.
    name: String,
}

impl Bucket {
    /// Asks nothing of the server yet.
    pub(super) fn new(options: &BucketOptions, cloud: CloudId) -> io::Result<Self> {
        let endpoint = endpoint(options)?;
        let client = ClientOptions::new()
            .with_allow_http(endpoint.starts_with("http://"))
            .with_connect_timeout(CONNECT)
            // It would end every transfer that takes longer: what stalls is ended below.
            .with_timeout_disabled();
        let backoff =
            BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 };
        let store = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_region(&options.region)
            .with_bucket_name(&options.bucket)
            .with_virtual_hosted_style_request(options.virtual_host)
            .with_access_key_id(&options.access_key)
            .with_secret_access_key(secret(&options.secret_file)?)
            .with_client_options(client)
            .with_retry(RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(15) })
            .build()
            .map_err(io::Error::other)?;
        let root = Key::parse(&options.prefix)
            .map_err(|e| invalid(format!("--image-bucket-prefix is no prefix of keys: {e}")))?;
        Ok(Self { store, root: root.join(cloud.to_string()), name: options.bucket.clone() })
    }

    #[cfg(test)]
    pub(super) fn server(&self) -> &AmazonS3 {
        &self.store
    }

    fn image(&self, id: ImageId) -> Key {
        self.root.clone().join(id.to_string())
    }

    fn object(&self, id: ImageId, sha256: &str) -> Key {
        self.image(id).join(sha256)
    }

    /// Sees that the server answers, and that the bucket is there for this key.
    pub(super) async fn check(&self) -> Result<(), FetchError> {
        // There is never anything below it.
        let nothing = self.root.clone().join("none");
        let listed = timeout(ANSWER, self.store.list_with_delimiter(Some(&nothing))).await;
        self.answered("be listed", listed).map(|_| ())
    }

    /// Puts a file. `begun` is told the id of an upload in parts before the first one is sent.
    pub(super) async fn put(
        &self,
        id: ImageId,
        sha256: &str,
        file: &Path,
        begun: impl AsyncFnOnce(&str) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        let key = self.object(id, sha256);
        let path = file.to_owned();
        let opened = blocking(move || File::open(path).and_then(|file| Ok((file.metadata()?.len(), Arc::new(file)))));
        let (size, file) = opened.await.map_err(|e| machine("read the image", &e))?;
        if size <= PART {
            let bytes = read(file, 0, size).await?;
            return self
                .answered("take an image", timeout(STALL, self.store.put(&key, bytes.into())).await)
                .map(|_| ());
        }
        let upload = timeout(ANSWER, self.store.create_multipart(&key)).await;
        let upload = self.answered("begin an upload", upload)?;
        let sent = async {
            begun(&upload).await?;
            self.put_parts(&key, &upload, file, size).await
        };
        let sent = sent.await;
        if sent.is_err()
            && let Err(error) = self.abort_key(&key, &upload).await
        {
            tracing::warn!(%key, %error, "parts of an image stay in the bucket for now");
        }
        sent
    }

    async fn put_parts(&self, key: &Key, upload: &MultipartId, file: Arc<File>, size: u64) -> Result<(), FetchError> {
        let length = part_length(size);
        let part = |number: u64| {
            let file = Arc::clone(&file);
            async move {
                let at = number * length;
                let bytes = read(file, at, length.min(size - at)).await?;
                let number = usize::try_from(number).map_err(|e| FetchError::Later(e.to_string()))?;
                let put = timeout(STALL, self.store.put_part(key, upload, number, bytes.into())).await;
                self.answered("take a part of an image", put)
            }
        };
        let parts = stream::iter(0..size.div_ceil(length)).map(part).buffered(PARALLEL).try_collect().await?;
        let done = timeout(STALL, self.store.complete_multipart(key, upload, parts)).await;
        self.answered("put an image together", done).map(|_| ())
    }

    /// Gives up an upload in parts. One that is not under way is success.
    pub(super) async fn abort(&self, id: ImageId, sha256: &str, upload: &str) -> Result<(), FetchError> {
        self.abort_key(&self.object(id, sha256), upload).await
    }

    async fn abort_key(&self, key: &Key, upload: &str) -> Result<(), FetchError> {
        match timeout(ANSWER, self.store.abort_multipart(key, &upload.to_owned())).await {
            Ok(Err(object_store::Error::NotFound { .. })) => self.check().await,
            other => self.answered("give up an upload", other),
        }
    }

    /// Writes an object into a file of the same size.
    ///
    /// # Errors
    /// Refused where there is no such object, or one of another size.
    pub(super) async fn get(&self, id: ImageId, sha256: &str, size: u64, to: &mut Incoming) -> Result<(), FetchError> {
        let key = self.object(id, sha256);
        let got = match timeout(ANSWER, self.store.get(&key)).await {
            // The bucket itself may be what is not there.
            Ok(Err(object_store::Error::NotFound { .. })) => {
                self.check().await?;
                return Err(FetchError::Refused(format!("the bucket `{}` has no object `{key}`", self.name)));
            }
            other => self.answered("give an image", other)?,
        };
        if got.meta.size != size {
            let message = format!("it has {} bytes, and {size} were put there", got.meta.size);
            return Err(self.damaged(id, sha256, &message));
        }
        let mut bytes = got.into_stream();
        loop {
            match self.answered("give an image", timeout(STALL, bytes.try_next()).await)? {
                Some(chunk) => to.write(chunk).await?,
                None => return Ok(()),
            }
        }
    }

    /// Whether an image's object is there.
    pub(super) async fn has(&self, id: ImageId, sha256: &str) -> Result<bool, FetchError> {
        match timeout(ANSWER, self.store.head(&self.object(id, sha256))).await {
            Ok(Err(object_store::Error::NotFound { .. })) => self.check().await.map(|()| false),
            other => self.answered("be asked for an image", other).map(|_| true),
        }
    }

    /// Removes every object of an image.
    pub(super) async fn remove(&self, id: ImageId) -> Result<(), FetchError> {
        let below = self.image(id);
        let listed = timeout(ANSWER, self.store.list(Some(&below)).try_collect::<Vec<_>>()).await;
        for object in self.answered("be listed", listed)? {
            self.remove_key(&object.location).await?;
        }
        Ok(())
    }

    /// Removes one object of an image.
    pub(super) async fn remove_one(&self, id: ImageId, sha256: &str) -> Result<(), FetchError> {
        self.remove_key(&self.object(id, sha256)).await
    }

    async fn remove_key(&self, key: &Key) -> Result<(), FetchError> {
        match timeout(ANSWER, self.store.delete(key)).await {
            Ok(Err(object_store::Error::NotFound { .. })) => self.check().await,
            other => self.answered("remove an image", other),
        }
    }

    /// An object that is not what its key says.
    pub(super) fn damaged(&self, id: ImageId, sha256: &str, how: &str) -> FetchError {
        let key = self.object(id, sha256);
        tracing::error!(%key, bucket = self.name, how, "an image in the bucket is damaged");
        FetchError::Refused(format!(
            "the object `{key}` in the bucket `{}` is damaged: {how}; delete the image and import it again",
            self.name
        ))
    }

    fn answered<T>(
        &self,
        what: &str,
        answer: Result<object_store::Result<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, FetchError> {
        let why = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => explain(&error),
            Err(_) => "it does not answer in time".to_owned(),
        };
        Err(FetchError::Later(format!("the bucket `{}` cannot {what}: {why}", self.name)))
    }
}

/// The code and the message that the server gave, in XML; else the first cause. What is above repeats what is below.
fn explain(error: &(dyn Error + 'static)) -> String {
    let Some(cause) = error.source() else { return said(&error.to_string()) };
    explain(cause)
}

fn said(error: &str) -> String {
    let of = |tag: &str| {
        let (_, rest) = error.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(text, _)| text)
    };
    match (of("Code"), of("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => error.to_owned(),
    }
}

/// Where requests go, the bucket included where it is in the host name.
fn endpoint(options: &BucketOptions) -> io::Result<String> {
    let default = || format!("https://s3.{}.amazonaws.com", options.region);
    let endpoint = options.endpoint.clone().unwrap_or_else(default);
    let wrong = |why: &str| Err(invalid(format!("--image-bucket-endpoint `{endpoint}` {why}")));
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return wrong("is not a URL") };
    let (Some(scheme @ ("https" | "http")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("must begin with https:// or http://");
    };
    if authority.as_str().contains('@') {
        return wrong("has a user in it: give --image-bucket-access-key and --image-bucket-secret-file");
    }
    if uri.query().is_some() || !matches!(uri.path(), "" | "/") && options.virtual_host {
        return wrong("has more than a host in it");
    }
    let path = uri.path().trim_end_matches('/');
    Ok(match options.virtual_host {
        true => format!("{scheme}://{}.{authority}", options.bucket),
        false => format!("{scheme}://{authority}{path}"),
    })
}

/// The secret in a file that only its owner may read.
fn secret(path: &Path) -> io::Result<String> {
    let shown = path.display();
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read the bucket's secret in {shown}: {error}"));
    let mode = fs::metadata(path).map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(invalid(format!(
            "the file with the bucket's secret, {shown}, has mode {mode:03o}: others may have read it; make it 600"
        )));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let secret = text.trim();
    if secret.is_empty() || !secret.chars().all(|c| c.is_ascii_graphic()) {
        return Err(invalid(format!("the file {shown} must hold the secret of the bucket's access key, in one line")));
    }
    Ok(secret.to_owned())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// How long parts are: whole MiB, as few as S3 allows.
fn part_length(size: u64) -> u64 {
    size.div_ceil(PARTS).next_multiple_of(1 << 20).max(PART)
}

async fn read(file: Arc<File>, at: u64, length: u64) -> Result<Bytes, FetchError> {
    let read = blocking(move || {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, at)?;
        Ok(Bytes::from(bytes))
    });
    read.await.map_err(|e| machine("read the image", &e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn options(endpoint: Option<&str>, virtual_host: bool) -> BucketOptions {
        BucketOptions {
            endpoint: endpoint.map(str::to_owned),
            region: "eu-1".to_owned(),
            bucket: "images".to_owned(),
            prefix: String::new(),
            virtual_host,
            access_key: "key".to_owned(),
            secret_file: "/nonexistent/secret".into(),
            cache_max_bytes: None,
        }
    }

    #[test]
    fn requests_go_where_the_options_say() {
        for (given, virtual_host, wanted) in [
            (None, false, "https://s3.eu-1.amazonaws.com"),
            (None, true, "https://images.s3.eu-1.amazonaws.com"),
            (Some("http://10.0.0.1:9000/"), false, "http://10.0.0.1:9000"),
            (Some("https://s3.example.org/there/"), false, "https://s3.example.org/there"),
            (Some("https://s3.example.org:8443"), true, "https://images.s3.example.org:8443"),
        ] {
            assert_eq!(endpoint(&options(given, virtual_host)).unwrap(), wanted);
        }
        for bad in
            ["s3.example.org", "ftp://s3.example.org", "https://key:secret@s3.example.org", "https://s3/?x=y", ""]
        {
            assert!(endpoint(&options(Some(bad), false)).is_err(), "{bad}");
        }
        assert!(endpoint(&options(Some("https://s3.example.org/there"), true)).is_err());
    }

    #[test]
    fn a_secret_that_others_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(secret(&path).unwrap_err().to_string().contains("No such file"));
        fs::write(&path, "abc/+=\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(secret(&path).unwrap_err().to_string().contains("mode 640"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(secret(&path).unwrap(), "abc/+=");
        for bad in ["", "\n", "two words", "two\nlines"] {
            fs::write(&path, bad).unwrap();
            assert!(secret(&path).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_image_of_any_size_fits_into_the_parts_of_an_object() {
        for size in [PART + 1, 1 << 30, 64 << 30, PART * PARTS, PART * PARTS + 1, 5 << 40] {
            let length = part_length(size);
            assert!(size.div_ceil(length) <= PARTS && length >= PART, "{size}: {length}");
        }
        assert_eq!((part_length(64 << 30), part_length(5 << 40)), (PART, 525 << 20));
    }

    #[test]
    fn an_error_of_the_server_is_told_in_its_words() {
        let xml = "403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><Message>Check your key</Message></Error>";
        assert_eq!(said(xml), "SignatureDoesNotMatch: Check your key");
        assert_eq!(said("<Error><Code>NoSuchBucket</Code></Error>"), "NoSuchBucket");
        assert_eq!(said("connection refused"), "connection refused");
    }
}
