//! The file of an image while its bytes come.

use std::{fs::File, io, path::Path};

use bytes::Bytes;
use cloud_domain::ImageId;
use cloud_image_probe::{ImageInfo, Limits, probe};

use super::files::{self, Temporary};
use crate::core::StorageError;

/// A temporary file that an image is written to. Dropping it removes the file.
pub(super) struct Incoming {
    image: ImageId,
    /// Away while a write is under way; a write that was given up takes it with it.
    file: Option<File>,
    place: Temporary,
}

impl Incoming {
    /// Makes the file in a directory. It may block.
    pub(super) fn begin(directory: &Path, image: ImageId) -> Result<Self, StorageError> {
        let place = Temporary::name(directory, &image.to_string());
        let file = place.create().map_err(|e| StorageError::backend("begin an image's file", e))?;
        Ok(Self { image, file: Some(file), place })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.place.path()
    }

    /// The file, to be put in its place.
    pub(super) fn into_place(self) -> Temporary {
        self.place
    }

    /// Adds bytes; zeros become holes.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.with_file(move |file| files::write_sparse(file, &bytes)).await
    }

    /// Makes it as long as it should be and durable, and says what is in it.
    pub(super) async fn seal(&mut self, size_bytes: u64, limits: &Limits) -> Result<ImageInfo, StorageError> {
        let image = self.image;
        self.with_file(move |file| {
            file.set_len(size_bytes)?;
            file.sync_all()
        })
        .await?;
        match probe(self.path(), limits).await {
            Ok(info) => Ok(info),
            Err(source) if source.is_refusal() => Err(StorageError::BadImage { image, source }),
            Err(error) => Err(StorageError::backend(format!("probe image {image}"), error)),
        }
    }

    /// Works on the file where it may block.
    async fn with_file(
        &mut self,
        work: impl FnOnce(&mut File) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StorageError> {
        let id = self.image;
        let failed = move |e: io::Error| StorageError::backend(format!("write image {id}"), e);
        let mut file = self.file.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let done = tokio::task::spawn_blocking(move || {
            work(&mut file)?;
            Ok(file)
        });
        self.file = Some(done.await.map_err(|e| failed(io::Error::other(e)))?.map_err(failed)?);
        Ok(())
    }
}
