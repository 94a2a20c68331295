//! Guests.

use std::collections::{BTreeSet, HashMap};

use cloud_domain::{HostId, InstanceId, InstanceStatus};
use uuid::Uuid;

use super::{
    Compared, fingerprint,
    orphans::{self, Unknown},
};
use crate::{
    model::{Desired, Disk, Instance, OrphanKind},
    ports::{Guest, GuestPower, Query, Store, WorkKind},
    reconcile::{Context, Failure},
};

/// Compares a host's guests with what they should be, and wakes the work of those that differ.
pub(super) async fn compare<S: Store>(context: &Context<S>, host: HostId, hurry: bool) -> Result<Compared, Failure> {
    let listed = context.backends.compute.list(host).await?;
    let (inventories, kind) = (context.registry.inventories(), OrphanKind::Instance);
    let compared = fingerprint(&listed, context.store.mark::<Instance>(host).await?);
    if !hurry && inventories.is_settled(host, kind, compared) {
        return Ok(Compared { found: listed.len(), differ: 0 });
    }
    let guests: HashMap<_, _> = listed.into_iter().map(|g| (g.id, g)).collect();
    let rows: Vec<Instance> = context.store.list(&Query::by("host_id", &host)).await?;
    let drifted: BTreeSet<Uuid> =
        rows.iter().filter(|row| differs(row, guests.get(&row.id()))).map(|row| row.meta.id).collect();
    inventories.drifted("guest", drifted.len());
    let differ = drifted.len();
    let under_way = rows.iter().filter(|row| hurry && is_under_way(row)).map(|row| row.meta.id);
    context.wake(WorkKind::Instance, drifted.into_iter().chain(under_way).collect(), hurry).await?;
    let known: BTreeSet<InstanceId> = rows.iter().map(Instance::id).collect();
    let mut unknown = Vec::new();
    for id in guests.keys().filter(|id| !known.contains(id)) {
        // Asked for again: it may have been removed, and its row ended, since the list was made.
        if let Some(guest) = context.backends.compute.get(host, *id).await? {
            unknown.push(Unknown::guest(&guest));
        }
    }
    let settled = differ == 0 && unknown.is_empty();
    let orphans = orphans::note(context, host, kind, unknown).await?;
    let known: Vec<Instance> = orphans.iter().filter_map(|orphan| orphan.kept.as_deref().cloned()).collect();
    context.registry.strangers().are(host, &known, known.len() == orphans.len());
    inventories.settle(host, kind, settled.then_some(compared));
    Ok(Compared { found: guests.len(), differ })
}

/// Whether there is work for it, which may be waiting after a failure.
const fn is_under_way(row: &Instance) -> bool {
    matches!(row.status, InstanceStatus::Starting | InstanceStatus::Stopping | InstanceStatus::Deleting)
}

/// Whether the guest has every disk with which nothing is under way, with its limits. An agent that does not say its disks is believed.
fn has_its_disks(row: &Instance, guest: &Guest) -> bool {
    let has =
        |disk: &Disk| guest.volumes.contains(&disk.volume) && guest.is_limited(disk.volume, disk.limits.of_disk());
    guest.volumes.is_empty() || row.disks.iter().all(|disk| disk.change.is_some() || has(disk))
}

fn differs(row: &Instance, guest: Option<&Guest>) -> bool {
    let running = guest.is_some_and(|g| g.power == GuestPower::Running);
    match row.status {
        InstanceStatus::Running => !guest.is_some_and(|g| {
            let same = g.incarnation == row.incarnation && g.boot_generation >= row.boot_generation;
            running && same && has_its_disks(row, g)
        }),
        InstanceStatus::Paused => !guest.is_some_and(|g| g.power == GuestPower::Paused),
        // One that shall run waits for its policy's next start, or for its host to be back.
        InstanceStatus::Stopped => running || (row.desired == Desired::Running && row.restart_at.is_none()),
        // Nothing is done to its guest until its data are back.
        InstanceStatus::Error if !row.missing.is_empty() => false,
        InstanceStatus::Error => guest.is_some() && (running || row.desired == Desired::Cleaned),
        // Work is under way or due anyway.
        _ => false,
    }
}
