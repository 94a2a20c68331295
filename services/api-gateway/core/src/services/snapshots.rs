//! Snapshots: the calls on them.

use std::sync::Arc;

use cloud_domain::SnapshotId;

use super::{
    Page, PageRequest, Settings,
    lookup::{any, check_etag, event, insert, labels, live, member, name},
    quotas::claim,
};
use crate::{
    CoreError,
    model::{Caller, Labels, Meta, Snapshot, SnapshotStatus, Value, Volume, VolumeStatus, held_by_snapshot},
    ports::{Query, Store, StoreError, Tx, WorkKind},
};

/// A snapshot that a caller wants.
#[derive(Debug, Clone, Default)]
pub struct NewSnapshot {
    /// Its name.
    pub name: String,
    /// The volume, by id or name.
    pub volume: String,
    /// Words of the user's own.
    pub labels: Labels,
}

/// What volumes were at one moment.
#[derive(Clone)]
pub struct SnapshotService<S> {
    store: S,
    settings: Arc<Settings>,
}

impl<S: Store> SnapshotService<S> {
    /// The service over a store.
    pub fn new(store: S, settings: Arc<Settings>) -> Self {
        Self { store, settings }
    }

    /// Has a snapshot taken of a volume, attached or not: CREATING, then AVAILABLE, or ERROR where it could not be taken. That of a volume that
    /// is still being made is taken once it is.
    ///
    /// # Errors
    /// Invalid, `NotFound` (volume), `AlreadyExists`, `QuotaExceeded`, Precondition where the volume has no data yet, or they are missing or going.
    pub async fn create(&self, caller: &Caller, request: NewSnapshot) -> Result<Snapshot, CoreError> {
        member(caller)?;
        name(&request.name)?;
        labels(&request.labels)?;
        let mut tx = self.store.begin().await?;
        let volume: Volume = held(&mut tx, caller, &request.volume).await?;
        let host = match (volume.host, volume.status) {
            (Some(host), VolumeStatus::Creating | VolumeStatus::Available | VolumeStatus::InUse) => host,
            (None, VolumeStatus::Available) => return Err(unplaced(&volume)),
            (_, status) => {
                let why = format!("is {}: it has no data that a snapshot could be taken of", status.as_str());
                return Err(volume_state(&volume, &why));
            }
        };
        let id = *SnapshotId::random().as_uuid();
        let row = Snapshot {
            meta: Meta::new(id, caller.project, &caller.project_name, &request.name, request.labels),
            volume: volume.id(),
            volume_name: volume.meta.name.clone(),
            size: volume.size,
            status: SnapshotStatus::Creating,
            status_reason: String::new(),
            host,
            host_name: volume.host_name.clone(),
            pool: volume.pool.clone(),
            data_missing: false,
        };
        tx.enqueue(WorkKind::Snapshot, id).await?;
        insert(&mut tx, &row).await?;
        tx.event(event(caller, &row, "snapshot.create")).await?;
        claim(&mut tx, &self.settings, caller, &held_by_snapshot(&row)).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// A snapshot by id or name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Snapshot, CoreError> {
        any(&self.store, caller.project, id).await
    }

    /// The project's snapshots.
    ///
    /// # Errors
    /// Invalid filter, order or page token.
    pub async fn list(&self, caller: &Caller, page: &PageRequest) -> Result<Page<Snapshot>, CoreError> {
        page.list(&self.store, Some(caller.project), Query::default()).await
    }

    /// Deletes a snapshot. Volumes made from it stay.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Precondition while a volume is being made from it.
    pub async fn delete(&self, caller: &Caller, id: &str, etag: &str) -> Result<Snapshot, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let row: Snapshot = live(&mut tx, caller.project, id).await?;
        // The work first, as a worker takes them: nothing is made from it from here on.
        tx.enqueue(WorkKind::Snapshot, row.meta.id).await?;
        let mut row: Snapshot = live(&mut tx, caller.project, &row.meta.id.to_string()).await?;
        check_etag(&row, etag)?;
        if row.status == SnapshotStatus::Deleting {
            return Ok(row);
        }
        if let Some(copy) = being_made_from(&mut tx, &row.meta.id).await? {
            let message = format!("volume `{}` is being made from snapshot `{}`", copy.meta.name, row.meta.name);
            return Err(CoreError::precondition("SNAPSHOT_IN_USE", message));
        }
        row.status = SnapshotStatus::Deleting;
        row.status_reason.clear();
        row.data_missing = false;
        tx.update(&mut row).await?;
        tx.event(event(caller, &row, "snapshot.delete")).await?;
        tx.commit().await?;
        Ok(row)
    }
}

/// The live volume, whose deletion waits from here on for this transaction's end: both take its work first.
pub(super) async fn held<T: Tx>(tx: &mut T, caller: &Caller, text: &str) -> Result<Volume, CoreError> {
    let row: Volume = live(tx, caller.project, text).await?;
    tx.wake(WorkKind::Volume, row.meta.id).await?;
    live(tx, caller.project, &row.meta.id.to_string()).await
}

/// A volume that is just being copied from this snapshot or volume.
pub(super) async fn being_made_from<T: Tx>(tx: &mut T, id: &uuid::Uuid) -> Result<Option<Volume>, StoreError> {
    let mut copies = Query { limit: Some(1), ..Query::by("source_id", id) };
    copies.columns.push(("status", Value::Text(VolumeStatus::Creating.as_str().to_owned())));
    Ok(tx.list(&copies).await?.pop())
}

pub(super) fn volume_state(volume: &Volume, why: &str) -> CoreError {
    CoreError::precondition("VOLUME_STATE", format!("volume `{}` {why}", volume.meta.name))
}

pub(super) fn unplaced(volume: &Volume) -> CoreError {
    volume_state(volume, "has no data yet: it takes its place on a host when it is first attached")
}
