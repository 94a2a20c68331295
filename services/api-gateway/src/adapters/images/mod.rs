//! The gateway's image files: one verified file per image in a directory, or one object in a bucket.
//!
//! # Theory of operation
//!
//! Bytes come from a URL, from the operator's import directory or from a caller, and all three are strangers. They are written to a
//! file of their own under `incoming/`, hashed on the way and cut off at a size limit; then the file is probed (see `cloud-image-probe`: its
//! format is what its bytes say, no backing file, no data file, a sane virtual size), made durable, and only then renamed to `<image id>`.
//! So a file under its final name is whole and verified, and what a crash leaves is in `incoming/`, which is emptied at start.
//!
//! - [`fetch`]: HTTP, where the danger is that the gateway asks its own network on a stranger's behalf.
//! - [`local`]: the import directory, where the danger is a path that leads out of it.
//! - [`incoming`]: writing, hashing, verifying.
//! - [`shared`]: where there is a bucket, the object in it is the image, and files are copies of it.

mod bucket;
mod cache;
mod fetch;
mod holds;
mod incoming;
mod local;
mod marks;
mod public;
mod shared;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use cloud_core::{
    model::{ImageFormat, ImageSource},
    ports::{FetchError, HeldImage, ImageFile, ImageStore, Store},
};
use cloud_domain::{CloudId, ImageId};

use fetch::{Allowed, Fetcher};
use shared::Shared;

pub use bucket::BucketOptions;
pub use fetch::check_url;
pub use incoming::Incoming;
pub use local::check_relative;

/// What operators set of image files.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// Where the files are.
    pub dir: PathBuf,
    /// The directory that operators import from; none: they cannot.
    pub import_dir: Option<PathBuf>,
    /// The largest file, in bytes.
    pub max_bytes: u64,
    /// Whether images may be fetched from addresses that are not public.
    pub allow_private: bool,
    /// How long a fetch may take.
    pub timeout: Duration,
    /// The bucket that images are kept in; none: the directory is where they are.
    pub bucket: Option<BucketOptions>,
}

/// How far a file is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probing {
    /// By its header, and by `qemu-img` in a confined process.
    Full,
    /// By its header only: for tests, which may need nothing but cargo.
    #[cfg_attr(not(test), allow(dead_code))]
    Header,
}

/// Image files in a directory, and in a bucket where there is one.
pub struct ImageFiles {
    options: ImageOptions,
    incoming: PathBuf,
    probing: Probing,
    fetcher: Fetcher,
    shared: Option<Arc<Shared>>,
}

impl ImageFiles {
    /// Opens the directory, makes it where it is not there, and throws away what a crash left half written. Of a bucket nothing is asked yet.
    ///
    /// # Errors
    /// The directory cannot be made or read; what is said of the bucket cannot be, or its secret not be read.
    pub fn open(options: ImageOptions, cloud: CloudId) -> io::Result<Self> {
        let any = options.allow_private;
        Self::with(options, cloud, Probing::Full, Arc::new(move |ip| any || public::is_public(ip)))
    }

    pub(crate) fn with(options: ImageOptions, cloud: CloudId, probing: Probing, allowed: Allowed) -> io::Result<Self> {
        let incoming = options.dir.join("incoming");
        private_dir(&options.dir)?;
        match std::fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        private_dir(&incoming)?;
        let shared = options.bucket.as_ref().map(|bucket| Shared::open(bucket, cloud, &options.dir, &incoming));
        let shared = shared.transpose()?.map(Arc::new);
        Ok(Self { fetcher: Fetcher::new(allowed)?, options, incoming, probing, shared })
    }

    /// Whether images are kept in a bucket.
    #[must_use]
    pub fn has_bucket(&self) -> bool {
        self.shared.is_some()
    }

    /// Sees that images can be kept: that the bucket is there, where there is one.
    ///
    /// # Errors
    /// Later, with what the server says.
    pub async fn check(&self) -> Result<(), FetchError> {
        match &self.shared {
            Some(shared) => shared.check().await,
            None => Ok(()),
        }
    }

    /// Puts in order what crashes and other gateways left of the bucket here. What fails is logged, and done the next time.
    pub async fn upkeep<S: Store>(&self, store: &S) {
        let Some(shared) = &self.shared else { return };
        match self.ids() {
            Ok(before) => shared.upkeep(store, before).await,
            Err(error) => tracing::warn!(%error, "cannot list image files"),
        }
    }

    /// Removes an image's file from the directory, and from nowhere else. What is gone is success.
    ///
    /// # Errors
    /// Later.
    pub async fn discard(&self, id: ImageId) -> Result<(), FetchError> {
        match tokio::fs::remove_file(self.final_path(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(machine("remove the image file", &error)),
            _ => Ok(()),
        }
    }

    /// Where an image's verified file is, or will be, without a bucket.
    fn final_path(&self, id: ImageId) -> PathBuf {
        self.options.dir.join(id.to_string())
    }

    /// The images that have a file there.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn ids(&self) -> io::Result<Vec<ImageId>> {
        let names = std::fs::read_dir(&self.options.dir)?.map(|entry| entry.map(|e| e.file_name()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    /// Begins an image whose bytes are written by [`Incoming::write`] and ended by [`Self::finish`].
    ///
    /// # Errors
    /// Later where the file cannot be made, or could not be put into the bucket.
    pub async fn begin(&self, id: ImageId) -> Result<Incoming, FetchError> {
        self.check().await?;
        Incoming::create(&self.incoming, id, self.options.max_bytes).await
    }

    /// Verifies what was written and keeps it.
    ///
    /// # Errors
    /// Refused where it is not what it must be; Later where the machine or the bucket is at fault.
    pub async fn finish(
        &self,
        incoming: Incoming,
        format: Option<ImageFormat>,
        sha256: &str,
    ) -> Result<ImageFile, FetchError> {
        let to = self.final_path(incoming.id());
        let verified = incoming.verify(format, sha256, self.probing).await?;
        match &self.shared {
            Some(shared) => shared.put(verified).await,
            None => verified.keep(&to).await,
        }
    }

    async fn fetch_bytes(&self, source: &ImageSource, incoming: &mut Incoming) -> Result<(), FetchError> {
        match source {
            ImageSource::Url(url) => {
                match tokio::time::timeout(self.options.timeout, self.fetcher.fetch(url, incoming)).await {
                    Ok(fetched) => fetched,
                    Err(_) => Err(FetchError::Later(format!("`{url}` took longer than {:?}", self.options.timeout))),
                }
            }
            ImageSource::File(path) => local::copy(self.options.import_dir.as_deref(), path, incoming).await,
            ImageSource::Upload => Err(FetchError::Refused(
                "its bytes were uploaded and are not here: delete the image and upload it again".to_owned(),
            )),
        }
    }
}

#[async_trait]
impl ImageStore for ImageFiles {
    async fn fetch(
        &self,
        id: ImageId,
        source: &ImageSource,
        format: Option<ImageFormat>,
        sha256: &str,
    ) -> Result<ImageFile, FetchError> {
        let mut incoming = self.begin(id).await?;
        self.fetch_bytes(source, &mut incoming).await?;
        self.finish(incoming, format, sha256).await
    }

    async fn hold(&self, id: ImageId, sha256: &str, size_bytes: u64) -> Result<Option<HeldImage>, FetchError> {
        if let Some(shared) = &self.shared {
            return shared.hold(id, sha256, size_bytes).await.map(Some);
        }
        let path = self.final_path(id);
        match tokio::fs::metadata(&path).await {
            Ok(_) => Ok(Some(HeldImage::new(path))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(machine("look for the image file", &error)),
        }
    }

    async fn remove(&self, id: ImageId) -> Result<(), FetchError> {
        match &self.shared {
            Some(shared) => shared.remove(id).await,
            None => self.discard(id).await,
        }
    }
}

/// A fault of the machine: full, slow or broken, but not the image's.
fn machine(what: &str, error: &io::Error) -> FetchError {
    FetchError::Later(format!("the gateway cannot {what}: {error}"))
}

/// Makes a directory that only its owner reads.
fn private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests;
