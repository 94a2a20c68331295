//! Instances: running, stopped or gone, as intended.

mod dead;
mod disks;
mod down;
mod ended;
mod remove;
mod up;

use cloud_domain::InstanceStatus;

use super::{Context, Failure, Outcome, event, volume::same};
use crate::{
    model::{AgentRole, Desired, Instance, Timestamp},
    ports::{GuestTarget, Store, StoreError, Tx, WorkItem, WorkKind},
};

pub(super) async fn reconcile<S: Store>(context: &Context<S>, item: &WorkItem) -> Result<Outcome, Failure> {
    let Some(row) = context.store.get::<Instance>(item.id).await? else { return Ok(Outcome::Done) };
    if row.meta.deleted_at.is_some() {
        return Ok(Outcome::Done);
    }
    let done = match (context.reach(row.host, AgentRole::Compute).await, row.desired) {
        (Err(_), _) if context.is_dead(row.host).await? => return dead::reconcile(context, item, &row).await,
        (Err(silent), _) => Err(silent.into()),
        (Ok(()), Desired::Running) => up::reconcile(context, item, &row).await,
        (Ok(()), Desired::Stopped) => down::reconcile(context, item, &row).await,
        (Ok(()), Desired::Deleted | Desired::Cleaned) => remove::reconcile(context, item, &row).await,
    };
    match done {
        Err(failure) if row.desired == Desired::Running => failed(context, item, &row, failure).await,
        done => done,
    }
}

fn target(row: &Instance) -> GuestTarget {
    GuestTarget { host: row.host, id: row.id(), version: row.meta.version, incarnation: row.incarnation }
}

/// A start that failed: for good, or so far.
async fn failed<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Instance,
    failure: Failure,
) -> Result<Outcome, Failure> {
    if read.status != InstanceStatus::Starting || matches!(failure, Failure::Store(_)) {
        return Err(failure);
    }
    let late = read.start_deadline.is_some_and(|at| Timestamp::now() > at);
    if failure.is_final() || late {
        let reason = if failure.is_final() {
            failure.to_string()
        } else {
            format!("could not be started within {} s: {failure}", context.settings.start_timeout.as_secs())
        };
        let lost = matches!(failure, Failure::DataMissing(_));
        return give_up(context, item, read, reason, lost).await;
    }
    let reason = format!("trying again: {failure}");
    if read.status_reason != reason {
        let mut tx = context.begin(item).await?;
        let mut row = same(&mut tx, read).await?;
        row.status_reason = reason;
        tx.update(&mut row).await?;
        tx.commit().await?;
    }
    Err(failure)
}

/// ERROR, with the reason. What never ran is cleaned away; what ran keeps its disks and can be started again.
async fn give_up<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Instance,
    reason: String,
    lost: bool,
) -> Result<Outcome, Failure> {
    let mut tx = context.begin(item).await?;
    if lost {
        // Their own work finds out which, and says so on them.
        for disk in &read.disks {
            tx.enqueue(WorkKind::Volume, *disk.volume.as_uuid()).await?;
        }
    }
    let mut row = same(&mut tx, read).await?;
    row.status = become_status(&row, InstanceStatus::Error)?;
    row.desired = if row.has_run { Desired::Stopped } else { Desired::Cleaned };
    row.start_deadline = None;
    tx.event(event(&row, "instance.error", &reason)).await?;
    row.status_reason = reason;
    tx.update(&mut row).await?;
    tx.enqueue(WorkKind::Instance, row.meta.id).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}

/// The status, where the lifecycle allows it. Where not, this code is wrong: better no write than a wrong one.
fn become_status(row: &Instance, to: InstanceStatus) -> Result<InstanceStatus, StoreError> {
    row.status.transition(to).map_err(|error| StoreError::Fault(Box::new(error)))
}
