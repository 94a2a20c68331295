//! The gateway's image files: one verified file per image in a directory.
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

mod fetch;
mod incoming;
mod local;
mod public;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use cloud_core::{
    model::{ImageFormat, ImageSource},
    ports::{FetchError, ImageFile, ImageStore},
};
use cloud_domain::ImageId;

use fetch::{Allowed, Fetcher};

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

/// Image files in a directory.
pub struct DirectoryImages {
    options: ImageOptions,
    incoming: PathBuf,
    probing: Probing,
    fetcher: Fetcher,
}

impl DirectoryImages {
    /// Opens the directory, makes it where it is not there, and throws away what a crash left half written.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(options: ImageOptions) -> io::Result<Self> {
        let any = options.allow_private;
        Self::with(options, Probing::Full, Arc::new(move |ip| any || public::is_public(ip)))
    }

    pub(crate) fn with(options: ImageOptions, probing: Probing, allowed: Allowed) -> io::Result<Self> {
        let incoming = options.dir.join("incoming");
        private_dir(&options.dir)?;
        match std::fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        private_dir(&incoming)?;
        Ok(Self { fetcher: Fetcher::new(allowed)?, options, incoming, probing })
    }

    /// Where an image's verified file is, or will be.
    fn final_path(&self, id: ImageId) -> PathBuf {
        self.options.dir.join(id.to_string())
    }

    /// The images that have a file.
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
    /// Later where the file cannot be made.
    pub async fn begin(&self, id: ImageId) -> Result<Incoming, FetchError> {
        Incoming::create(&self.incoming, id, self.options.max_bytes).await
    }

    /// Verifies what was written and gives it its final name.
    ///
    /// # Errors
    /// Refused where it is not what it must be; Later where the machine is at fault.
    pub async fn finish(
        &self,
        incoming: Incoming,
        format: Option<ImageFormat>,
        sha256: &str,
    ) -> Result<ImageFile, FetchError> {
        let to = self.final_path(incoming.id());
        incoming.finish(&to, format, sha256, self.probing).await
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
impl ImageStore for DirectoryImages {
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

    async fn path(&self, id: ImageId) -> Result<Option<PathBuf>, FetchError> {
        let path = self.final_path(id);
        match tokio::fs::metadata(&path).await {
            Ok(_) => Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(machine("look for the image file", &error)),
        }
    }

    async fn remove(&self, id: ImageId) -> Result<(), FetchError> {
        match tokio::fs::remove_file(self.final_path(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(machine("remove the image file", &error)),
            _ => Ok(()),
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
