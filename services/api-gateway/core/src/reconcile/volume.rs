//! Volumes: making those that have a host before they have an instance, growing, removing those that shall be gone, and seeing that the others' data are
//! there. Making any other belongs to the instance it is first attached to.

use super::{Context, Failure, Outcome, event, volume_data, volume_growth, volume_making};
use crate::{
    model::{AgentRole, Resource, Timestamp, Volume, VolumeStatus, held_by_volume},
    ports::{Store, StoreError, Tx, WorkItem},
};

pub(super) async fn reconcile<S: Store>(context: &Context<S>, item: &WorkItem) -> Result<Outcome, Failure> {
    let Some(read) = context.store.get::<Volume>(item.id).await? else { return Ok(Outcome::Done) };
    match read.status {
        VolumeStatus::Deleting => {}
        VolumeStatus::Creating => return volume_making::reconcile(context, item, &read).await,
        VolumeStatus::Available | VolumeStatus::InUse if read.growing_to.is_some() => {
            return volume_growth::reconcile(context, item, &read).await;
        }
        VolumeStatus::Available | VolumeStatus::InUse => return volume_data::reconcile(context, item, &read).await,
        VolumeStatus::Error if read.data_missing => return volume_data::reconcile(context, item, &read).await,
        VolumeStatus::Error | VolumeStatus::Deleted => return Ok(Outcome::Done),
    }
    // Then its tombstone remembers that its data are to be removed.
    let dead = match read.host {
        Some(host) => context.is_dead(host).await?,
        None => false,
    };
    if let Some(host) = read.host.filter(|_| !dead) {
        context.reach(host, AgentRole::Storage).await?;
        context.backends.storage.remove_volume(host, read.id(), read.meta.version).await?;
    }
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, &read).await?;
    let held = held_by_volume(&row);
    row.status = VolumeStatus::Deleted;
    row.meta.deleted_at = Some(Timestamp::now());
    tx.update(&mut row).await?;
    tx.event(event(&row, "volume.deleted", "")).await?;
    // Its data is gone: so is what it held.
    tx.release_quota(row.meta.project, &held).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}

/// The row as it was read before the agents were called. Stale where it has changed: what was done was done for an older intent.
pub(super) async fn same<R: Resource, T: Tx>(tx: &mut T, read: &R) -> Result<R, StoreError> {
    let row: Option<R> = tx.get(read.meta().id).await?;
    row.filter(|r| r.meta().version == read.meta().version).ok_or(StoreError::Stale)
}
