//! Volumes as files. The functions block; see the module above for the order of their steps.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use cloud_domain::{ImageId, Mib, VolumeId};
use cloud_image_probe::{HEAD_BYTES, HeaderError, qcow2::Header};
use cloud_service_kit::error::chain;

use super::{
    Directory,
    pool::Pool,
    record::{Record as _, SnapshotRecord, VolumeRecord, VolumeState},
};
use crate::{
    adapters::{
        files::{self, Temporary},
        qemu_img::Outcome,
    },
    core::{
        StorageError,
        backend::{FoundImage, FoundVolume},
        model::{Format, Owner, Source, Volume, VolumeSpec},
    },
};

/// What a volume's file is made of.
pub(super) struct Material {
    /// The file to copy; none: a new one.
    pub(super) copied: Option<PathBuf>,
    /// What it stands on.
    pub(super) backing: Option<(PathBuf, Format)>,
}

pub(super) fn find(pool: &Pool, id: VolumeId) -> Result<FoundVolume, StorageError> {
    let path = pool.volume(id);
    let data = files::metadata(&path).map_err(|e| StorageError::backend(look_at(&path), e))?;
    let Some(record) = VolumeRecord::read(&pool.volume_record(id), id)? else {
        return Ok(if data.is_some() { FoundVolume::Foreign(path) } else { FoundVolume::Nothing });
    };
    match (record.state, data) {
        (VolumeState::Creating | VolumeState::Removing, _) => Ok(FoundVolume::Unfinished(record.owner)),
        (VolumeState::Ready, None) => Ok(FoundVolume::Lost(record.owner)),
        (VolumeState::Ready, Some(data)) => whole(&record, path, data.blocks() * 512).map(FoundVolume::Whole),
    }
}

fn whole(record: &VolumeRecord, path: PathBuf, allocated_bytes: u64) -> Result<Volume, StorageError> {
    let header = header(&path).map_err(|e| StorageError::backend(look_at(&path), e))?;
    Ok(Volume {
        id: record.id,
        owner: record.owner,
        source: record.source,
        created_size_bytes: record.created_size_bytes,
        size_bytes: header.virtual_size,
        allocated_bytes,
        path,
        format: Format::Qcow2,
        pool: record.pool.clone(),
    })
}

pub(super) fn look_at(path: &Path) -> String {
    format!("look at `{}`", path.display())
}

pub(super) fn header(path: &Path) -> io::Result<Header> {
    let mut head = Vec::with_capacity(512);
    File::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Header::parse(&head).map_err(|error: HeaderError| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(super) fn all(pool: &Pool) -> Result<Vec<Volume>, StorageError> {
    let mut volumes = Vec::new();
    for id in recorded(pool)? {
        match find(pool, id) {
            Ok(FoundVolume::Whole(volume)) => volumes.push(volume),
            Ok(_) => {}
            // One that cannot be read must not hide the others. Who misses it asks for it, and is told.
            Err(error) if files::metadata(&pool.volume(id)).is_ok() => {
                tracing::warn!(volume_id = %id, error = %chain(&error), "a volume cannot be read: it is left out of the list");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(volumes)
}

pub(super) fn made_from(pool: &Pool, image: ImageId) -> Result<Vec<String>, StorageError> {
    let mut users = Vec::new();
    for id in recorded(pool)? {
        // Removed since its name was read: no user any more.
        let Some(record) = VolumeRecord::read(&pool.volume_record(id), id)? else { continue };
        if record.image() == Some(image) {
            users.push(format!("volume {id}"));
        }
    }
    Ok(users)
}

/// The ids that have a record.
pub(super) fn recorded(pool: &Pool) -> Result<Vec<VolumeId>, StorageError> {
    let names = files::names(&pool.volumes()).map_err(|e| StorageError::backend("list the volumes", e))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
}

/// Removes what has a record: data first, then the record. A process that has the data open is an error.
pub(super) fn remove(pool: &Pool, id: VolumeId) -> Result<(), StorageError> {
    let (path, record_path) = (pool.volume(id), pool.volume_record(id));
    let Some(mut record) = VolumeRecord::read(&record_path, id)? else { return Ok(()) };
    let failed = |e: io::Error| StorageError::backend(format!("remove `{}`", path.display()), e);
    if files::metadata(&path).map_err(failed)?.is_some() {
        if files::is_locked(&path).map_err(failed)? {
            return Err(StorageError::VolumeInUse(id));
        }
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

/// The first step of making a volume: nothing but a record that says so.
fn begin(pool: &Pool, record: &mut VolumeRecord) -> Result<Material, StorageError> {
    let path = pool.volume(record.id);
    if VolumeRecord::read(&pool.volume_record(record.id), record.id)?.is_some_and(|r| r.state == VolumeState::Ready) {
        return Err(StorageError::backend("make a volume", format!("`{}` is one already", path.display())));
    }
    remove(pool, record.id)?;
    if files::metadata(&path).map_err(|e| StorageError::backend(look_at(&path), e))?.is_some() {
        return Err(StorageError::Foreign(path));
    }
    let copied = match record.source {
        Source::Blank | Source::Image { .. } => None,
        Source::Snapshot { snapshot_id } => {
            let source = SnapshotRecord::read(&pool.snapshot_record(snapshot_id), snapshot_id)?
                .ok_or(StorageError::NoSuchSnapshot(snapshot_id))?;
            record.base = source.base;
            Some(pool.snapshot(snapshot_id))
        }
        Source::Volume { volume_id } => {
            let source = VolumeRecord::read(&pool.volume_record(volume_id), volume_id)?
                .ok_or(StorageError::NoSuchVolume(volume_id))?;
            record.base = source.image();
            Some(pool.volume(volume_id))
        }
    };
    let backing = record.image().map(|image| backing(pool, record.id, image)).transpose()?;
    record.write(&pool.volume_record(record.id))?;
    Ok(Material { copied, backing })
}

/// The file of an image, as seen from a volume's or a snapshot's directory.
pub(super) fn backing(pool: &Pool, volume: VolumeId, image: ImageId) -> Result<(PathBuf, Format), StorageError> {
    match super::images::find(pool, image)? {
        FoundImage::Whole(found) => {
            Ok((PathBuf::from(format!("../images/{image}.{}", found.spec.format)), found.spec.format))
        }
        _ => Err(StorageError::ImageNotCached { volume, image }),
    }
}

/// The last step: the data get their place, and the record says so.
fn commit(pool: &Pool, mut record: VolumeRecord, data: Temporary) -> Result<Volume, StorageError> {
    let path = pool.volume(record.id);
    let place = || {
        data.sync(files::PRIVATE)?;
        data.place(&path, false)
    };
    place().map_err(|e| StorageError::backend(format!("place `{}`", path.display()), e))?;
    record.state = VolumeState::Ready;
    record.write(&pool.volume_record(record.id))?;
    match find(pool, record.id)? {
        FoundVolume::Whole(volume) => Ok(volume),
        other => Err(StorageError::backend("make a volume", format!("it is {other:?} after it was made"))),
    }
}

impl Directory {
    pub(super) async fn create(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, StorageError> {
        let mut record = VolumeRecord::creating(spec, owner);
        let (record, material) = self
            .blocking(move |pool| {
                let material = begin(pool, &mut record)?;
                Ok((record, material))
            })
            .await?;
        let made = self.make(spec, record, material).await;
        if made.is_err() {
            let id = spec.id;
            if let Err(error) = self.blocking(move |pool| remove(pool, id)).await {
                // It stays `creating`: the next call for it, or the next start, removes it.
                tracing::warn!(volume_id = %id, error = %chain(&error), "failed to clear a volume that was not made");
            }
        }
        made
    }

    async fn make(&self, spec: &VolumeSpec, record: VolumeRecord, material: Material) -> Result<Volume, StorageError> {
        // Beside its place, so that the relative path of the backing file holds.
        let data = Temporary::name(&self.pool.volumes(), &spec.id.to_string());
        let backing = material.backing.as_ref().map(|(path, format)| (path.as_path(), *format));
        match &material.copied {
            None => self.qemu_img.create(data.path(), spec.size, backing).await?,
            Some(from) => {
                if self.qemu_img.copy(from, data.path(), backing).await? == Outcome::Locked {
                    return Err(match spec.source {
                        Source::Volume { volume_id } => {
                            StorageError::CopyInUse { volume: volume_id, kind: super::KIND }
                        }
                        // Another copy of it is being made.
                        _ => StorageError::VolumeInUse(spec.id),
                    });
                }
                if self.qemu_img.resize(data.path(), spec.size).await? == Outcome::Locked {
                    return Err(StorageError::VolumeInUse(spec.id));
                }
            }
        }
        self.blocking(move |pool| commit(pool, record, data)).await
    }

    pub(super) async fn grow(&self, id: VolumeId, size: Mib) -> Result<Volume, StorageError> {
        let path = self.pool.volume(id);
        if self.qemu_img.resize(&path, size).await? == Outcome::Locked {
            return Err(StorageError::VolumeInUse(id));
        }
        self.blocking(move |pool| {
            let sync = || File::open(pool.volume(id))?.sync_all();
            sync().map_err(|e| StorageError::backend("bring a volume to stable storage", e))?;
            match find(pool, id)? {
                FoundVolume::Whole(volume) => Ok(volume),
                _ => Err(StorageError::NoSuchVolume(id)),
            }
        })
        .await
    }
}
