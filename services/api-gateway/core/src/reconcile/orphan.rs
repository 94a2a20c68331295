//! Removing from a host what no row knows there: because this database remembers to have deleted it, or because an operator said so.

use std::time::Duration;

use super::{Context, Failure, Outcome, event, volume::same};
use crate::{
    model::{Instance, Orphan, OrphanKind, Resource, Snapshot, Timestamp, Volume, Vpc},
    ports::{BackendError, GuestTarget, Query, Store, StoreError, Tx, WorkItem},
};

/// How soon to look again whether a guest that no row knows still uses it.
const IN_USE: Duration = Duration::from_secs(10);
/// The version of a call about what has no row: no agent has seen a newer one.
const NEWEST: u64 = i64::MAX as u64;

pub(super) async fn reconcile<S: Store>(context: &Context<S>, item: &WorkItem) -> Result<Outcome, Failure> {
    let Some(row) = context.store.get::<Orphan>(item.id).await? else { return Ok(Outcome::Done) };
    if row.meta.deleted_at.is_some() || !row.removing {
        return Ok(Outcome::Done);
    }
    context.reach(row.host, row.kind.role()).await?;
    let done = match row.kind {
        OrphanKind::Instance => remove_guest(context, &row).await?,
        OrphanKind::Volume => remove_volume(context, &row).await?,
        OrphanKind::Snapshot => remove_snapshot(context, &row).await?,
        OrphanKind::Vpc => remove_vpc(context, &row).await?,
    };
    let action = match done {
        Removal::Done => "orphan.removed",
        Removal::Known => "orphan.gone",
        Removal::InUse(guest) => {
            tracing::warn!(host = row.host_name, orphan = %row.object, guest, "an orphan stays while a guest uses it");
            return Ok(Outcome::Again(IN_USE));
        }
    };
    tracing::info!(host = row.host_name, kind = %row.kind.kind(), id = %row.object, action);
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, &row).await?;
    row.meta.deleted_at = Some(Timestamp::now());
    tx.update(&mut row).await?;
    let why = if row.by_tombstone { "this database deleted it before" } else { "an operator said so" };
    tx.event(event(&row, action, &format!("{} {} on host {}: {why}", row.kind.kind(), row.object, row.host_name)))
        .await?;
    tx.commit().await?;
    // What it had on the host besides, such as the ports of a guest, is seen by that.
    context.registry.inventories().again(row.host);
    Ok(Outcome::Done)
}

/// What a removal came to.
enum Removal {
    /// It is gone from the host.
    Done,
    /// A row says by now that it is there: it stays.
    Known,
    /// A guest uses it.
    InUse(String),
}

/// The version that a call about it carries, and whether a live row has its place on this host.
async fn claim<R: Resource, S: Store>(
    context: &Context<S>,
    orphan: &Orphan,
    here: impl Fn(&R) -> bool,
) -> Result<(u64, bool), StoreError> {
    let row: Option<R> = context.store.get(orphan.object).await?;
    Ok(row.map_or((NEWEST, false), |row| {
        let live = row.meta().deleted_at.is_none();
        // A live row's own calls, should it ever come here, must not be older than this one.
        (if live { row.meta().version } else { NEWEST }, live && here(&row))
    }))
}

async fn remove_guest<S: Store>(context: &Context<S>, orphan: &Orphan) -> Result<Removal, Failure> {
    let (version, known) = claim(context, orphan, |row: &Instance| row.host == orphan.host).await?;
    if known {
        return Ok(Removal::Known);
    }
    let compute = &context.backends.compute;
    let Some(guest) = compute.get(orphan.host, orphan.object.into()).await? else { return Ok(Removal::Done) };
    compute.remove(GuestTarget { host: orphan.host, id: guest.id, version, incarnation: guest.incarnation }).await?;
    Ok(Removal::Done)
}

async fn remove_volume<S: Store>(context: &Context<S>, orphan: &Orphan) -> Result<Removal, Failure> {
    let (version, known) = claim(context, orphan, |row: &Volume| row.host == Some(orphan.host)).await?;
    if known {
        return Ok(Removal::Known);
    }
    let guests = context.backends.compute.list(orphan.host).await?;
    let id = orphan.object.into();
    if let Some(user) = guests.iter().find(|g| g.is_active() && g.volumes.contains(&id)) {
        return Ok(Removal::InUse(user.id.to_string()));
    }
    context.backends.storage.remove_volume(orphan.host, id, version).await?;
    Ok(Removal::Done)
}

async fn remove_snapshot<S: Store>(context: &Context<S>, orphan: &Orphan) -> Result<Removal, Failure> {
    let (version, known) = claim(context, orphan, |row: &Snapshot| row.host == orphan.host).await?;
    if known {
        return Ok(Removal::Known);
    }
    context.backends.storage.remove_snapshot(orphan.host, orphan.object.into(), version).await?;
    Ok(Removal::Done)
}

async fn remove_vpc<S: Store>(context: &Context<S>, orphan: &Orphan) -> Result<Removal, Failure> {
    let (_, known) = claim(context, orphan, |_: &Vpc| true).await?;
    if known {
        return Ok(Removal::Known);
    }
    // A guest that nobody knows may be somebody's: what was deleted is not taken from under it without being told to.
    if orphan.by_tombstone
        && let Some(guest) = orphan_guest(context, orphan).await?
    {
        return Ok(Removal::InUse(guest));
    }
    let vpc = orphan.object.into();
    let generation = context.store.vpc_snapshot(vpc).await?.map_or(0, |s| s.generation).max(orphan.generation);
    match context.backends.network.remove(orphan.host, vpc, generation).await {
        Ok(()) | Err(BackendError::NotFound(_)) => Ok(Removal::Done),
        Err(error) => Err(error.into()),
    }
}

async fn orphan_guest<S: Store>(context: &Context<S>, orphan: &Orphan) -> Result<Option<String>, StoreError> {
    let others: Vec<Orphan> = context.store.list(&Query::by("host_id", &orphan.host)).await?;
    let guest = others.into_iter().find(|o| o.kind == OrphanKind::Instance && o.active);
    Ok(guest.map(|guest| guest.object.to_string()))
}
