//! The pools of one host.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use cloud_domain::{ImageId, Mib, SnapshotId, VolumeId};
use futures::{
    Stream,
    future::{join_all, try_join_all},
};

use super::{
    Storage,
    call::Call,
    error::StorageError,
    model::{Image, ImageSpec, PoolName, PoolStatus, Snapshot, SnapshotSpec, Volume, VolumeSpec},
};

/// Storage in every pool of a host. Where a call names no pool, an object is looked for in all of them.
#[derive(Clone)]
pub struct Pools {
    pools: Arc<BTreeMap<PoolName, Storage>>,
}

impl Pools {
    /// The pools, each under its name.
    #[must_use]
    pub fn new(pools: impl IntoIterator<Item = Storage>) -> Self {
        let named = pools.into_iter().map(|storage| (storage.parts.backend.pool().clone(), storage));
        Self { pools: Arc::new(named.collect()) }
    }

    /// Every pool, with what it has or why that is not known, and its kind.
    pub async fn all(&self) -> Vec<(PoolName, Result<(PoolStatus, &'static str), StorageError>)> {
        join_all(self.pools.iter().map(|(name, storage)| async move { (name.clone(), storage.pool().await) })).await
    }

    /// Waits until everything that was begun is done, and begins nothing more.
    pub async fn stop(&self) {
        join_all(self.pools.values().map(Storage::stop)).await;
    }

    fn named(&self, name: &PoolName) -> Result<&Storage, StorageError> {
        self.pools.get(name).ok_or_else(|| StorageError::NoSuchPool(name.clone()))
    }

    fn meant(&self, pool: Option<&PoolName>) -> Result<Vec<&Storage>, StorageError> {
        match pool {
            Some(name) => Ok(vec![self.named(name)?]),
            None => Ok(self.pools.values().collect()),
        }
    }

    /// See [`Storage::ensure_volume`].
    ///
    /// # Errors
    /// As there, and [`StorageError::NoSuchPool`].
    pub async fn ensure_volume(&self, call: Call, spec: VolumeSpec, may_create: bool) -> Result<Volume, StorageError> {
        self.named(&spec.pool)?.ensure_volume(call, spec, may_create).await
    }

    /// See [`Storage::remove_volume`].
    ///
    /// # Errors
    /// As there, and [`StorageError::NoSuchPool`].
    pub async fn remove_volume(&self, call: Call, id: VolumeId, pool: Option<&PoolName>) -> Result<(), StorageError> {
        for storage in self.meant(pool)? {
            storage.remove_volume(call.clone(), id).await?;
        }
        Ok(())
    }

    /// See [`Storage::resize_volume`].
    ///
    /// # Errors
    /// As there, and [`StorageError::NoSuchPool`].
    pub async fn resize_volume(
        &self,
        call: Call,
        id: VolumeId,
        pool: Option<&PoolName>,
        size: Mib,
    ) -> Result<Volume, StorageError> {
        for storage in self.meant(pool)? {
            match storage.resize_volume(call.clone(), id, size).await {
                Err(StorageError::NoSuchVolume(_)) => {}
                other => return other,
            }
        }
        Err(StorageError::NoSuchVolume(id))
    }

    /// Every volume of every pool.
    ///
    /// # Errors
    /// Where a pool is not healthy.
    pub async fn volumes(&self) -> Result<Vec<Volume>, StorageError> {
        Ok(try_join_all(self.pools.values().map(Storage::volumes)).await?.concat())
    }

    /// See [`Storage::ensure_snapshot`].
    ///
    /// # Errors
    /// As there, and [`StorageError::NoSuchPool`].
    pub async fn ensure_snapshot(
        &self,
        call: Call,
        spec: SnapshotSpec,
        may_create: bool,
    ) -> Result<Snapshot, StorageError> {
        self.named(&spec.pool)?.ensure_snapshot(call, spec, may_create).await
    }

    /// See [`Storage::remove_snapshot`].
    ///
    /// # Errors
    /// As there, and [`StorageError::NoSuchPool`].
    pub async fn remove_snapshot(
        &self,
        call: Call,
        id: SnapshotId,
        pool: Option<&PoolName>,
    ) -> Result<(), StorageError> {
        for storage in self.meant(pool)? {
            storage.remove_snapshot(call.clone(), id).await?;
        }
        Ok(())
    }

    /// Every snapshot of every pool.
    ///
    /// # Errors
    /// Where a pool is not healthy.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, StorageError> {
        Ok(try_join_all(self.pools.values().map(Storage::snapshots)).await?.concat())
    }

    /// See [`Storage::image`].
    ///
    /// # Errors
    /// As there, and [`StorageError::NoSuchPool`].
    pub async fn image(&self, id: ImageId, pool: &PoolName) -> Result<Image, StorageError> {
        self.named(pool)?.image(id).await
    }

    /// See [`Storage::put_image`].
    ///
    /// # Errors
    /// As there, and [`StorageError::NoSuchPool`].
    pub async fn put_image<E: From<StorageError>>(
        &self,
        call: Call,
        spec: ImageSpec,
        pool: &PoolName,
        bytes: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
    ) -> Result<Image, E> {
        self.named(pool)?.put_image(call, spec, bytes).await
    }

    /// See [`Storage::remove_image`].
    ///
    /// # Errors
    /// As there, and [`StorageError::NoSuchPool`].
    pub async fn remove_image(&self, call: Call, id: ImageId, pool: Option<&PoolName>) -> Result<(), StorageError> {
        for storage in self.meant(pool)? {
            storage.remove_image(call.clone(), id).await?;
        }
        Ok(())
    }

    /// Every cached image of every pool, with its pool.
    ///
    /// # Errors
    /// Where a pool is not healthy.
    pub async fn images(&self) -> Result<Vec<(PoolName, Image)>, StorageError> {
        let listed = self.pools.iter().map(|(name, storage)| async move {
            let images = storage.images().await?;
            Ok::<_, StorageError>(images.into_iter().map(|image| (name.clone(), image)).collect::<Vec<_>>())
        });
        Ok(try_join_all(listed).await?.concat())
    }
}
