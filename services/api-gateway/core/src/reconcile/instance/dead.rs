//! An instance whose host was declared dead: its guest does not run, and nothing can be removed from the host first.
//!
//! Its disks are there. So it is not started elsewhere: it is STOPPED until the host is back, and what was to run runs again then. What never
//! ran has nothing to keep. What is deleted leaves its tombstones, by which its leftovers go if the host comes back.

use cloud_domain::InstanceStatus;

use super::{Context, Failure, Outcome, become_status, event, remove, same};
use crate::{
    model::{Desired, Instance},
    ports::{Store, Tx, WorkItem, WorkKind},
};

pub(super) async fn reconcile<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
) -> Result<Outcome, Failure> {
    match (row.desired, row.status) {
        (Desired::Deleted | Desired::Cleaned, _) => remove::abandon(context, item, row).await,
        (
            Desired::Running | Desired::Stopped,
            InstanceStatus::Starting | InstanceStatus::Running | InstanceStatus::Stopping | InstanceStatus::Paused,
        ) => end(context, item, row).await,
        // The host's return wakes it.
        _ => Ok(Outcome::Done),
    }
}

async fn end<S: Store>(context: &Context<S>, item: &WorkItem, read: &Instance) -> Result<Outcome, Failure> {
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, read).await?;
    let host = &row.host_name;
    let (status, action, reason) = match (row.has_run, row.desired) {
        (false, _) => {
            let reason = format!("host {host} was declared dead before it ran: delete it and launch it again");
            (InstanceStatus::Error, "instance.error", reason)
        }
        (true, Desired::Running) => {
            let reason =
                format!("host {host} was declared dead and has its disks: it is started again when the host is back");
            (InstanceStatus::Stopped, "instance.stopped", reason)
        }
        (true, _) => (InstanceStatus::Stopped, "instance.stopped", format!("host {host} was declared dead")),
    };
    row.status = become_status(&row, status)?;
    if status == InstanceStatus::Error {
        row.desired = Desired::Cleaned;
        tx.enqueue(WorkKind::Instance, row.meta.id).await?;
    }
    tx.event(event(&row, action, &reason)).await?;
    row.status_reason = reason;
    (row.started_at, row.stop_requested_at, row.start_deadline, row.restart_at) = (None, None, None, None);
    tx.update(&mut row).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}
