//! Snapshots.

use std::collections::BTreeSet;

use cloud_domain::{HostId, SnapshotId};
use uuid::Uuid;

use super::{
    Compared, fingerprint,
    orphans::{self, Unknown},
};
use crate::{
    model::{OrphanKind, Snapshot, SnapshotStatus},
    ports::{FoundSnapshot, Query, Store, WorkKind},
    reconcile::{Context, Failure},
};

/// Compares a host's snapshots with the rows, and has those looked at whose data are missing, or are there again.
pub(super) async fn compare<S: Store>(context: &Context<S>, host: HostId, hurry: bool) -> Result<Compared, Failure> {
    let found = context.backends.storage.list_snapshots(host).await?;
    let (inventories, kind) = (context.registry.inventories(), OrphanKind::Snapshot);
    let compared = fingerprint(&found, context.store.mark::<Snapshot>(host).await?);
    if !hurry && inventories.is_settled(host, kind, compared) {
        return Ok(Compared { found: found.len(), differ: 0 });
    }
    let rows: Vec<Snapshot> = context.store.list(&Query::by("host_id", &host)).await?;
    let listed = |found: &[FoundSnapshot]| found.iter().map(|s| s.id).collect::<BTreeSet<SnapshotId>>();
    let (there, known): (_, BTreeSet<SnapshotId>) = (listed(&found), rows.iter().map(Snapshot::id).collect());
    let should_be_there = |row: &&Snapshot| row.status == SnapshotStatus::Available;
    let mut missing: BTreeSet<Uuid> =
        rows.iter().filter(should_be_there).filter(|s| !there.contains(&s.id())).map(|s| s.meta.id).collect();
    let mut unknown: Vec<FoundSnapshot> = found.into_iter().filter(|s| !known.contains(&s.id)).collect();
    if !missing.is_empty() || !unknown.is_empty() {
        // Asked for again: it may have been taken, or removed and its row ended, since the list was made.
        let again = context.backends.storage.list_snapshots(host).await?;
        let there = listed(&again);
        missing.retain(|id| !there.contains(&SnapshotId::from(*id)));
        unknown = again.into_iter().filter(|s| unknown.iter().any(|u| u.id == s.id)).collect();
    }
    inventories.drifted("snapshot_missing", missing.len());
    let differ = missing.len();
    let back: Vec<_> = rows.iter().filter(|s| s.data_missing && there.contains(&s.id())).collect();
    let settled = differ == 0 && back.is_empty() && unknown.is_empty();
    let unfinished = |s: &&Snapshot| matches!(s.status, SnapshotStatus::Creating | SnapshotStatus::Deleting);
    let under_way = rows.iter().filter(|s| hurry && unfinished(s));
    let looked_at = missing.into_iter().chain(back.into_iter().chain(under_way).map(|s| s.meta.id)).collect();
    context.wake(WorkKind::Snapshot, looked_at, hurry).await?;
    let unknown = unknown.iter().map(Unknown::snapshot).collect();
    orphans::note(context, host, kind, unknown).await?;
    inventories.settle(host, kind, settled.then_some(compared));
    Ok(Compared { found: there.len(), differ })
}
