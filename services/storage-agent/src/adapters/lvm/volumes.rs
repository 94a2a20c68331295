//! Volumes and snapshots as thin volumes.

use cloud_domain::{ImageId, Mib, SnapshotId, VolumeId};
use cloud_service_kit::error::chain;

use super::{
    Lv, LvmThin, Report,
    commands::{self, Refusal},
    tags::{self, Tags, What},
};
use crate::core::{
    StorageError,
    backend::{FoundSnapshot, FoundVolume},
    model::{Format, Owner, Snapshot, SnapshotSpec, Source, Volume, VolumeSpec},
};

impl LvmThin {
    /// What the tags of a logical volume say; none where it is not ours.
    pub(super) fn tags_of(&self, lv: &Lv) -> Result<Option<Tags>, StorageError> {
        let read = Tags::read(&lv.tags).map_err(|e| StorageError::backend(format!("use `{}`", lv.name), e))?;
        // One that somebody moved to another pool, or made with our tags elsewhere, is not what we made.
        Ok(read.filter(|_| lv.pool == self.place.pool))
    }

    pub(super) fn found_volume(&self, report: &Report, id: VolumeId) -> Result<FoundVolume, StorageError> {
        let name = tags::volume_name(id);
        let Some(lv) = report.get(&name) else { return Ok(FoundVolume::Nothing) };
        Ok(match self.tags_of(lv)? {
            Some(tags) if tags.id == *id.as_uuid() => match self.volume(lv, &tags) {
                Some(volume) => FoundVolume::Whole(volume),
                None if matches!(tags.what, What::Volume { .. }) => FoundVolume::Unfinished(tags.owner),
                None => FoundVolume::Foreign(self.device(&name)),
            },
            _ => FoundVolume::Foreign(self.device(&name)),
        })
    }

    /// The volume, where it is one and has the size that it was made for.
    fn volume(&self, lv: &Lv, tags: &Tags) -> Option<Volume> {
        let What::Volume { source, created_size_bytes } = tags.what else { return None };
        (lv.size >= created_size_bytes).then(|| Volume {
            id: tags.id.into(),
            owner: tags.owner,
            source,
            created_size_bytes,
            size_bytes: lv.size,
            allocated_bytes: lv.allocated(),
            path: self.device(&lv.name),
            format: Format::Raw,
            pool: self.name.clone(),
        })
    }

    pub(super) fn found_snapshot(&self, report: &Report, id: SnapshotId) -> Result<FoundSnapshot, StorageError> {
        let name = tags::snapshot_name(id);
        let Some(lv) = report.get(&name) else { return Ok(FoundSnapshot::Nothing) };
        let tags = self.tags_of(lv)?.filter(|tags| tags.id == *id.as_uuid());
        Ok(match tags.and_then(|tags| self.snapshot(lv, &tags)) {
            Some(snapshot) => FoundSnapshot::Whole(snapshot),
            None => FoundSnapshot::Foreign(self.device(&name)),
        })
    }

    fn snapshot(&self, lv: &Lv, tags: &Tags) -> Option<Snapshot> {
        let What::Snapshot { volume } = tags.what else { return None };
        Some(Snapshot {
            id: tags.id.into(),
            owner: tags.owner,
            volume,
            size_bytes: lv.size,
            allocated_bytes: lv.allocated(),
            pool: self.name.clone(),
        })
    }

    /// Ours, each with its tags. One whose tags cannot be read must not hide the others.
    pub(super) fn ours<'a>(&self, report: &'a Report) -> impl Iterator<Item = (&'a Lv, Tags)> {
        report.volumes.iter().filter_map(|lv| match self.tags_of(lv) {
            Ok(tags) => Some((lv, tags?)),
            Err(error) => {
                tracing::warn!(lv = lv.name, error = %chain(&error), "a logical volume is left out of the list");
                None
            }
        })
    }

    pub(super) fn all_volumes(&self, report: &Report) -> Vec<Volume> {
        let named = |lv: &Lv, tags: &Tags| lv.name == tags::volume_name(tags.id.into());
        self.ours(report).filter(|(lv, t)| named(lv, t)).filter_map(|(lv, tags)| self.volume(lv, &tags)).collect()
    }

    pub(super) fn all_snapshots(&self, report: &Report) -> Vec<Snapshot> {
        let named = |lv: &Lv, tags: &Tags| lv.name == tags::snapshot_name(tags.id.into());
        self.ours(report).filter(|(lv, t)| named(lv, t)).filter_map(|(lv, tags)| self.snapshot(lv, &tags)).collect()
    }

    pub(super) fn made_from(&self, report: &Report, image: ImageId) -> Vec<String> {
        let uses = |tags: &Tags| matches!(tags.what, What::Volume { source, .. } if source == Source::Image { image_id: image });
        self.ours(report).filter(|(_, tags)| uses(tags)).map(|(_, tags)| format!("volume {}", tags.id)).collect()
    }

    pub(super) async fn create(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, StorageError> {
        let name = tags::volume_name(spec.id);
        let tags = Tags::volume(spec, owner);
        let of = match spec.source {
            Source::Blank => None,
            Source::Image { image_id } => Some(tags::image_name(image_id)),
            Source::Snapshot { snapshot_id } => Some(tags::snapshot_name(snapshot_id)),
            Source::Volume { volume_id } => Some(tags::volume_name(volume_id)),
        };
        let command = match &of {
            None => commands::create_blank(&self.place, &name, spec.size, &tags),
            Some(of) => commands::create_copy(&self.place, &name, of, &tags),
        };
        self.create_anew("make a volume", &name, &command, || match spec.source {
            Source::Image { image_id } => StorageError::ImageNotCached { volume: spec.id, image: image_id },
            Source::Snapshot { snapshot_id } => StorageError::NoSuchSnapshot(snapshot_id),
            Source::Volume { volume_id } => StorageError::NoSuchVolume(volume_id),
            Source::Blank => self.unhealthy("its thin pool is gone".into()),
        })
        .await?;
        if of.is_some() {
            self.extend(&name, spec.size).await?;
        }
        self.just_made(spec, owner, &name).await
    }

    /// The volume as it was just made. A blank one is known without asking.
    async fn just_made(&self, spec: &VolumeSpec, owner: &Owner, name: &str) -> Result<Volume, StorageError> {
        if spec.source != Source::Blank {
            return match self.found_volume(&*self.fresh().await?, spec.id)? {
                FoundVolume::Whole(volume) => Ok(volume),
                other => Err(StorageError::backend("make a volume", format!("it is {other:?} after it was made"))),
            };
        }
        let extent = self.identity.extent_size.max(1);
        Ok(Volume {
            id: spec.id,
            owner: *owner,
            source: spec.source,
            created_size_bytes: spec.size.bytes(),
            size_bytes: spec.size.bytes().div_ceil(extent) * extent,
            allocated_bytes: 0,
            path: self.device(name),
            format: Format::Raw,
            pool: spec.pool.clone(),
        })
    }

    /// Makes a logical volume; one of ours that is in its place is unfinished, and removed.
    async fn create_anew(
        &self,
        doing: &'static str,
        name: &str,
        command: &cloud_service_kit::exec::Command,
        without_source: impl Fn() -> StorageError,
    ) -> Result<(), StorageError> {
        for last in [false, true] {
            match self.lvm.attempt(doing, command).await? {
                Ok(_) => return Ok(()),
                Err((Refusal::Exists, _)) if !last => {
                    let report = self.fresh().await?;
                    let Some(lv) = report.get(name) else { continue };
                    if self.tags_of(lv)?.is_none() {
                        return Err(StorageError::Foreign(self.device(name)));
                    }
                    self.remove(name, || StorageError::backend(doing, "what was left of it is in use")).await?;
                }
                Err((Refusal::Gone, _)) => return Err(without_source()),
                Err((_, error)) => return Err(StorageError::backend(doing, error)),
            }
        }
        Ok(())
    }

    async fn extend(&self, name: &str, size: Mib) -> Result<(), StorageError> {
        let doing = "grow a volume";
        match self.lvm.attempt(doing, &commands::extend(&self.place, name, size)).await? {
            Ok(_) | Err((Refusal::SameSize, _)) => Ok(()),
            Err((_, error)) => Err(StorageError::backend(doing, error)),
        }
    }

    pub(super) async fn grow(&self, id: VolumeId, size: Mib) -> Result<Volume, StorageError> {
        self.extend(&tags::volume_name(id), size).await?;
        match self.found_volume(&*self.fresh().await?, id)? {
            FoundVolume::Whole(volume) => Ok(volume),
            _ => Err(StorageError::NoSuchVolume(id)),
        }
    }

    pub(super) async fn take(&self, spec: &SnapshotSpec, owner: &Owner) -> Result<Snapshot, StorageError> {
        let (name, of) = (tags::snapshot_name(spec.id), tags::volume_name(spec.volume));
        let command = commands::create_snapshot(&self.place, &name, &of, &Tags::snapshot(spec, owner));
        self.create_anew("take a snapshot", &name, &command, || StorageError::NoSuchVolume(spec.volume)).await?;
        match self.found_snapshot(&*self.fresh().await?, spec.id)? {
            FoundSnapshot::Whole(snapshot) => Ok(snapshot),
            other => Err(StorageError::backend("take a snapshot", format!("it is {other:?} after it was taken"))),
        }
    }

    /// Removes a logical volume that the caller knows to be ours.
    pub(super) async fn remove(&self, name: &str, busy: impl FnOnce() -> StorageError) -> Result<(), StorageError> {
        let doing = "remove a logical volume";
        match self.lvm.attempt(doing, &commands::remove(&self.place, name)).await? {
            Ok(_) | Err((Refusal::Gone, _)) => Ok(()),
            Err((Refusal::InUse, _)) => Err(busy()),
            Err((_, error)) => Err(StorageError::backend(doing, error)),
        }
    }

    /// Activates a volume that is not: a group is activated by the system when it starts, unless that was turned off.
    pub(super) async fn activate(&self, volume: &Volume) -> Result<(), StorageError> {
        let name = tags::volume_name(volume.id);
        let active = match self.reports.younger(super::HEALTH_AGE) {
            Some(report) => report.get(&name).is_some_and(Lv::is_active),
            None => false,
        };
        if active {
            return Ok(());
        }
        self.lvm.run("activate a volume", &commands::activate(&self.place, &name)).await.map(drop)
    }
}
