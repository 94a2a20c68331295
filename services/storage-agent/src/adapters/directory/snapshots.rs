//! Snapshots as copies of volumes' files. The functions block; see the module above.

use cloud_domain::{ImageId, SnapshotId};
use cloud_service_kit::error::chain;

use super::{
    Directory,
    pool::Pool,
    record::{Record as _, SnapshotRecord, VolumeRecord, VolumeState},
    volumes::{Material, backing, header, look_at},
};
use crate::{
    adapters::{
        files::{self, Temporary},
        qemu_img::Outcome,
    },
    core::{
        StorageError,
        backend::FoundSnapshot,
        model::{Owner, Snapshot, SnapshotSpec},
    },
};

pub(super) fn find(pool: &Pool, id: SnapshotId) -> Result<FoundSnapshot, StorageError> {
    use std::os::unix::fs::MetadataExt as _;

    let path = pool.snapshot(id);
    let failed = |e| StorageError::backend(look_at(&path), e);
    let data = files::metadata(&path).map_err(failed)?;
    let Some(record) = SnapshotRecord::read(&pool.snapshot_record(id), id)? else {
        return Ok(if data.is_some() { FoundSnapshot::Foreign(path) } else { FoundSnapshot::Nothing });
    };
    match (record.state, data) {
        (VolumeState::Creating | VolumeState::Removing, _) => Ok(FoundSnapshot::Unfinished(record.owner)),
        (VolumeState::Ready, None) => Ok(FoundSnapshot::Lost(record.owner)),
        (VolumeState::Ready, Some(data)) => Ok(FoundSnapshot::Whole(Snapshot {
            id,
            owner: record.owner,
            volume: record.volume,
            size_bytes: header(&path).map_err(failed)?.virtual_size,
            allocated_bytes: data.blocks() * 512,
            pool: record.pool,
        })),
    }
}

pub(super) fn all(pool: &Pool) -> Result<Vec<Snapshot>, StorageError> {
    let mut snapshots = Vec::new();
    for id in recorded(pool)? {
        match find(pool, id) {
            Ok(FoundSnapshot::Whole(snapshot)) => snapshots.push(snapshot),
            Ok(_) => {}
            Err(error) if files::metadata(&pool.snapshot(id)).is_ok() => {
                tracing::warn!(snapshot_id = %id, error = %chain(&error), "a snapshot cannot be read: it is left out of the list");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(snapshots)
}

pub(super) fn made_from(pool: &Pool, image: ImageId) -> Result<Vec<String>, StorageError> {
    let mut users = Vec::new();
    for id in recorded(pool)? {
        // Removed since its name was read: no user any more.
        let Some(record) = SnapshotRecord::read(&pool.snapshot_record(id), id)? else { continue };
        if record.base == Some(image) {
            users.push(format!("snapshot {id}"));
        }
    }
    Ok(users)
}

/// The ids that have a record.
pub(super) fn recorded(pool: &Pool) -> Result<Vec<SnapshotId>, StorageError> {
    let names = files::names(&pool.snapshots()).map_err(|e| StorageError::backend("list the snapshots", e))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
}

/// Removes what has a record: data first, then the record.
pub(super) fn remove(pool: &Pool, id: SnapshotId) -> Result<(), StorageError> {
    let (path, record_path) = (pool.snapshot(id), pool.snapshot_record(id));
    let Some(mut record) = SnapshotRecord::read(&record_path, id)? else { return Ok(()) };
    let failed = |e| StorageError::backend(format!("remove `{}`", path.display()), e);
    if files::metadata(&path).map_err(failed)?.is_some() {
        if record.state == VolumeState::Ready {
            record.state = VolumeState::Removing;
            record.write(&record_path)?;
        }
        files::remove(&path).map_err(failed)?;
        files::sync_directory(&path).map_err(failed)?;
    }
    files::remove(&record_path).map_err(failed)?;
    files::sync_directory(&record_path).map_err(failed)
}

/// The first step of taking one: nothing but a record that says so.
fn begin(pool: &Pool, record: &mut SnapshotRecord) -> Result<Material, StorageError> {
    let path = pool.snapshot(record.id);
    remove(pool, record.id)?;
    if files::metadata(&path).map_err(|e| StorageError::backend(look_at(&path), e))?.is_some() {
        return Err(StorageError::Foreign(path));
    }
    let volume = VolumeRecord::read(&pool.volume_record(record.volume), record.volume)?
        .ok_or(StorageError::NoSuchVolume(record.volume))?;
    record.base = volume.image();
    let backing = record.base.map(|image| backing(pool, record.volume, image)).transpose()?;
    record.write(&pool.snapshot_record(record.id))?;
    Ok(Material { copied: Some(pool.volume(record.volume)), backing })
}

/// The last step: the data get their place, and the record says so.
fn commit(pool: &Pool, mut record: SnapshotRecord, data: Temporary) -> Result<Snapshot, StorageError> {
    let path = pool.snapshot(record.id);
    let place = || {
        data.sync(files::PRIVATE)?;
        data.place(&path, false)
    };
    place().map_err(|e| StorageError::backend(format!("place `{}`", path.display()), e))?;
    record.state = VolumeState::Ready;
    record.write(&pool.snapshot_record(record.id))?;
    match find(pool, record.id)? {
        FoundSnapshot::Whole(snapshot) => Ok(snapshot),
        other => Err(StorageError::backend("take a snapshot", format!("it is {other:?} after it was taken"))),
    }
}

impl Directory {
    pub(super) async fn take(&self, spec: &SnapshotSpec, owner: &Owner) -> Result<Snapshot, StorageError> {
        let mut record = SnapshotRecord::creating(spec, owner);
        let (record, material) = self
            .blocking(move |pool| {
                let material = begin(pool, &mut record)?;
                Ok((record, material))
            })
            .await?;
        let taken = self.copy_of(spec, record, material).await;
        if taken.is_err() {
            let id = spec.id;
            if let Err(error) = self.blocking(move |pool| remove(pool, id)).await {
                // It stays `creating`: the next call for it, or the next start, removes it.
                tracing::warn!(snapshot_id = %id, error = %chain(&error), "failed to clear a snapshot that was not taken");
            }
        }
        taken
    }

    async fn copy_of(
        &self,
        spec: &SnapshotSpec,
        record: SnapshotRecord,
        material: Material,
    ) -> Result<Snapshot, StorageError> {
        // Beside its place, so that the relative path of the backing file holds.
        let data = Temporary::name(&self.pool.snapshots(), &spec.id.to_string());
        let from = self.pool.volume(spec.volume);
        let backing = material.backing.as_ref().map(|(path, format)| (path.as_path(), *format));
        if self.qemu_img.copy(&from, data.path(), backing).await? == Outcome::Locked {
            return Err(StorageError::CopyInUse { volume: spec.volume, kind: super::KIND });
        }
        self.blocking(move |pool| commit(pool, record, data)).await
    }
}
