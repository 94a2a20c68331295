//! The rules of volumes.

use cloud_domain::{Mib, VolumeId};

use super::{
    Storage,
    backend::{FoundImage, FoundSnapshot, FoundVolume},
    call::Call,
    error::StorageError,
    model::{Source, Volume, VolumeSpec},
};

impl Storage {
    /// Makes a volume exist as specified; creates one only where `may_create` allows it.
    ///
    /// # Errors
    /// [`StorageError::DataMissing`] where it is not there and may not be created; [`StorageError::Differs`] where it is
    /// there with another specification.
    pub async fn ensure_volume(&self, call: Call, spec: VolumeSpec, may_create: bool) -> Result<Volume, StorageError> {
        self.is_my_pool(&spec.pool)?;
        let lock = self.parts.volumes.write(spec.id);
        self.run(format!("ensuring volume {}", spec.id), lock, |storage| async move {
            storage.parts.admission.admit(*spec.id.as_uuid(), &call)?;
            storage.ensure_locked(&call, &spec, may_create).await
        })
        .await
    }

    async fn ensure_locked(&self, call: &Call, spec: &VolumeSpec, may_create: bool) -> Result<Volume, StorageError> {
        let id = spec.id;
        // Held until the volume is made, so that its source stays.
        let _source = match spec.source {
            Source::Image { image_id } => Some(self.parts.images.read(image_id).await),
            Source::Snapshot { snapshot_id } => Some(self.parts.snapshots.read(snapshot_id).await),
            Source::Volume { volume_id } if volume_id != id => Some(self.parts.volumes.read(volume_id).await),
            Source::Volume { .. } => {
                return Err(StorageError::Invalid { field: "spec.volume_id", message: "is the volume itself".into() });
            }
            Source::Blank => None,
        };
        match self.parts.backend.find_volume(id).await? {
            FoundVolume::Whole(volume) => {
                call.owns(|| format!("volume {id}"), &volume.owner)?;
                same(&volume, spec)?;
                if matches!(spec.source, Source::Image { .. }) {
                    self.least_size(call, spec).await?;
                }
                self.parts.backend.prepare_volume(&volume).await?;
                Ok(volume)
            }
            FoundVolume::Foreign(path) => Err(StorageError::Foreign(path)),
            FoundVolume::Lost(owner) => {
                call.owns(|| format!("volume {id}"), &owner)?;
                // Whoever was told that it exists may have written to it: no fresh one takes its place.
                Err(if may_create { StorageError::DataLost(id) } else { StorageError::DataMissing(id) })
            }
            FoundVolume::Unfinished(owner) => {
                call.owns(|| format!("volume {id}"), &owner)?;
                self.create(call, spec, may_create).await
            }
            FoundVolume::Nothing => self.create(call, spec, may_create).await,
        }
    }

    async fn create(&self, call: &Call, spec: &VolumeSpec, may_create: bool) -> Result<Volume, StorageError> {
        if !may_create {
            return Err(StorageError::DataMissing(spec.id));
        }
        let least = self.least_size(call, spec).await?;
        if spec.size.bytes() < least {
            let message = format!("must be at least its source's {least} bytes, is {}", spec.size.bytes());
            return Err(StorageError::Invalid { field: "spec.size_bytes", message });
        }
        self.has_space(0, spec.size.bytes()).await?;
        self.parts.backend.create_volume(spec, &call.owner()).await
    }

    /// Bytes that the volume's source has, which must be there.
    async fn least_size(&self, call: &Call, spec: &VolumeSpec) -> Result<u64, StorageError> {
        match spec.source {
            Source::Blank => Ok(0),
            Source::Image { image_id } => match self.parts.backend.find_image(image_id).await? {
                FoundImage::Whole(image) => Ok(image.virtual_size_bytes),
                FoundImage::Foreign(path) => Err(StorageError::Foreign(path)),
                FoundImage::Nothing | FoundImage::Lost(_) => {
                    Err(StorageError::ImageNotCached { volume: spec.id, image: image_id })
                }
            },
            Source::Snapshot { snapshot_id } => match self.parts.backend.find_snapshot(snapshot_id).await? {
                FoundSnapshot::Whole(snapshot) => {
                    call.owns(|| format!("snapshot {snapshot_id}"), &snapshot.owner)?;
                    Ok(snapshot.size_bytes)
                }
                FoundSnapshot::Foreign(path) => Err(StorageError::Foreign(path)),
                FoundSnapshot::Nothing | FoundSnapshot::Unfinished(_) | FoundSnapshot::Lost(_) => {
                    Err(StorageError::NoSuchSnapshot(snapshot_id))
                }
            },
            Source::Volume { volume_id } => match self.parts.backend.find_volume(volume_id).await? {
                FoundVolume::Whole(volume) => {
                    call.owns(|| format!("volume {volume_id}"), &volume.owner)?;
                    Ok(volume.size_bytes)
                }
                FoundVolume::Foreign(path) => Err(StorageError::Foreign(path)),
                FoundVolume::Nothing | FoundVolume::Unfinished(_) | FoundVolume::Lost(_) => {
                    Err(StorageError::NoSuchVolume(volume_id))
                }
            },
        }
    }

    /// Removes a volume. What is gone is success.
    ///
    /// # Errors
    /// [`StorageError::VolumeInUse`] where a process has it open, [`StorageError::Foreign`] and
    /// [`StorageError::OtherCloud`] where it is not this cloud's.
    pub async fn remove_volume(&self, call: Call, id: VolumeId) -> Result<(), StorageError> {
        let lock = self.parts.volumes.write(id);
        self.run(format!("removing volume {id}"), lock, |storage| async move {
            storage.parts.admission.admit(*id.as_uuid(), &call)?;
            let owner = match storage.parts.backend.find_volume(id).await? {
                FoundVolume::Nothing => None,
                FoundVolume::Foreign(path) => return Err(StorageError::Foreign(path)),
                FoundVolume::Unfinished(owner) | FoundVolume::Lost(owner) => Some(owner),
                FoundVolume::Whole(volume) => Some(volume.owner),
            };
            if let Some(owner) = owner {
                call.owns(|| format!("volume {id}"), &owner)?;
                storage.parts.backend.remove_volume(id).await?;
            }
            storage.parts.admission.removed(*id.as_uuid());
            Ok(())
        })
        .await
    }

    /// Grows a volume. To the size it has: success.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] where it is larger already, [`StorageError::VolumeInUse`] where a process has it open and
    /// its kind of pool cannot grow it then.
    pub async fn resize_volume(&self, call: Call, id: VolumeId, size: Mib) -> Result<Volume, StorageError> {
        let lock = self.parts.volumes.write(id);
        self.run(format!("resizing volume {id}"), lock, |storage| async move {
            storage.parts.admission.admit(*id.as_uuid(), &call)?;
            let volume = match storage.parts.backend.find_volume(id).await? {
                FoundVolume::Whole(volume) => volume,
                FoundVolume::Foreign(path) => return Err(StorageError::Foreign(path)),
                FoundVolume::Nothing | FoundVolume::Unfinished(_) => return Err(StorageError::NoSuchVolume(id)),
                FoundVolume::Lost(_) => return Err(StorageError::DataMissing(id)),
            };
            call.owns(|| format!("volume {id}"), &volume.owner)?;
            if size.bytes() == volume.size_bytes {
                return Ok(volume);
            }
            if size.bytes() < volume.size_bytes {
                let message =
                    format!("must be more than the volume's {} bytes, is {}", volume.size_bytes, size.bytes());
                return Err(StorageError::Invalid { field: "size_bytes", message });
            }
            storage.has_space(0, size.bytes() - volume.size_bytes).await?;
            storage.parts.backend.grow_volume(id, size).await
        })
        .await
    }

    /// Every volume that can be read, of any cloud. One that is not among them is not said to be missing.
    ///
    /// # Errors
    /// Where the pool is not healthy.
    pub async fn volumes(&self) -> Result<Vec<Volume>, StorageError> {
        self.run(
            "listing volumes",
            std::future::ready(()),
            |storage| async move { storage.parts.backend.volumes().await },
        )
        .await
    }
}

/// Whether a volume is the specified one.
fn same(volume: &Volume, spec: &VolumeSpec) -> Result<(), StorageError> {
    let wanted = spec.size.bytes();
    let difference = if volume.source != spec.source {
        format!("it was made from {}, not from {}", volume.source, spec.source)
    } else if volume.pool != spec.pool {
        format!("it is in pool `{}`, not in `{}`", volume.pool, spec.pool)
    } else if wanted > volume.size_bytes {
        format!("it has {} bytes, not {wanted}; ResizeVolume grows it", volume.size_bytes)
    } else if wanted < volume.created_size_bytes.min(volume.size_bytes) {
        // Between its first size and its present one lies every size that it had: a row that was read before a
        // growth, or restored from a backup, may still say one of them.
        format!("it was made with {} bytes, not {wanted}", volume.created_size_bytes)
    } else {
        return Ok(());
    };
    Err(StorageError::Differs { what: format!("volume {}", spec.id), difference })
}
