//! A pool in memory, for tests of the rules.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use cloud_domain::{ImageId, Mib, SnapshotId, VolumeId};
use cloud_image_probe::ImageInfo;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    backend::{FoundImage, FoundSnapshot, FoundVolume, ImageUpload, StorageBackend},
    call::{Admission, Call},
    error::StorageError,
    model::{
        Format, Image, ImageSpec, Owner, PoolName, PoolStatus, Snapshot, SnapshotSpec, Source, ThinStatus, Volume,
        VolumeSpec,
    },
};

/// Disk of every image.
pub(super) const VIRTUAL_SIZE: u64 = 4 << 20;

pub(super) struct Fake {
    pub(super) name: PoolName,
    pub(super) volumes: Mutex<HashMap<VolumeId, FoundVolume>>,
    pub(super) snapshots: Mutex<HashMap<SnapshotId, FoundSnapshot>>,
    pub(super) thin: Mutex<Option<ThinStatus>>,
    pub(super) images: Arc<Mutex<HashMap<ImageId, FoundImage>>>,
    pub(super) free: AtomicU64,
    pub(super) healthy: AtomicBool,
    /// Creations wait for a permit each.
    pub(super) gate: Semaphore,
    pub(super) under_way: AtomicUsize,
    pub(super) created: AtomicUsize,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            name: "default".parse().unwrap(),
            volumes: Mutex::default(),
            snapshots: Mutex::default(),
            thin: Mutex::default(),
            images: Arc::default(),
            free: AtomicU64::new(1 << 40),
            healthy: AtomicBool::new(true),
            gate: Semaphore::new(1000),
            under_way: AtomicUsize::new(0),
            created: AtomicUsize::new(0),
        }
    }
}

impl Fake {
    fn check(&self) -> Result<(), StorageError> {
        if self.healthy.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(StorageError::PoolNotHealthy { pool: self.name.clone(), reason: "away".into() })
    }
}

#[async_trait]
impl StorageBackend for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn pool(&self) -> &PoolName {
        &self.name
    }

    async fn status(&self) -> Result<PoolStatus, StorageError> {
        self.space().await
    }

    async fn space(&self) -> Result<PoolStatus, StorageError> {
        self.check()?;
        let free_bytes = self.free.load(Ordering::Relaxed);
        let thin = *self.thin.lock().unwrap();
        Ok(PoolStatus { name: self.name.clone(), pool_id: "fake".into(), total_bytes: 1 << 40, free_bytes, thin })
    }

    async fn find_volume(&self, id: VolumeId) -> Result<FoundVolume, StorageError> {
        self.check()?;
        Ok(self.volumes.lock().unwrap().get(&id).cloned().unwrap_or(FoundVolume::Nothing))
    }

    async fn create_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, StorageError> {
        let unfinished = FoundVolume::Unfinished(*owner);
        self.volumes.lock().unwrap().insert(spec.id, unfinished);
        self.under_way.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.created.fetch_add(1, Ordering::SeqCst);
        let volume = Volume {
            id: spec.id,
            owner: *owner,
            source: spec.source,
            created_size_bytes: spec.size.bytes(),
            size_bytes: spec.size.bytes(),
            allocated_bytes: 0,
            path: PathBuf::from("/fake"),
            format: Format::Qcow2,
            pool: spec.pool.clone(),
        };
        self.volumes.lock().unwrap().insert(spec.id, FoundVolume::Whole(volume.clone()));
        Ok(volume)
    }

    async fn prepare_volume(&self, _volume: &Volume) -> Result<(), StorageError> {
        Ok(())
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), StorageError> {
        self.volumes.lock().unwrap().remove(&id);
        Ok(())
    }

    async fn grow_volume(&self, id: VolumeId, size: Mib) -> Result<Volume, StorageError> {
        let mut volumes = self.volumes.lock().unwrap();
        let Some(FoundVolume::Whole(volume)) = volumes.get_mut(&id) else { return Err(StorageError::NoSuchVolume(id)) };
        volume.size_bytes = size.bytes();
        Ok(volume.clone())
    }

    async fn volumes(&self) -> Result<Vec<Volume>, StorageError> {
        let volumes = self.volumes.lock().unwrap();
        let whole = |found: &FoundVolume| if let FoundVolume::Whole(v) = found { Some(v.clone()) } else { None };
        Ok(volumes.values().filter_map(whole).collect())
    }

    async fn find_snapshot(&self, id: SnapshotId) -> Result<FoundSnapshot, StorageError> {
        self.check()?;
        Ok(self.snapshots.lock().unwrap().get(&id).cloned().unwrap_or(FoundSnapshot::Nothing))
    }

    async fn create_snapshot(&self, spec: &SnapshotSpec, owner: &Owner) -> Result<Snapshot, StorageError> {
        let FoundVolume::Whole(volume) = self.find_volume(spec.volume).await? else { panic!() };
        let snapshot = Snapshot {
            id: spec.id,
            owner: *owner,
            volume: spec.volume,
            size_bytes: volume.size_bytes,
            allocated_bytes: 0,
            pool: spec.pool.clone(),
        };
        self.created.fetch_add(1, Ordering::SeqCst);
        self.snapshots.lock().unwrap().insert(spec.id, FoundSnapshot::Whole(snapshot.clone()));
        Ok(snapshot)
    }

    async fn remove_snapshot(&self, id: SnapshotId) -> Result<(), StorageError> {
        self.snapshots.lock().unwrap().remove(&id);
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<Snapshot>, StorageError> {
        let snapshots = self.snapshots.lock().unwrap();
        let whole = |found: &FoundSnapshot| if let FoundSnapshot::Whole(s) = found { Some(s.clone()) } else { None };
        Ok(snapshots.values().filter_map(whole).collect())
    }

    async fn users_of_image(&self, id: ImageId) -> Result<Vec<String>, StorageError> {
        let volumes = self.volumes().await?;
        let users = volumes.iter().filter(|v| v.source == Source::Image { image_id: id });
        Ok(users.map(|v| format!("volume {}", v.id)).collect())
    }

    async fn find_image(&self, id: ImageId) -> Result<FoundImage, StorageError> {
        self.check()?;
        Ok(self.images.lock().unwrap().get(&id).cloned().unwrap_or(FoundImage::Nothing))
    }

    async fn begin_image(&self, _spec: &ImageSpec) -> Result<Box<dyn ImageUpload>, StorageError> {
        Ok(Box::new(FakeUpload { images: Arc::clone(&self.images), bytes: Vec::new() }))
    }

    async fn remove_image(&self, id: ImageId) -> Result<(), StorageError> {
        self.images.lock().unwrap().remove(&id);
        Ok(())
    }

    async fn images(&self) -> Result<Vec<Image>, StorageError> {
        let images = self.images.lock().unwrap();
        Ok(images.values().filter_map(|i| if let FoundImage::Whole(i) = i { Some(*i) } else { None }).collect())
    }
}

struct FakeUpload {
    images: Arc<Mutex<HashMap<ImageId, FoundImage>>>,
    bytes: Vec<u8>,
}

#[async_trait]
impl ImageUpload for FakeUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn seal(&mut self) -> Result<ImageInfo, StorageError> {
        let format = if self.bytes.starts_with(b"QFI\xfb") { Format::Qcow2 } else { Format::Raw };
        Ok(ImageInfo { format, virtual_size: VIRTUAL_SIZE, file_size: self.bytes.len() as u64 })
    }

    async fn commit(self: Box<Self>, image: &Image) -> Result<(), StorageError> {
        self.images.lock().unwrap().insert(image.spec.id, FoundImage::Whole(*image));
        Ok(())
    }
}

/// Admits what is not older, without a session.
#[derive(Default)]
pub(super) struct Newest(Mutex<HashMap<Uuid, (u64, u64)>>);

impl Admission for Newest {
    fn admit(&self, resource: Uuid, call: &Call) -> Result<(), StorageError> {
        let mut newest = self.0.lock().unwrap();
        let newest = newest.entry(resource).or_default();
        if (call.epoch, call.version) < *newest {
            let stale = cloud_service_kit::ServiceError::failed_precondition("STALE_CALL", "older");
            return Err(StorageError::NotAdmitted(Box::new(stale)));
        }
        *newest = (call.epoch, call.version);
        Ok(())
    }

    fn removed(&self, _resource: Uuid) {}
}
