//! An image on its way into the pool.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloud_image_probe::{ImageInfo, Limits};

use super::{
    pool::Pool,
    record::{ImageRecord, Record as _},
};
use crate::{
    adapters::{
        files::{self, Temporary},
        incoming::Incoming,
    },
    core::{
        StorageError,
        backend::{FoundImage, ImageUpload},
        model::{Image, ImageSpec},
    },
};

pub(super) struct Upload {
    pool: Arc<Pool>,
    size_bytes: u64,
    file: Incoming,
    limits: Limits,
}

impl Upload {
    pub(super) fn new(pool: Arc<Pool>, spec: ImageSpec, file: Incoming, limits: Limits) -> Self {
        Self { pool, size_bytes: spec.size_bytes, file, limits }
    }
}

#[async_trait]
impl ImageUpload for Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.file.write(bytes).await
    }

    async fn seal(&mut self) -> Result<ImageInfo, StorageError> {
        self.file.seal(self.size_bytes, &self.limits).await
    }

    async fn commit(self: Box<Self>, image: &Image) -> Result<(), StorageError> {
        let image = *image;
        let Self { pool, file, .. } = *self;
        let committed = tokio::task::spawn_blocking(move || {
            pool.check()?;
            commit(&pool, &image, file.into_place())
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
