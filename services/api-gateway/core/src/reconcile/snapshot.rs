//! Snapshots: taking those that shall be once their volume is made, removing those that shall be gone, and seeing that the others' data are there.

use std::time::Duration;

use cloud_domain::Gib;

use super::{Context, Failure, Outcome, event, volume::same};
use crate::{
    model::{AgentRole, Snapshot, SnapshotStatus, Timestamp, Volume, VolumeStatus, held_by_snapshot},
    ports::{BackendError, FoundSnapshot, SnapshotSpec, Store, StoreError, Tx, WorkItem},
};

/// How soon a volume that is being made is looked at again.
const MAKING: Duration = Duration::from_millis(250);

pub(super) async fn reconcile<S: Store>(context: &Context<S>, item: &WorkItem) -> Result<Outcome, Failure> {
    let Some(read) = context.store.get::<Snapshot>(item.id).await? else { return Ok(Outcome::Done) };
    match read.status {
        SnapshotStatus::Creating => take(context, item, &read).await,
        SnapshotStatus::Deleting => remove(context, item, &read).await,
        SnapshotStatus::Available => look(context, item, &read).await,
        SnapshotStatus::Error if read.data_missing => look(context, item, &read).await,
        SnapshotStatus::Error | SnapshotStatus::Deleted => Ok(Outcome::Done),
    }
}

async fn ensure<S: Store>(
    context: &Context<S>,
    read: &Snapshot,
    may_create: bool,
) -> Result<FoundSnapshot, BackendError> {
    context.reach(read.host, AgentRole::Storage).await?;
    let spec = SnapshotSpec {
        host: read.host,
        id: read.id(),
        version: read.meta.version,
        volume: read.volume,
        pool: read.pool.clone(),
        may_create,
    };
    context.backends.storage.ensure_snapshot(spec).await
}

/// Asks the agent for it until it has it, or says that it never will.
async fn take<S: Store>(context: &Context<S>, item: &WorkItem, read: &Snapshot) -> Result<Outcome, Failure> {
    if context.is_dead(read.host).await? {
        let reason = format!("host {} was declared dead before it was taken", read.host_name);
        return end(context, item, read, Err(reason)).await;
    }
    let late = Timestamp::now().since(read.meta.created_at) > context.settings.import_timeout;
    if let Some(volume) = context.store.get::<Volume>(*read.volume.as_uuid()).await? {
        let name = &volume.meta.name;
        match volume.status {
            VolumeStatus::Creating if late => {
                let reason = format!("not taken in time: volume `{name}` is still being made");
                return end(context, item, read, Err(reason)).await;
            }
            VolumeStatus::Creating => {
                tell(context, item, read, format!("waits until volume `{name}` is made")).await?;
                return Ok(Outcome::Again(MAKING));
            }
            VolumeStatus::Error => {
                let reason = format!("volume `{name}` is ERROR: {}", volume.status_reason);
                return end(context, item, read, Err(reason)).await;
            }
            // It was detached before it was made.
            VolumeStatus::Available if volume.host.is_none() => {
                return end(context, item, read, Err(format!("volume `{name}` has no data: it was not made"))).await;
            }
            VolumeStatus::Available | VolumeStatus::InUse | VolumeStatus::Deleting | VolumeStatus::Deleted => {}
        }
    }
    match ensure(context, read, true).await {
        Ok(taken) => end(context, item, read, Ok(taken)).await,
        Err(BackendError::NotFound(message)) => {
            end(context, item, read, Err(format!("its volume is gone: {message}"))).await
        }
        Err(error) if error.is_final() => end(context, item, read, Err(error.to_string())).await,
        Err(error) if late => end(context, item, read, Err(format!("not taken in time: {error}"))).await,
        Err(error) => {
            if !matches!(error, BackendError::Stale(_)) {
                tell(context, item, read, format!("trying again: {error}")).await?;
            }
            Err(error.into())
        }
    }
}

/// Has the row say why it takes longer.
async fn tell<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Snapshot,
    reason: String,
) -> Result<(), StoreError> {
    if read.status_reason == reason {
        return Ok(());
    }
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, read).await?;
    row.status_reason = reason;
    tx.update(&mut row).await?;
    tx.commit().await
}

/// AVAILABLE, or ERROR with the reason. What is left of it on its host goes when it is deleted.
async fn end<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Snapshot,
    taken: Result<FoundSnapshot, String>,
) -> Result<Outcome, Failure> {
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, read).await?;
    row.status_reason.clear();
    match taken {
        Ok(taken) => {
            row.status = SnapshotStatus::Available;
            // The volume may have grown since it was asked for.
            row.size = Gib::holding(taken.size_bytes).unwrap_or(row.size);
            tx.event(event(&row, "snapshot.ready", "")).await?;
        }
        Err(reason) => {
            row.status = SnapshotStatus::Error;
            tx.event(event(&row, "snapshot.error", &reason)).await?;
            row.status_reason = reason;
        }
    }
    tx.update(&mut row).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}

/// Asks whether its data are where they should be.
async fn look<S: Store>(context: &Context<S>, item: &WorkItem, read: &Snapshot) -> Result<Outcome, Failure> {
    let (missing, reason) = match ensure(context, read, false).await {
        Ok(_) => (false, String::new()),
        Err(BackendError::DataMissing(message)) => {
            let host = &read.host_name;
            (true, format!("its data are missing on host {host} ({message}): put them back there, or delete it"))
        }
        Err(other) => return Err(other.into()),
    };
    if missing == read.data_missing {
        return Ok(Outcome::Done);
    }
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, read).await?;
    row.data_missing = missing;
    row.status = if missing { SnapshotStatus::Error } else { SnapshotStatus::Available };
    let action = if missing { "snapshot.error" } else { "snapshot.found" };
    if missing {
        tracing::error!(snapshot = %read.id(), host = read.host_name, reason, "a snapshot's data are missing");
    }
    tx.event(event(&row, action, &reason)).await?;
    row.status_reason = reason;
    tx.update(&mut row).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}

async fn remove<S: Store>(context: &Context<S>, item: &WorkItem, read: &Snapshot) -> Result<Outcome, Failure> {
    // Of a dead host its tombstone remembers that its data are to be removed.
    if !context.is_dead(read.host).await? {
        context.reach(read.host, AgentRole::Storage).await?;
        context.backends.storage.remove_snapshot(read.host, read.id(), read.meta.version).await?;
    }
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, read).await?;
    let held = held_by_snapshot(&row);
    row.status = SnapshotStatus::Deleted;
    row.status_reason.clear();
    row.meta.deleted_at = Some(Timestamp::now());
    tx.update(&mut row).await?;
    tx.event(event(&row, "snapshot.deleted", "")).await?;
    tx.release_quota(row.meta.project, &held).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}
