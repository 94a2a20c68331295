//! A pool of thin logical volumes (lvmthin(7)), through the LVM commands.
//!
//! # Theory of operation
//! The volume group is the only record. Each of our logical volumes says by its tags whose it is and what it shall be
//! ([`tags`]); what has no tag of ours is foreign and is never touched, whatever its name. LVM writes a group's metadata as
//! a transaction, tags included, so a logical volume is there with its tags or not at all, and most operations are one
//! command:
//!
//! | what | is | commands |
//! | --- | --- | --- |
//! | a blank volume | a thin volume `vol-<id>` | `lvcreate` |
//! | a snapshot | a thin snapshot `snap-<id>`, never activated | `lvcreate -s` |
//! | a copy of an image, a snapshot or a volume | a thin snapshot `vol-<id>` of it | `lvcreate -s`, `lvextend` where it is larger |
//! | an image | a thin volume `img-<id>`, inactive once it is written | `lvcreate`, `qemu-img convert`, `lvchange` twice |
//!
//! Where it takes several, what is there in between says so: a copy that is smaller than its tag says, and an image whose
//! tag says `creating`, are unfinished, and the next call for them, or the next start, removes them.
//!
//! Thin snapshots share blocks by reference counts, so that each may go without the others, and a chain of them is as
//! fast as one. Taking one of a volume that a guest has open suspends the device for a moment: it has what was written
//! before, as after a loss of power. The pool zeroes what it hands out, so that nobody reads what another one wrote; a
//! pool that does not is refused.
//!
//! The state of the group is read by one `lvs` that all who wait share ([`report`]). It names the group and the pool by
//! their UUIDs: where those are not the ones that this host knows, "it is not there" is no fact but an error.
//!
//! A pool that is full answers writes with an error at once (`error_when_full`), so that the hypervisor pauses the guest
//! that wrote. It is extended before that, as far as the group has room ([`extend`]).

mod commands;
mod extend;
mod images;
mod open;
mod report;
mod tags;
mod volumes;

use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use cloud_domain::{ImageId, Mib, SnapshotId, VolumeId};
use cloud_image_probe::Limits;

pub use self::open::{LvmPlace, PlaceError, PoolError};
use self::{
    commands::Lvm,
    report::{Lv, Report, Reports},
};
use crate::{
    adapters::qemu_img::QemuImg,
    core::{
        StorageError,
        backend::{FoundImage, FoundSnapshot, FoundVolume, ImageUpload, StorageBackend},
        model::{Image, ImageSpec, Owner, PoolName, PoolStatus, Snapshot, SnapshotSpec, Volume, VolumeSpec},
    },
};

/// The kind, as heartbeats and errors say it.
pub const KIND: &str = "lvm-thin";

/// How long the pool may take to answer a proof of health: less than a heartbeat waits.
const HEALTH_DEADLINE: Duration = Duration::from_secs(4);
/// How old what is known may be where the pool does not answer at once: commands on one group follow one another.
const HEALTH_AGE: Duration = Duration::from_secs(45);
/// How old what is known of the pool's space may be where that is all that is asked for.
const SPACE_AGE: Duration = Duration::from_secs(2);

/// How an LVM pool is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The pool's name on this host.
    pub name: PoolName,
    /// Its volume group and thin pool.
    pub place: LvmPlace,
    /// Where this host remembers which pool it had there.
    pub memory: PathBuf,
    /// Where images are kept while they come.
    pub incoming: PathBuf,
    /// How many commands run at the same time.
    pub max_commands: usize,
    /// What the probe of an image may cost.
    pub probe: Limits,
    /// How long a start waits for another agent, such as its predecessor, to leave the pool.
    pub handover: Duration,
}

/// The backend.
pub struct LvmThin {
    name: PoolName,
    place: LvmPlace,
    identity: open::Identity,
    lvm: Arc<Lvm>,
    reports: Reports,
    qemu_img: Arc<QemuImg>,
    probe: Limits,
    incoming: PathBuf,
    extending: Arc<tokio::sync::Mutex<()>>,
    /// The last failure to extend the pool, said once.
    stuck: Arc<Mutex<Option<String>>>,
    /// Keeps other agents out as long as it is open.
    _lock: File,
}

impl LvmThin {
    /// The state of the group, no older than this call.
    async fn fresh(&self) -> Result<Arc<Report>, StorageError> {
        self.checked(self.reports.fresh(&self.lvm, &self.place).await)
    }

    /// Proves that a report is about the pool that this host knows.
    fn checked(&self, report: Result<Arc<Report>, StorageError>) -> Result<Arc<Report>, StorageError> {
        let report = report.map_err(|error| match error {
            StorageError::Backend { .. } => self.unhealthy(cloud_service_kit::error::chain(&error)),
            other => other,
        })?;
        match open::Identity::of(&report, &self.place) {
            Some(identity) if identity == self.identity => Ok(report),
            Some(other) => Err(self.unhealthy(format!("{} is {other}, not {}", self.place, self.identity))),
            None => Err(self
                .unhealthy(format!("volume group {} has no thin pool {} any more", self.place.group, self.place.pool))),
        }
    }

    fn unhealthy(&self, reason: String) -> StorageError {
        StorageError::PoolNotHealthy { pool: self.name.clone(), reason }
    }

    fn status_of(&self, report: &Report) -> Result<PoolStatus, StorageError> {
        let pool = report.pool(&self.place).ok_or_else(|| self.unhealthy("its thin pool is gone".into()))?;
        if let Some(wrong) = pool.what_is_wrong() {
            return Err(self.unhealthy(wrong));
        }
        Ok(PoolStatus {
            name: self.name.clone(),
            pool_id: self.identity.to_string(),
            total_bytes: pool.size.saturating_add(report.group_free()),
            free_bytes: pool.free_bytes().saturating_add(report.group_free()),
            thin: Some(report.thin(&self.place)),
        })
    }

    /// The device of a logical volume.
    fn device(&self, name: &str) -> PathBuf {
        self.place.device(name)
    }
}

#[async_trait]
impl StorageBackend for LvmThin {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn pool(&self) -> &PoolName {
        &self.name
    }

    async fn status(&self) -> Result<PoolStatus, StorageError> {
        let report = match self.reports.younger(SPACE_AGE) {
            Some(report) => self.checked(Ok(report))?,
            None => match tokio::time::timeout(HEALTH_DEADLINE, self.fresh()).await {
                Ok(report) => report?,
                Err(_) => match self.reports.younger(HEALTH_AGE) {
                    Some(report) => self.checked(Ok(report))?,
                    None => {
                        let seconds = HEALTH_AGE.as_secs();
                        return Err(self.unhealthy(format!("its volume group did not answer for {seconds} s")));
                    }
                },
            },
        };
        self.extend_if_needed(&report);
        self.status_of(&report)
    }

    async fn space(&self) -> Result<PoolStatus, StorageError> {
        let report = match self.reports.younger(SPACE_AGE) {
            Some(report) => self.checked(Ok(report))?,
            None => self.fresh().await?,
        };
        self.status_of(&report)
    }

    async fn find_volume(&self, id: VolumeId) -> Result<FoundVolume, StorageError> {
        self.found_volume(&*self.fresh().await?, id)
    }

    async fn create_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, StorageError> {
        self.create(spec, owner).await
    }

    async fn prepare_volume(&self, volume: &Volume) -> Result<(), StorageError> {
        self.activate(volume).await
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), StorageError> {
        self.remove(&tags::volume_name(id), || StorageError::VolumeInUse(id)).await
    }

    async fn grow_volume(&self, id: VolumeId, size: Mib) -> Result<Volume, StorageError> {
        self.grow(id, size).await
    }

    async fn volumes(&self) -> Result<Vec<Volume>, StorageError> {
        Ok(self.all_volumes(&*self.fresh().await?))
    }

    async fn find_snapshot(&self, id: SnapshotId) -> Result<FoundSnapshot, StorageError> {
        self.found_snapshot(&*self.fresh().await?, id)
    }

    async fn create_snapshot(&self, spec: &SnapshotSpec, owner: &Owner) -> Result<Snapshot, StorageError> {
        self.take(spec, owner).await
    }

    async fn remove_snapshot(&self, id: SnapshotId) -> Result<(), StorageError> {
        let busy = || StorageError::backend("remove a snapshot", format!("`{}` is in use", tags::snapshot_name(id)));
        self.remove(&tags::snapshot_name(id), busy).await
    }

    async fn snapshots(&self) -> Result<Vec<Snapshot>, StorageError> {
        Ok(self.all_snapshots(&*self.fresh().await?))
    }

    async fn users_of_image(&self, id: ImageId) -> Result<Vec<String>, StorageError> {
        Ok(self.made_from(&*self.fresh().await?, id))
    }

    async fn find_image(&self, id: ImageId) -> Result<FoundImage, StorageError> {
        self.found_image(&*self.fresh().await?, id)
    }

    async fn begin_image(&self, spec: &ImageSpec) -> Result<Box<dyn ImageUpload>, StorageError> {
        Ok(Box::new(self.receive(spec).await?))
    }

    async fn remove_image(&self, id: ImageId) -> Result<(), StorageError> {
        let busy = || StorageError::backend("remove an image", format!("`{}` is in use", tags::image_name(id)));
        self.remove(&tags::image_name(id), busy).await
    }

    async fn images(&self) -> Result<Vec<Image>, StorageError> {
        Ok(self.all_images(&*self.fresh().await?))
    }
}

#[cfg(test)]
mod tests;
