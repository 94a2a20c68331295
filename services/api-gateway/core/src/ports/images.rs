//! Where the gateway keeps image files.

use std::path::PathBuf;

use async_trait::async_trait;
use cloud_domain::ImageId;

use crate::model::{ImageFormat, ImageSource};

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
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

    /// Where an image's file is, if it is there.
    async fn path(&self, id: ImageId) -> Result<Option<PathBuf>, FetchError>;

    /// Removes an image's file. What is gone is success.
    async fn remove(&self, id: ImageId) -> Result<(), FetchError>;
}
