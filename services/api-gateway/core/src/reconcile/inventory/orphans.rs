//! Rows of what a host has and no row knows there. They are what operators see; nothing is done to the object here.

use std::collections::BTreeMap;

use cloud_domain::{HostId, InstanceId, ProjectId};
use uuid::Uuid;

use crate::{
    model::{Instance, Labels, Meta, Orphan, OrphanKind, Snapshot, Timestamp, Volume, Vpc},
    ports::{BackendError, FoundSnapshot, FoundVolume, FoundVpc, Guest, Query, Store, StoreError, Tx, WorkKind},
    reconcile::{Context, Failure, event},
};

/// Something on a host whose id no live row of that host has.
#[derive(Debug, Clone)]
pub(super) struct Unknown(Orphan, Option<Guest>);

impl Unknown {
    fn new(kind: OrphanKind, object: Uuid, detail: String) -> Self {
        let nobody = ProjectId::from(Uuid::nil());
        let row = Orphan {
            meta: Meta::new(Uuid::new_v4(), nobody, "", &object.to_string(), Labels::new()),
            kind,
            object,
            host: HostId::from(Uuid::nil()),
            host_name: String::new(),
            detail,
            active: false,
            volumes: Vec::new(),
            size_bytes: 0,
            pool: String::new(),
            image: None,
            copied: None,
            kept: None,
            generation: 0,
            removing: false,
            by_tombstone: false,
        };
        Self(row, None)
    }

    pub(super) fn guest(guest: &Guest) -> Self {
        let does = if guest.is_active() { "runs" } else { "does not run" };
        let disks: Vec<String> = guest.volumes.iter().map(ToString::to_string).collect();
        let detail = match disks.len() {
            0 => does.to_owned(),
            _ => format!("{does}; its disks: {}", disks.join(", ")),
        };
        let mut unknown = Self::new(OrphanKind::Instance, *guest.id.as_uuid(), detail);
        unknown.0.active = guest.is_active();
        unknown.0.volumes.clone_from(&guest.volumes);
        unknown.1 = Some(guest.clone());
        unknown
    }

    pub(super) fn volume(volume: &FoundVolume) -> Self {
        let detail = format!("{} in pool `{}` at {}", volume.format, volume.pool, volume.path);
        let mut unknown = Self::new(OrphanKind::Volume, *volume.id.as_uuid(), detail);
        unknown.0.size_bytes = volume.size_bytes;
        unknown.0.pool.clone_from(&volume.pool);
        unknown.0.image = volume.image;
        unknown.0.copied.clone_from(&volume.copied);
        unknown
    }

    pub(super) fn snapshot(snapshot: &FoundSnapshot) -> Self {
        let detail = format!("of volume {} in pool `{}`", snapshot.volume, snapshot.pool);
        let mut unknown = Self::new(OrphanKind::Snapshot, *snapshot.id.as_uuid(), detail);
        unknown.0.size_bytes = snapshot.size_bytes;
        unknown.0.pool.clone_from(&snapshot.pool);
        unknown
    }

    pub(super) fn vpc(vpc: &FoundVpc) -> Self {
        let detail = format!("VNI {}, {} ports", vpc.vni, vpc.ports.len());
        let mut unknown = Self::new(OrphanKind::Vpc, *vpc.id.as_uuid(), detail);
        unknown.0.generation = vpc.order.1;
        unknown
    }
}

/// Enters what is new, ends what is gone or known by now, and has that removed which this database remembers to have deleted. Answers with the orphans
/// that there are.
pub(super) async fn note<S: Store>(
    context: &Context<S>,
    host: HostId,
    kind: OrphanKind,
    unknown: Vec<Unknown>,
) -> Result<Vec<Orphan>, Failure> {
    let mut rows: Vec<Orphan> = context.store.list(&Query::by("host_id", &host)).await?;
    rows.retain(|row| row.kind == kind);
    if rows.is_empty() && unknown.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = unknown.iter().map(|u| u.0.object).collect();
    let deleted = context.store.tombstones(kind.kind(), &ids).await?;
    let mut entered: BTreeMap<Uuid, Orphan> = rows.into_iter().map(|row| (row.object, row)).collect();
    let mut there = Vec::new();
    for Unknown(mut is, guest) in unknown {
        is.host = host;
        is.host_name = context.registry.name(host);
        is.by_tombstone = deleted.contains(&is.object);
        match place(context, &is).await? {
            None => {}
            // A row knows it by now.
            Some((_, Some(here), _)) if here == host => continue,
            Some((name, Some(_), other)) => is.detail = format!("{}; `{name}` is on host {other}", is.detail),
            Some((name, None, _)) => is.detail = format!("{}; `{name}` has no place yet", is.detail),
        }
        is.removing = is.by_tombstone;
        let row = entered.remove(&is.object);
        if let Some(guest) = guest {
            is.kept = kept(context, host, &guest, row.as_ref()).await?.map(Box::new);
        }
        let changed = match &row {
            Some(row) => !row.removing && (is.by_tombstone || !row.shows(&is)),
            None => true,
        };
        there.push(is.clone());
        if changed {
            enter(context, row, is).await?;
        }
    }
    for row in entered.into_values() {
        end(context, row).await?;
    }
    Ok(there)
}

/// A live row with the orphan's id: its name, its host, and the host's name.
async fn place<S: Store>(
    context: &Context<S>,
    orphan: &Orphan,
) -> Result<Option<(String, Option<HostId>, String)>, StoreError> {
    let (id, store) = (orphan.object, &context.store);
    Ok(match orphan.kind {
        OrphanKind::Instance => {
            let row = store.get::<Instance>(id).await?.filter(|r| r.meta.deleted_at.is_none());
            row.map(|r| (r.meta.name, Some(r.host), r.host_name))
        }
        OrphanKind::Volume => {
            let row = store.get::<Volume>(id).await?.filter(|r| r.meta.deleted_at.is_none());
            row.map(|r| (r.meta.name, r.host, r.host_name))
        }
        OrphanKind::Snapshot => {
            let row = store.get::<Snapshot>(id).await?.filter(|r| r.meta.deleted_at.is_none());
            row.map(|r| (r.meta.name, Some(r.host), r.host_name))
        }
        // A VPC that lives may be anywhere.
        OrphanKind::Vpc => {
            let row = store.get::<Vpc>(id).await?.filter(|r| r.meta.deleted_at.is_none());
            row.map(|r| (r.meta.name, Some(orphan.host), String::new()))
        }
    })
}

/// What a guest was when it was last started, as its host keeps it, and what start of it is there. The host is asked only where that is not known yet.
async fn kept<S: Store>(
    context: &Context<S>,
    host: HostId,
    guest: &Guest,
    row: Option<&Orphan>,
) -> Result<Option<Instance>, Failure> {
    let known = row.and_then(|row| row.kept.as_deref()).cloned();
    let known = match known {
        Some(known) => Some(known),
        None => record(context, host, guest.id).await?,
    };
    Ok(known.map(|row| Instance {
        incarnation: guest.incarnation,
        boot_generation: guest.boot_generation,
        booted_generation: guest.boot_generation,
        started_at: guest.started_at.filter(|_| guest.is_active()),
        ..row
    }))
}

/// None where its host has no record of it, or none that says anything.
async fn record<S: Store>(context: &Context<S>, host: HostId, id: InstanceId) -> Result<Option<Instance>, Failure> {
    let record = match context.backends.compute.record(host, id).await {
        Ok(record) => record.filter(|record| !record.is_empty()),
        Err(error @ (BackendError::Unreachable(_) | BackendError::Stale(_))) => return Err(error.into()),
        Err(error) => {
            tracing::error!(host = context.registry.name(host), guest = %id, %error, "a guest's record cannot be had");
            None
        }
    };
    let Some(record) = record else { return Ok(None) };
    let problem = match Instance::from_record(&record) {
        Ok(row) if row.id() == id => return Ok(Some(row)),
        Ok(row) => format!("it is that of {}", row.id()),
        Err(error) => error.to_string(),
    };
    tracing::error!(host = context.registry.name(host), guest = %id, problem, "a guest's record says nothing");
    Ok(None)
}

/// Enters an orphan, or writes what is known of it now.
async fn enter<S: Store>(context: &Context<S>, known: Option<Orphan>, is: Orphan) -> Result<(), Failure> {
    let is_new = known.is_none();
    let row = match known {
        Some(row) => Orphan { meta: row.meta, ..is },
        None => is,
    };
    let mut tx = context.store.begin_background().await?;
    if row.removing {
        tx.enqueue(WorkKind::Orphan, row.meta.id).await?;
    }
    let written = if is_new { tx.insert(&row).await } else { tx.update(&mut row.clone()).await };
    match written {
        Ok(()) => {}
        // Another gateway, or an operator, was faster.
        Err(StoreError::Taken | StoreError::Stale) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if is_new {
        let (host, kind, id, detail) = (&row.host_name, row.kind.kind(), row.object, &row.detail);
        context.registry.inventories().drifted("orphan", 1);
        if row.by_tombstone {
            tracing::warn!(host, %kind, %id, detail, "what was deleted is on a host again: removing it");
        } else {
            tracing::error!(host, %kind, %id, detail, "a host has what no row knows: see `cloud host orphan ls`");
            let message = format!("host {host} has {kind} {id}, which this database does not know there: {detail}");
            tx.event(event(&row, "orphan.found", &message)).await?;
        }
    }
    Ok(tx.commit().await?)
}

/// It is gone from its host, or a row knows it by now.
async fn end<S: Store>(context: &Context<S>, mut row: Orphan) -> Result<(), Failure> {
    let mut tx = context.store.begin_background().await?;
    row.meta.deleted_at = Some(Timestamp::now());
    match tx.update(&mut row).await {
        Ok(()) => {}
        Err(StoreError::Stale) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    tx.event(event(&row, "orphan.gone", "it is gone from its host, or known by now")).await?;
    Ok(tx.commit().await?)
}
