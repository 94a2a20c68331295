//! The rules of snapshots.

use cloud_domain::SnapshotId;

use super::{
    Storage,
    backend::{FoundSnapshot, FoundVolume},
    call::Call,
    error::StorageError,
    model::{Snapshot, SnapshotSpec},
};

impl Storage {
    /// Makes a snapshot of a volume exist; takes one only where `may_create` allows it.
    ///
    /// # Errors
    /// [`StorageError::SnapshotMissing`] where it is not there and may not be taken; [`StorageError::Differs`] where it is
    /// there and of another volume; [`StorageError::CopyInUse`] where a process has the volume open and its kind of pool
    /// cannot take one then.
    pub async fn ensure_snapshot(
        &self,
        call: Call,
        spec: SnapshotSpec,
        may_create: bool,
    ) -> Result<Snapshot, StorageError> {
        self.is_my_pool(&spec.pool)?;
        let lock = self.parts.snapshots.write(spec.id);
        self.run(format!("ensuring snapshot {}", spec.id), lock, |storage| async move {
            storage.parts.admission.admit(*spec.id.as_uuid(), &call)?;
            storage.ensure_snapshot_locked(&call, &spec, may_create).await
        })
        .await
    }

    async fn ensure_snapshot_locked(
        &self,
        call: &Call,
        spec: &SnapshotSpec,
        may_create: bool,
    ) -> Result<Snapshot, StorageError> {
        let id = spec.id;
        let what = || format!("snapshot {id}");
        match self.parts.backend.find_snapshot(id).await? {
            FoundSnapshot::Whole(snapshot) => {
                call.owns(what, &snapshot.owner)?;
                if snapshot.volume == spec.volume {
                    return Ok(snapshot);
                }
                let difference = format!("it is of volume {}, not of {}", snapshot.volume, spec.volume);
                Err(StorageError::Differs { what: what(), difference })
            }
            FoundSnapshot::Foreign(path) => Err(StorageError::Foreign(path)),
            FoundSnapshot::Lost(owner) => {
                call.owns(what, &owner)?;
                // Another moment is not the one that was kept.
                Err(if may_create { StorageError::SnapshotLost(id) } else { StorageError::SnapshotMissing(id) })
            }
            FoundSnapshot::Unfinished(owner) => {
                call.owns(what, &owner)?;
                self.take(call, spec, may_create).await
            }
            FoundSnapshot::Nothing => self.take(call, spec, may_create).await,
        }
    }

    async fn take(&self, call: &Call, spec: &SnapshotSpec, may_create: bool) -> Result<Snapshot, StorageError> {
        if !may_create {
            return Err(StorageError::SnapshotMissing(spec.id));
        }
        // Held until the snapshot is taken, so that the volume stays as large as it is, and stays.
        let _volume = self.parts.volumes.write(spec.volume).await;
        let volume = match self.parts.backend.find_volume(spec.volume).await? {
            FoundVolume::Whole(volume) => volume,
            FoundVolume::Foreign(path) => return Err(StorageError::Foreign(path)),
            FoundVolume::Nothing | FoundVolume::Unfinished(_) | FoundVolume::Lost(_) => {
                return Err(StorageError::NoSuchVolume(spec.volume));
            }
        };
        call.owns(|| format!("volume {}", volume.id), &volume.owner)?;
        self.has_space(0, volume.size_bytes).await?;
        self.parts.backend.create_snapshot(spec, &call.owner()).await
    }

    /// Removes a snapshot. What is gone is success.
    ///
    /// # Errors
    /// [`StorageError::Foreign`] and [`StorageError::OtherCloud`] where it is not this cloud's.
    pub async fn remove_snapshot(&self, call: Call, id: SnapshotId) -> Result<(), StorageError> {
        let lock = self.parts.snapshots.write(id);
        self.run(format!("removing snapshot {id}"), lock, |storage| async move {
            storage.parts.admission.admit(*id.as_uuid(), &call)?;
            let owner = match storage.parts.backend.find_snapshot(id).await? {
                FoundSnapshot::Nothing => None,
                FoundSnapshot::Foreign(path) => return Err(StorageError::Foreign(path)),
                FoundSnapshot::Unfinished(owner) | FoundSnapshot::Lost(owner) => Some(owner),
                FoundSnapshot::Whole(snapshot) => Some(snapshot.owner),
            };
            if let Some(owner) = owner {
                call.owns(|| format!("snapshot {id}"), &owner)?;
                storage.parts.backend.remove_snapshot(id).await?;
            }
            storage.parts.admission.removed(*id.as_uuid());
            Ok(())
        })
        .await
    }

    /// Every snapshot that can be read, of any cloud. One that is not among them is not said to be missing.
    ///
    /// # Errors
    /// Where the pool is not healthy.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, StorageError> {
        self.run("listing snapshots", std::future::ready(()), |storage| async move {
            storage.parts.backend.snapshots().await
        })
        .await
    }
}
