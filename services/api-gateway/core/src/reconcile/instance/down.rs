//! An instance that shall not run.

use std::time::Duration;

use cloud_domain::InstanceStatus;

use super::{Context, Failure, Outcome, become_status, disks, event, same, target};
use crate::{
    model::{Instance, Timestamp},
    ports::{GuestPower, GuestReason, Store, Tx, WorkItem, WorkKind},
};

/// How often a guest is asked again to shut down: one that is still booting does not hear the first time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn reconcile<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
) -> Result<Outcome, Failure> {
    let compute = &context.backends.compute;
    let runs = |power| matches!(power, GuestPower::Running | GuestPower::Paused);
    let found = compute.get(row.host, row.id()).await?;
    // A start that was cancelled may have come as far as a guest that wrote to its disks: from then on they hold data.
    let ran = found.as_ref().is_some_and(|g| g.reason != GuestReason::NeverStarted);
    let Some(guest) = found.filter(|g| runs(g.power)) else { return stopped(context, item, row, ran).await };
    // What runs although it was stopped before was started behind our back, and what stands still cannot shut itself down.
    let asked = row.stop_requested_at.filter(|_| row.status == InstanceStatus::Stopping);
    let patient = asked.is_some_and(|at| Timestamp::now().since(at) < context.settings.stop_grace);
    let force = !patient || guest.power == GuestPower::Paused;
    match compute.stop(target(row), force).await? {
        Some(guest) if runs(guest.power) => Ok(Outcome::Again(ASK_AGAIN)),
        _ => stopped(context, item, row, ran).await,
    }
}

async fn stopped<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Instance,
    ran: bool,
) -> Result<Outcome, Failure> {
    // An instance in ERROR stays in it: that it does not run is part of it.
    if matches!(read.status, InstanceStatus::Stopped | InstanceStatus::Error) {
        return disks::of_stopped(context, item, read).await;
    }
    let mut tx = context.begin(item).await?;
    if disks::pending(read) {
        tx.enqueue(WorkKind::Instance, read.meta.id).await?;
    }
    let mut row = same(&mut tx, read).await?;
    // One whose data are missing does not run now, and is no less in ERROR for that.
    let (status, action) = match row.missing.is_empty() {
        true => (InstanceStatus::Stopped, "instance.stopped"),
        false => (InstanceStatus::Error, "instance.error"),
    };
    row.status = become_status(&row, status)?;
    if row.missing.is_empty() {
        row.status_reason.clear();
    } else {
        row.status_reason = "it does not run, and the data of a volume of it are missing: see its volumes".to_owned();
    }
    row.has_run |= ran;
    row.stop_requested_at = None;
    row.start_deadline = None;
    row.started_at = None;
    row.restart_at = None;
    tx.update(&mut row).await?;
    tx.event(event(&row, action, &row.status_reason)).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}
