//! Orphans: what operators see of them and do about them. Nothing happens on a host in these calls: removing one is work.

use std::sync::Arc;

use cloud_domain::ProjectId;
use uuid::Uuid;

use super::{
    HostRegistry, Page, PageRequest, Settings,
    adoption::{Adoptable, adopt_instance, adopt_volume, adoptable},
    lookup::{any, as_id, event, live, operator},
    quotas::claim,
};
use crate::{
    CoreError, Kind,
    model::{Caller, Host, Orphan, Timestamp, Value},
    ports::{Query, Store, Tx, WorkKind},
};

/// What an orphan shall become.
#[derive(Debug, Clone, Default)]
pub struct Adoption {
    /// The host, by id or name.
    pub host: String,
    /// The orphan's id.
    pub orphan: String,
    /// A volume's project, by id or name; empty: the caller's. An instance belongs to its network's.
    pub project: String,
    /// A volume's name; empty: one made of its id. An instance keeps its own.
    pub name: String,
}

/// What hosts have that no row knows.
#[derive(Clone)]
pub struct OrphanService<S> {
    store: S,
    registry: Arc<HostRegistry>,
    settings: Arc<Settings>,
}

/// Hosts and projects belong to the cloud.
pub(super) fn nobody() -> ProjectId {
    ProjectId::from(Uuid::nil())
}

impl<S: Store> OrphanService<S> {
    /// The service over a store and what is known of hosts.
    pub fn new(store: S, registry: Arc<HostRegistry>, settings: Arc<Settings>) -> Self {
        Self { store, registry, settings }
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

    /// Makes a volume of an orphan that is one, where it is and with its data; or an instance of a guest, as it was when it was last started, with its
    /// volumes and addresses (operators).
    ///
    /// # Errors
    /// Denied, `NotFound` (host, orphan, project), invalid name or project, `AlreadyExists`, Precondition where it is neither, is being removed, has a
    /// row already, or lacks what it needs, which is said; `QuotaExceeded`.
    pub async fn adopt(&self, caller: &Caller, request: Adoption) -> Result<Orphan, CoreError> {
        operator(caller, "adopt orphans")?;
        let mut tx = self.store.begin().await?;
        let orphan = find(&mut tx, &request.host, &request.orphan).await?;
        if let Some(kept) = orphan.kept.as_ref().filter(|kept| !kept.anti_affinity_group.is_empty()) {
            // Before the host, as launches do: nobody of its group is placed meanwhile.
            tx.group_hosts(kept.meta.project, &kept.anti_affinity_group).await?;
        }
        // Nobody removes the host meanwhile.
        tx.lock_capacity_used(orphan.host).await?;
        let mut orphan = find(&mut tx, &orphan.host.to_string(), &request.orphan).await?;
        let (project, held) = match adoptable(&orphan)? {
            Adoptable::Volume => adopt_volume(&mut tx, caller, &orphan, &request).await?,
            Adoptable::Instance(kept) => adopt_instance(&mut tx, caller, &orphan, kept, &request).await?,
        };
        orphan.meta.deleted_at = Some(Timestamp::now());
        tx.update(&mut orphan).await?;
        let owner = Caller { project: project.meta.id.into(), project_name: project.meta.name, ..caller.clone() };
        claim(&mut tx, &self.settings, &owner, &held).await?;
        tx.commit().await?;
        self.registry.inventories().again(orphan.host);
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
