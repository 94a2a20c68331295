//! Orphans: what operators see of them and do about them. Nothing happens on a host in these calls: removing one is work.

use std::sync::Arc;

use cloud_domain::{Gib, ProjectId, VolumeId};
use uuid::Uuid;

use super::{
    Page, PageRequest, Settings,
    lookup::{any, as_id, event, insert, live, name, operator},
    quotas::claim,
};
use crate::{
    CoreError, Kind,
    model::{
        Caller, Host, Image, Instance, Labels, Meta, Orphan, OrphanKind, Project, Resource, Timestamp, Value, Volume,
        VolumeStatus, held_by_volume,
    },
    ports::{Query, Store, Tx, WorkKind},
};

/// The version of an adopted volume's row: newer than any call about it that its host's agent may have seen.
const ADOPTED: u64 = 1 << 40;

/// What an orphan shall become.
#[derive(Debug, Clone, Default)]
pub struct Adoption {
    /// The host, by id or name.
    pub host: String,
    /// The orphan's id.
    pub orphan: String,
    /// The project, by id or name; empty: the caller's.
    pub project: String,
    /// The name; empty: one made of its id.
    pub name: String,
}

/// What hosts have that no row knows.
#[derive(Clone)]
pub struct OrphanService<S> {
    store: S,
    settings: Arc<Settings>,
}

/// Hosts and projects belong to the cloud.
fn nobody() -> ProjectId {
    ProjectId::from(Uuid::nil())
}

impl<S: Store> OrphanService<S> {
    /// The service over a store.
    pub fn new(store: S, settings: Arc<Settings>) -> Self {
        Self { store, settings }
    }

    /// A host's orphans, as of its last inventory (operators).
    ///
    /// # Errors
    /// Denied, `NotFound` (host), invalid page token.
    pub async fn list(&self, caller: &Caller, host: &str, page: &PageRequest) -> Result<Page<Orphan>, CoreError> {
        operator(caller, "see orphans")?;
        let host: Host = any(&self.store, nobody(), host).await?;
        page.list(&self.store, None, Query::by("host_id", &host.id())).await
    }

    /// Makes a volume of an orphan that is one, where it is and with its data (operators).
    ///
    /// # Errors
    /// Denied, `NotFound` (host, orphan, project), invalid name, `AlreadyExists`, Precondition where it is no volume, is being removed, is used by
    /// a guest that is an orphan itself, has a size that no volume has, or has a row already; `QuotaExceeded`.
    pub async fn adopt(&self, caller: &Caller, request: Adoption) -> Result<Orphan, CoreError> {
        operator(caller, "adopt orphans")?;
        let mut tx = self.store.begin().await?;
        let mut orphan = find(&mut tx, &request.host, &request.orphan).await?;
        // Nobody removes the host meanwhile.
        tx.lock_capacity_used(orphan.host).await?;
        find(&mut tx, &orphan.host.to_string(), &request.orphan).await?;
        adoptable(&orphan)?;
        let users: Vec<Orphan> = tx.list(&Query::by("host_id", &orphan.host)).await?;
        if let Some(user) = users.iter().find(|o| o.volumes.iter().any(|v| *v.as_uuid() == orphan.object)) {
            let message = format!(
                "volume {} is a disk of guest {}, which is an orphan itself: remove that first, its disks stay",
                orphan.object, user.object
            );
            return Err(CoreError::precondition("ORPHAN_IN_USE", message));
        }
        if let Some(row) = tx.get::<Volume>(orphan.object).await? {
            let message = match row.meta.deleted_at {
                None => format!("volume `{}` has this id already: {}", row.meta.name, orphan.detail),
                Some(_) => format!("volume `{}` had this id and was deleted: it will be removed", row.meta.name),
            };
            return Err(CoreError::precondition("ORPHAN_KNOWN", message));
        }
        let project = match request.project.as_str() {
            "" => (caller.project, caller.project_name.clone()),
            text => {
                let row: Project = live(&mut tx, nobody(), text).await?;
                (row.meta.id.into(), row.meta.name)
            }
        };
        let row = volume(&mut tx, &orphan, project, &request.name).await?;
        let owner = Caller { project: row.meta.project, project_name: row.meta.project_name.clone(), ..caller.clone() };
        claim(&mut tx, &self.settings, &owner, &held_by_volume(&row)).await?;
        insert(&mut tx, &row).await?;
        tx.event(event(caller, &row, "volume.adopt")).await?;
        orphan.meta.deleted_at = Some(Timestamp::now());
        tx.update(&mut orphan).await?;
        tx.commit().await?;
        Ok(orphan)
    }

    /// Has an orphan removed from its host, a volume with its data (operators).
    ///
    /// # Errors
    /// Denied, `NotFound`.
    pub async fn remove(&self, caller: &Caller, host: &str, id: &str) -> Result<Orphan, CoreError> {
        operator(caller, "remove orphans")?;
        let mut tx = self.store.begin().await?;
        let mut orphan = find(&mut tx, host, id).await?;
        if orphan.removing {
            return Ok(orphan);
        }
        tx.enqueue(WorkKind::Orphan, orphan.meta.id).await?;
        orphan.removing = true;
        tx.update(&mut orphan).await?;
        tx.event(event(caller, &orphan, "orphan.remove")).await?;
        tx.commit().await?;
        Ok(orphan)
    }
}

/// The live orphan of a host.
async fn find<T: Tx>(tx: &mut T, host: &str, id: &str) -> Result<Orphan, CoreError> {
    let host: Host = live(tx, nobody(), host).await?;
    let unknown = || CoreError::not_found(Kind::Orphan, id.chars().take(80).collect::<String>());
    let object = as_id(id).ok_or_else(unknown)?;
    let columns =
        vec![("host_id", Value::Text(host.meta.id.to_string())), ("object_id", Value::Text(object.to_string()))];
    tx.list(&Query { columns, ..Query::default() }).await?.pop().ok_or_else(unknown)
}

fn adoptable(orphan: &Orphan) -> Result<(), CoreError> {
    let refuse = |message: String| Err(CoreError::precondition("NOT_ADOPTABLE", message));
    if orphan.removing {
        return refuse(format!("{} {} is being removed", orphan.kind.kind(), orphan.object));
    }
    match orphan.kind {
        OrphanKind::Volume => Ok(()),
        OrphanKind::Instance => refuse(format!(
            "{} {} cannot be adopted: its host does not have all that it was launched with. Remove the guest (its disks stay), adopt its \
             volumes, and launch an instance with them",
            Instance::KIND,
            orphan.object
        )),
        OrphanKind::Snapshot => refuse(format!(
            "{} {} cannot be adopted: adopt its volume, and take a new one",
            orphan.kind.kind(),
            orphan.object
        )),
        OrphanKind::Vpc => refuse(format!("{} {} has no data: remove it", orphan.kind.kind(), orphan.object)),
    }
}

/// The row of an adopted volume.
async fn volume<T: Tx>(
    tx: &mut T,
    orphan: &Orphan,
    (project, project_name): (ProjectId, String),
    wanted: &str,
) -> Result<Volume, CoreError> {
    let id = VolumeId::from(orphan.object);
    let own = format!("adopted-{}", orphan.object.simple().to_string().chars().take(8).collect::<String>());
    let wanted = if wanted.is_empty() { own.as_str() } else { name(wanted)? };
    let size = Gib::holding(orphan.size_bytes).ok().filter(|size| size.bytes() == orphan.size_bytes);
    let size = size.ok_or_else(|| {
        let message = format!("volume {id} has {} bytes, which is no whole number of GiB", orphan.size_bytes);
        CoreError::precondition("NOT_ADOPTABLE", message)
    })?;
    let image = match orphan.image {
        Some(image) => tx.get::<Image>(*image.as_uuid()).await?,
        None => None,
    };
    let mut meta = Meta::new(orphan.object, project, &project_name, wanted, Labels::new());
    meta.version = ADOPTED;
    Ok(Volume {
        meta,
        size,
        status: VolumeStatus::Available,
        status_reason: String::new(),
        host: Some(orphan.host),
        host_name: orphan.host_name.clone(),
        pool: orphan.pool.clone(),
        instance: None,
        instance_name: String::new(),
        root: false,
        image: orphan.image,
        image_name: image.map(|row| row.meta.name).unwrap_or_default(),
        data_missing: false,
        copied: None,
        growing_to: None,
    })
}
