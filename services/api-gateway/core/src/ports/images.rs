//! Where the gateway keeps image files.

use std::{any::Any, fmt, path::PathBuf};

use async_trait::async_trait;
use cloud_domain::ImageId;

use crate::model::{ImageFormat, ImageSource};

/// Why an image could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// It will never do: refused, not an image, another checksum, not there. For the user.
    #[error("{0}")]
    Refused(String),
    /// It may do later: the server does not answer, the disk is full.
    #[error("{0}")]
    Later(String),
}

/// A verified image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it is laid out.
    pub format: ImageFormat,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Bytes a guest sees.
    pub virtual_size_bytes: u64,
}

/// An image's file that stays where it is until this is dropped.
pub struct HeldImage {
    path: PathBuf,
    hold: Option<Box<dyn Any + Send + Sync>>,
}

impl HeldImage {
    /// A file that stays anyway.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, hold: None }
    }

    /// A file that stays as long as `hold`.
    #[must_use]
    pub fn held(path: PathBuf, hold: impl Send + Sync + 'static) -> Self {
        Self { path, hold: Some(Box::new(hold)) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl fmt::Debug for HeldImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldImage").field("path", &self.path).field("held", &self.hold.is_some()).finish()
    }
}

/// The gateway's image files.
#[async_trait]
pub trait ImageStore: Send + Sync {
    /// Brings an image in from a URL or from the import directory, and verifies it: checksum, format, no backing or data file, size limits.
    async fn fetch(
        &self,
        id: ImageId,
        source: &ImageSource,
        format: Option<ImageFormat>,
        sha256: &str,
    ) -> Result<ImageFile, FetchError>;

    /// Has the file of a READY image on this machine, with this SHA-256 (lower-case hex) and as many bytes; `None`: there is none.
    async fn hold(&self, id: ImageId, sha256: &str, size_bytes: u64) -> Result<Option<HeldImage>, FetchError>;

    /// Removes an image, wherever it is. What is gone is success.
    async fn remove(&self, id: ImageId) -> Result<(), FetchError>;
}
