//! Volumes.

use std::collections::BTreeSet;

use cloud_domain::{HostId, VolumeId};
use uuid::Uuid;

use super::{
    Compared, fingerprint,
    orphans::{self, Unknown},
};
use crate::{
    model::{OrphanKind, Volume, VolumeStatus},
    ports::{FoundVolume, Query, Store, WorkKind},
    reconcile::{Context, Failure},
};

/// Compares a host's volumes with the rows, and has those looked at whose data are missing, or are there again.
pub(super) async fn compare<S: Store>(context: &Context<S>, host: HostId, hurry: bool) -> Result<Compared, Failure> {
    let found = context.backends.storage.list_volumes(host).await?;
    let (inventories, kind) = (context.registry.inventories(), OrphanKind::Volume);
    let compared = fingerprint(&found, context.store.mark::<Volume>(host).await?);
    if !hurry && inventories.is_settled(host, kind, compared) {
        return Ok(Compared { found: found.len(), differ: 0 });
    }
    let rows: Vec<Volume> = context.store.list(&Query::by("host_id", &host)).await?;
    let listed = |found: &[FoundVolume]| found.iter().map(|v| v.id).collect::<BTreeSet<VolumeId>>();
    let (there, known): (_, BTreeSet<VolumeId>) = (listed(&found), rows.iter().map(Volume::id).collect());
    let mut missing: BTreeSet<Uuid> =
        rows.iter().filter(|v| should_be_there(v) && !there.contains(&v.id())).map(|v| v.meta.id).collect();
    let mut unknown: Vec<FoundVolume> = found.into_iter().filter(|v| !known.contains(&v.id)).collect();
    if !missing.is_empty() || !unknown.is_empty() {
        // Asked for again: it may have been made, or removed and its row ended, since the list was made.
        let again = context.backends.storage.list_volumes(host).await?;
        let there = listed(&again);
        missing.retain(|id| !there.contains(&VolumeId::from(*id)));
        unknown = again.into_iter().filter(|v| unknown.iter().any(|u| u.id == v.id)).collect();
    }
    inventories.drifted("volume_missing", missing.len());
    let differ = missing.len();
    let back: Vec<_> = rows.iter().filter(|v| v.data_missing && there.contains(&v.id())).collect();
    let settled = differ == 0 && back.is_empty() && unknown.is_empty();
    let unfinished = |v: &&Volume| v.status == VolumeStatus::Deleting || v.growing_to.is_some() || is_being_made(v);
    let under_way = rows.iter().filter(|v| hurry && unfinished(v));
    let looked_at = missing.into_iter().chain(back.into_iter().chain(under_way).map(|v| v.meta.id)).collect();
    context.wake(WorkKind::Volume, looked_at, hurry).await?;
    let unknown = unknown.iter().map(Unknown::volume).collect();
    orphans::note(context, host, kind, unknown).await?;
    inventories.settle(host, kind, settled.then_some(compared));
    Ok(Compared { found: there.len(), differ })
}

/// Whether its own work makes it, and not an instance's.
fn is_being_made(row: &Volume) -> bool {
    row.status == VolumeStatus::Creating && row.instance.is_none()
}

/// Whether its data were there, and nothing is under way that takes them away.
fn should_be_there(row: &Volume) -> bool {
    matches!(row.status, VolumeStatus::Available | VolumeStatus::InUse)
}
