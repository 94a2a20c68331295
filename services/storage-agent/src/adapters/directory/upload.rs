//! An image on its way into the pool.

use std::{fs::File, io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use cloud_image_probe::{ImageInfo, Limits, probe};

use super::{
    pool::Pool,
    record::{ImageRecord, Record as _},
};
use crate::{
    adapters::files::{self, Temporary},
    core::{
        StorageError,
        backend::{FoundImage, ImageUpload},
        model::{Image, ImageSpec},
    },
};

/// A temporary file, open for writing.
pub(super) struct Begun {
    place: Temporary,
    file: File,
}

pub(super) fn begin(pool: &Pool, spec: &ImageSpec) -> Result<Begun, StorageError> {
    let place = Temporary::name(&pool.images(), &spec.id.to_string());
    let file = place.create().map_err(|e| StorageError::backend("begin an image's file", e))?;
    Ok(Begun { place, file })
}

pub(super) struct Upload {
    pool: Arc<Pool>,
    spec: ImageSpec,
    /// Away while a write is under way; a write that was given up takes the upload with it.
    file: Option<File>,
    place: Temporary,
    limits: Limits,
}

impl Upload {
    pub(super) fn new(pool: Arc<Pool>, spec: ImageSpec, begun: Begun, limits: Limits) -> Self {
        Self { pool, spec, file: Some(begun.file), place: begun.place, limits }
    }

    /// Works on the file where it may block.
    async fn with_file(
        &mut self,
        work: impl FnOnce(&mut File) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StorageError> {
        let id = self.spec.id;
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

#[async_trait]
impl ImageUpload for Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.with_file(move |file| files::write_sparse(file, &bytes)).await
    }

    async fn seal(&mut self) -> Result<ImageInfo, StorageError> {
        let (image, size) = (self.spec.id, self.spec.size_bytes);
        self.with_file(move |file| {
            file.set_len(size)?;
            file.sync_all()
        })
        .await?;
        match probe(self.place.path(), &self.limits).await {
            Ok(info) => Ok(info),
            Err(source) if source.is_refusal() => Err(StorageError::BadImage { image, source }),
            Err(error) => Err(StorageError::backend(format!("probe image {image}"), error)),
        }
    }

    async fn commit(self: Box<Self>, image: &Image) -> Result<(), StorageError> {
        let image = *image;
        let Self { pool, place, .. } = *self;
        let committed = tokio::task::spawn_blocking(move || {
            pool.check()?;
            commit(&pool, &image, place)
        });
        committed.await.map_err(|broken| StorageError::backend("place an image", broken))?
    }
}

fn commit(pool: &Pool, image: &Image, place: Temporary) -> Result<(), StorageError> {
    let (id, format) = (image.spec.id, image.spec.format);
    if let FoundImage::Foreign(path) = super::images::find(pool, id)? {
        return Err(StorageError::Foreign(path));
    }
    ImageRecord::from(image).write(&pool.image_record(id))?;
    let put = || {
        place.sync(files::SHARED)?;
        place.place(&pool.image(id, format), false)
    };
    put().map_err(|e| StorageError::backend(format!("place image {id}"), e))
}
