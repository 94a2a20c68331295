//! Labels of volumes, and how much guests may do with them in a second.

use cloud_domain::InstanceStatus;

use super::{VolumeService, ordered};
use crate::{
    CoreError,
    model::{Caller, DiskChange, Instance, Labels, Volume, VolumeLimits, VolumeStatus},
    ports::{Store, Tx, WorkKind},
    services::{
        lookup::{check_etag, event, labels, live, member},
        snapshots::volume_state,
    },
};

/// Fewer operations a second than this are a mistake: with one a second no guest boots.
const LEAST_IOPS: u32 = 10;
/// More than any disk does.
const MOST_IOPS: u32 = 1_000_000;
/// More than any disk does.
const MOST_MB_PER_SECOND: u32 = 100_000;

/// What of a volume is changed; what is none stays.
#[derive(Debug, Clone, Default)]
pub struct VolumeChange {
    /// All its labels.
    pub labels: Option<Labels>,
    /// Reads and writes a second; 0: no limit.
    pub iops: Option<u32>,
    /// Megabytes a second; 0: no limit.
    pub mb_per_second: Option<u32>,
}

impl VolumeChange {
    fn limits(&self, now: VolumeLimits) -> VolumeLimits {
        VolumeLimits {
            iops: self.iops.unwrap_or(now.iops),
            mb_per_second: self.mb_per_second.unwrap_or(now.mb_per_second),
        }
    }
}

/// Limits that mean something.
pub(super) fn check(limits: VolumeLimits) -> Result<(), CoreError> {
    if limits.iops > MOST_IOPS || (1..LEAST_IOPS).contains(&limits.iops) {
        let message = format!("must be {LEAST_IOPS} to {MOST_IOPS}, or 0 for no limit");
        return Err(CoreError::invalid("iops", message));
    }
    if limits.mb_per_second > MOST_MB_PER_SECOND {
        let message = format!("must be 1 to {MOST_MB_PER_SECOND}, or 0 for no limit");
        return Err(CoreError::invalid("mb_per_second", message));
    }
    Ok(())
}

impl<S: Store> VolumeService<S> {
    /// Changes a volume's labels, or how much its guest may do with it in a second. A guest that runs is given its new limits after this, and the volume
    /// says so until then; one that is started has them from its start.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Invalid, Precondition where it is being deleted.
    pub async fn update(
        &self,
        caller: &Caller,
        id: &str,
        etag: &str,
        mut change: VolumeChange,
    ) -> Result<Volume, CoreError> {
        member(caller)?;
        check(change.limits(VolumeLimits::default()))?;
        if let Some(all) = &change.labels {
            labels(all)?;
        }
        let mut tx = self.store.begin().await?;
        let mut row: Volume = ordered(&mut tx, caller, id).await?;
        if let Some(instance) = row.instance.filter(|_| change.limits(row.limits) != row.limits) {
            // Its work too, as that writes both.
            tx.enqueue(WorkKind::Instance, *instance.as_uuid()).await?;
            row = live(&mut tx, caller.project, &row.meta.id.to_string()).await?;
        }
        check_etag(&row, etag)?;
        if row.status == VolumeStatus::Deleting {
            return Err(volume_state(&row, "is being deleted"));
        }
        let limits = change.limits(row.limits);
        if let Some(labels) = change.labels.take() {
            row.meta.labels = labels;
        }
        if limits != row.limits {
            row.limits = limits;
            tell_instance(&mut tx, &mut row).await?;
        }
        tx.update(&mut row).await?;
        tx.event(event(caller, &row, "volume.update")).await?;
        tx.commit().await?;
        Ok(row)
    }
}

/// Writes its new limits into the instance that it is a disk of, whose work gives them to the guest.
async fn tell_instance<T: Tx>(tx: &mut T, row: &mut Volume) -> Result<(), CoreError> {
    let Some(id) = row.instance else { return Ok(()) };
    let found: Option<Instance> = tx.get(*id.as_uuid()).await?;
    let Some(mut instance) = found.filter(|instance| instance.meta.deleted_at.is_none()) else { return Ok(()) };
    let may_run = instance.status != InstanceStatus::Stopped;
    for disk in instance.disks.iter_mut().filter(|disk| disk.volume == row.id()) {
        disk.limits = row.limits;
        if may_run {
            // One that is being attached gets them with that.
            disk.change.get_or_insert(DiskChange::Limiting);
        }
    }
    row.limits_pending = may_run;
    tx.update(&mut instance).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(iops: u32, mb_per_second: u32) -> VolumeLimits {
        VolumeLimits { iops, mb_per_second }
    }

    #[test]
    fn limits_out_of_range_are_named() {
        for (iops, mb) in [(0, 0), (10, 1), (MOST_IOPS, MOST_MB_PER_SECOND)] {
            assert!(check(limits(iops, mb)).is_ok(), "{iops} {mb}");
        }
        for (iops, mb, named) in
            [(1, 0, "iops"), (9, 1, "iops"), (MOST_IOPS + 1, 1, "iops"), (0, MOST_MB_PER_SECOND + 1, "mb_per_second")]
        {
            let error = check(limits(iops, mb)).unwrap_err();
            assert!(matches!(&error, CoreError::Invalid { field, .. } if *field == named), "{error:?}");
        }
    }

    #[test]
    fn what_is_not_said_stays_and_zero_is_said() {
        let now = limits(100, 20);
        assert_eq!(VolumeChange::default().limits(now), now);
        let change = VolumeChange { iops: Some(0), ..VolumeChange::default() };
        assert_eq!(change.limits(now), limits(0, 20));
        let change = VolumeChange { mb_per_second: Some(3), ..VolumeChange::default() };
        assert_eq!(change.limits(now), limits(100, 3));
    }
}
