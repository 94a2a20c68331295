//! Volumes that grow, also under a running guest.
//!
//! The storage-agent grows what it can: a volume that no guest has open, and a thin one at any time. Then the hypervisor of a running guest is told,
//! which makes the guest see it; a file that only the hypervisor may change is grown by that. The row has its new size when all of it is done.

use std::time::Duration;

use cloud_domain::Gib;

use super::{Context, Failure, Outcome, event, volume::same, volume_data::instance_of};
use crate::{
    model::{AgentRole, Instance, Volume, held_by_volume},
    ports::{BackendError, GuestTarget, Store, Tx, WorkItem, WorkKind},
};

/// How soon to look again at a guest that is just being started or stopped.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// Grows a volume.
pub(super) async fn reconcile<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Volume,
) -> Result<Outcome, Failure> {
    let (Some(host), Some(size)) = (read.host, read.growing_to) else { return Ok(Outcome::Done) };
    context.reach(host, AgentRole::Storage).await?;
    let resized = context.backends.storage.resize_volume(host, read.id(), read.meta.version, size.bytes()).await;
    let in_use = match resized {
        Ok(()) => false,
        Err(BackendError::Precondition(_)) => true,
        Err(error @ (BackendError::NotFound(_) | BackendError::DataMissing(_))) => {
            return give_up(context, item, read, &error.to_string()).await;
        }
        Err(error) if error.is_final() => return give_up(context, item, read, &error.to_string()).await,
        Err(error) => return Err(error.into()),
    };
    match tell_guest(context, read, size).await {
        Ok(true) => {}
        // Nobody has it open now, and yet the agent said so: it was being started or stopped.
        Ok(false) if in_use => return Ok(Outcome::Again(UNDER_WAY)),
        Ok(false) => {}
        Err(error) if error.is_final() && in_use => return give_up(context, item, read, &error.to_string()).await,
        Err(error) => return Err(error.into()),
    }
    let mut tx = context.begin(item).await?;
    let instance = instance_of(&mut tx, read).await?;
    let mut row = same(&mut tx, read).await?;
    (row.size, row.growing_to) = (size, None);
    tx.update(&mut row).await?;
    tx.event(event(&row, "volume.resized", &format!("it has {} GiB", size.get()))).await?;
    if let Some(mut instance) = instance {
        for disk in instance.disks.iter_mut().filter(|disk| disk.volume == row.id()) {
            disk.size = size;
        }
        tx.update(&mut instance).await?;
    }
    tx.commit().await?;
    Ok(Outcome::Done)
}

/// Has the guest that the volume is a disk of see its new size. False where none runs.
async fn tell_guest<S: Store>(context: &Context<S>, read: &Volume, size: Gib) -> Result<bool, BackendError> {
    let Some(id) = read.instance else { return Ok(false) };
    let found: Option<Instance> =
        context.store.get(*id.as_uuid()).await.map_err(|error| BackendError::Failed(error.to_string()))?;
    let Some(row) = found.filter(|row| row.meta.deleted_at.is_none()) else { return Ok(false) };
    context.reach(row.host, AgentRole::Compute).await?;
    let guest = context.backends.compute.get(row.host, id).await?;
    let Some(guest) = guest.filter(|guest| guest.is_active() && guest.volumes.contains(&read.id())) else {
        return Ok(false);
    };
    let target = GuestTarget { host: row.host, id, version: row.meta.version, incarnation: guest.incarnation };
    match context.backends.compute.resize_disk(target, read.id(), size.bytes()).await {
        Ok(()) => Ok(true),
        // It ended just now.
        Err(BackendError::Precondition(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// It stays as large as it is, and gives back what it was to take.
async fn give_up<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Volume,
    why: &str,
) -> Result<Outcome, Failure> {
    let mut tx = context.begin(item).await?;
    // Its data may be missing: that is found out by what comes after this.
    tx.enqueue(WorkKind::Volume, read.meta.id).await?;
    let mut row = same(&mut tx, read).await?;
    let mut back = held_by_volume(&row);
    let wanted = row.growing_to.take().map_or(0, Gib::get);
    for (of, amount) in held_by_volume(&row) {
        back.entry(of).and_modify(|held| *held = held.saturating_sub(amount));
    }
    row.status_reason = format!("could not be grown to {wanted} GiB: {why}");
    tx.update(&mut row).await?;
    tx.event(event(&row, "volume.resize_failed", &row.status_reason.clone())).await?;
    tx.release_quota(row.meta.project, &back).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}
