//! Volumes whose data are missing, or are there again.
//!
//! That a list lacks a volume proves nothing. Here the agent is asked to have the volume and forbidden to make it: only its own word that
//! the data are missing makes the volume ERROR, and the instance it belongs to. Nothing is done to that instance's guest, which may still
//! hold the only copy open, until the data are back or a person decides otherwise.

use std::time::Duration;

use cloud_domain::InstanceStatus;

use super::{Context, Failure, Outcome, event, volume::same};
use crate::{
    model::{AgentRole, Desired, Instance, Volume, VolumeStatus},
    ports::{BackendError, Store, StoreError, Tx, VolumeSpec, WorkItem, WorkKind},
};

/// How soon to look again at an instance that is just being started or stopped.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// Asks whether a volume's data are where they should be.
pub(super) async fn reconcile<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Volume,
) -> Result<Outcome, Failure> {
    let Some(host) = read.host else { return Ok(Outcome::Done) };
    context.reach(host, AgentRole::Storage).await?;
    let spec = VolumeSpec {
        host,
        id: read.id(),
        version: read.meta.version,
        size_bytes: read.size.bytes(),
        source: read.source(),
        pool: read.pool.clone(),
        may_create: false,
    };
    match context.backends.storage.ensure_volume(spec).await {
        Ok(_) if read.data_missing => found(context, item, read).await,
        Ok(_) => Ok(Outcome::Done),
        Err(BackendError::DataMissing(message)) => lost(context, item, read, &message).await,
        Err(other) => Err(other.into()),
    }
}

async fn lost<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Volume,
    message: &str,
) -> Result<Outcome, Failure> {
    let reason =
        format!("its data are missing on host {} ({message}): put them back there, or delete it", read.host_name);
    let mut tx = context.begin(item).await?;
    let instance = instance_of(&mut tx, read).await?;
    let mut row = same(&mut tx, read).await?;
    if !row.data_missing {
        tracing::error!(volume = %read.id(), host = read.host_name, message, "a volume's data are missing");
        row.data_missing = true;
        row.status = VolumeStatus::Error;
        tx.event(event(&row, "volume.error", &reason)).await?;
        row.status_reason = reason;
        tx.update(&mut row).await?;
    }
    // Its user may have tried to start it since, which found the same.
    let instance =
        instance.filter(|i| !i.missing.contains(&row.id()) && matches!(i.desired, Desired::Running | Desired::Stopped));
    if instance.as_ref().is_some_and(|i| matches!(i.status, InstanceStatus::Starting | InstanceStatus::Stopping)) {
        // What is under way ends first.
        tx.commit().await?;
        return Ok(Outcome::Again(UNDER_WAY));
    }
    if let Some(mut instance) = instance.filter(|i| i.status.may_become(InstanceStatus::Error)) {
        instance.missing.push(row.id());
        instance.status = InstanceStatus::Error;
        instance.start_deadline = None;
        instance.restart_at = None;
        instance.status_reason =
            format!("the data of volume `{}` are missing on host {}: {message}", row.meta.name, row.host_name);
        tx.event(event(&instance, "instance.error", &instance.status_reason.clone())).await?;
        tx.update(&mut instance).await?;
    }
    tx.commit().await?;
    Ok(Outcome::Done)
}

async fn found<S: Store>(context: &Context<S>, item: &WorkItem, read: &Volume) -> Result<Outcome, Failure> {
    let mut tx = context.begin(item).await?;
    let instance = instance_of(&mut tx, read).await?;
    let mut row = same(&mut tx, read).await?;
    is_back(&mut row);
    tx.update(&mut row).await?;
    tx.event(event(&row, "volume.found", "its data are there again")).await?;
    if let Some(mut instance) = instance
        && instance.missing.contains(&row.id())
    {
        instance.missing.retain(|id| *id != row.id());
        if instance.missing.is_empty() && instance.status == InstanceStatus::Error {
            // One that shall run is looked at by its own work, which finds out whether its guest still does.
            if instance.desired == Desired::Stopped {
                instance.status = InstanceStatus::Stopped;
            }
            instance.status_reason.clear();
        }
        tx.update(&mut instance).await?;
        let message = format!(
            "the data of volume `{}` are there again; a guest that ran on without them uses what it had open until it is stopped and started",
            row.meta.name
        );
        tx.event(event(&instance, "instance.data_found", &message)).await?;
    }
    tx.commit().await?;
    Ok(Outcome::Done)
}

/// What the row of a volume becomes whose data are there again.
pub(super) fn is_back(row: &mut Volume) {
    row.data_missing = false;
    row.status = if row.instance.is_some() { VolumeStatus::InUse } else { VolumeStatus::Available };
    row.status_reason.clear();
}

/// The instance that a volume belongs to. Its work first: who is about to write it holds that.
pub(super) async fn instance_of<T: Tx>(tx: &mut T, volume: &Volume) -> Result<Option<Instance>, StoreError> {
    let Some(id) = volume.instance else { return Ok(None) };
    tx.wake(WorkKind::Instance, *id.as_uuid()).await?;
    Ok(tx.get::<Instance>(*id.as_uuid()).await?.filter(|row| row.meta.deleted_at.is_none()))
}
