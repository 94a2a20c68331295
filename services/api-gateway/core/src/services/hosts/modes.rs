//! Hosts that come and go: what operators say of them.
//!
//! # Theory of operation
//!
//! What operators say (the host's mode) is in its row; what its agents say is in memory. Together they are its state. Capacity is promised only
//! of a host whose row says ACTIVE, by the statement that promises it, so no launch can overtake a cordon that was committed before it.
//!
//! **Silence proves nothing.** A host that does not answer keeps its instances as they were. That it is dead is said by a person, or by the
//! fence command, which has seen to it that the power is off. From then on its guests are known not to run, and what is deleted need not be
//! removed from it first: its tombstones see to that, should it come back. Its disks are on it, so nothing of it is started elsewhere.
//!
//! **A host that comes back** is asked what it has before anything is ordered of it, as ever. One that was declared dead stays FENCED until
//! then, and CORDONED after it, until a person has looked at it.
//!
//! **Removed is for good.** The row is kept, so that whoever comes with its identity is refused.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{HostService, HostView, nobody};
use crate::{
    CoreError,
    model::{AgentRole, Caller, Host, HostMode, Instance, Orphan, Snapshot, Timestamp, Value, Volume},
    ports::{Query, Store, StoreError, Tx, WorkKind},
    services::{
        joins::revoke_certificates,
        lookup::{check_etag, event, live, operator},
    },
};

/// How many of what a host holds are named.
const NAMED: u32 = 5;

/// What keeps a host from being empty.
pub(super) fn holds(instances: u64, volumes: u64) -> String {
    if instances == 0 && volumes == 0 {
        return "it holds nothing any more".to_owned();
    }
    format!("it holds {instances} instances and {volumes} volumes; draining stops and moves none: delete what shall go")
}

/// The live host. Its work, and then its counters' row, are held until the transaction ends: nothing can be promised of it meanwhile, and what
/// is read of it stays what it is.
pub(super) async fn locked<T: Tx>(tx: &mut T, id: &str) -> Result<Host, CoreError> {
    let row: Host = live(tx, nobody(), id).await?;
    tx.enqueue(WorkKind::Host, row.meta.id).await?;
    tx.lock_capacity_used(row.id()).await?;
    live(tx, nobody(), &row.meta.id.to_string()).await
}

/// Writes that a host is dead. The caller holds the host's work, and had [`wake_all`] first.
pub(crate) async fn declare_dead<T: Tx>(tx: &mut T, row: &mut Host, reason: String) -> Result<(), StoreError> {
    row.mode = HostMode::Fenced;
    row.mode_reason = reason;
    row.mode_since = Timestamp::now();
    tx.update(row).await
}

/// Has everything on a host looked at. Before the host's row is written: whoever ends an instance holds its work, and then wants the host's row.
pub(crate) async fn wake_all<T: Tx>(tx: &mut T, row: &Host) -> Result<(), StoreError> {
    let on_it = Query::by("host_id", &row.id());
    let mut woken: BTreeSet<(WorkKind, Uuid)> =
        tx.list::<Instance>(&on_it).await?.iter().map(|i| (WorkKind::Instance, i.meta.id)).collect();
    // What is being deleted there; and what is being made there never will be.
    for status in ["DELETING", "CREATING"] {
        let mut query = on_it.clone();
        query.columns.push(("status", Value::Text(status.to_owned())));
        woken.extend(tx.list::<Volume>(&query).await?.iter().map(|v| (WorkKind::Volume, v.meta.id)));
        woken.extend(tx.list::<Snapshot>(&query).await?.iter().map(|s| (WorkKind::Snapshot, s.meta.id)));
    }
    // In one order, as everything that wakes several: two that do not wait for each other.
    for (kind, id) in woken {
        tx.enqueue(kind, id).await?;
    }
    Ok(())
}

fn refuse(row: &Host, reason: &'static str, verb: &str, why: &str) -> CoreError {
    CoreError::precondition(reason, format!("cannot {verb} host `{}`: {why}", row.meta.name))
}

impl<S: Store> HostService<S> {
    /// Gives a host no new instances. What is on it stays and runs (operators).
    ///
    /// # Errors
    /// Denied, `NotFound`, `StaleEtag`, Precondition where it is FENCED. So are all below.
    pub async fn cordon(&self, caller: &Caller, id: &str, etag: &str) -> Result<HostView, CoreError> {
        self.set_mode(caller, id, etag, HostMode::Cordoned, ("cordon", "host.cordon")).await
    }

    /// Gives a host new instances again (operators).
    ///
    /// # Errors
    /// See [`Self::cordon`].
    pub async fn uncordon(&self, caller: &Caller, id: &str, etag: &str) -> Result<HostView, CoreError> {
        self.set_mode(caller, id, etag, HostMode::Active, ("uncordon", "host.uncordon")).await
    }

    /// Gives a host no new instances, and says when it holds none: DRAINING until then, CORDONED after it. Nothing is stopped or moved
    /// (operators).
    ///
    /// # Errors
    /// See [`Self::cordon`].
    pub async fn drain(&self, caller: &Caller, id: &str, etag: &str) -> Result<HostView, CoreError> {
        self.set_mode(caller, id, etag, HostMode::Draining, ("drain", "host.drain")).await
    }

    async fn set_mode(
        &self,
        caller: &Caller,
        id: &str,
        etag: &str,
        to: HostMode,
        (verb, action): (&'static str, &'static str),
    ) -> Result<HostView, CoreError> {
        operator(caller, "change hosts")?;
        let mut tx = self.store.begin().await?;
        let mut row = locked(&mut tx, id).await?;
        check_etag(&row, etag)?;
        if row.mode == HostMode::Fenced {
            let why = "it was declared dead, and is CORDONED once all its agents answer and have said what it has";
            return Err(refuse(&row, "HOST_FENCED", verb, why));
        }
        if row.mode == to {
            drop(tx);
            return self.view(row).await;
        }
        row.mode = to;
        row.mode_since = Timestamp::now();
        row.mode_reason.clear();
        tx.update(&mut row).await?;
        tx.event(event(caller, &row, action)).await?;
        tx.commit().await?;
        self.registry.learn(&row);
        self.view(row).await
    }

    /// Declares a host dead that does not answer: its guests do not run, and what is deleted need not be removed from it first (operators).
    ///
    /// # Errors
    /// See [`Self::cordon`]; Precondition where one of its agents answers.
    pub async fn fence(&self, caller: &Caller, id: &str, etag: &str) -> Result<HostView, CoreError> {
        operator(caller, "declare hosts dead")?;
        let mut tx = self.store.begin().await?;
        let row: Host = live(&mut tx, nobody(), id).await?;
        tx.enqueue(WorkKind::Host, row.meta.id).await?;
        wake_all(&mut tx, &row).await?;
        let mut row = locked(&mut tx, id).await?;
        check_etag(&row, etag)?;
        if row.mode == HostMode::Fenced {
            drop(tx);
            return self.view(row).await;
        }
        let heard: Vec<&str> = self.registry.heard_of(row.id()).into_iter().map(AgentRole::as_str).collect();
        if !heard.is_empty() {
            let why = format!(
                "its agents ({}) were heard within the heartbeat timeout, so it is not dead: take its power away and wait until it is UNREACHABLE",
                heard.join(", ")
            );
            return Err(refuse(&row, "HOST_ANSWERS", "fence", &why));
        }
        declare_dead(&mut tx, &mut row, format!("declared dead by `{}`", caller.key_name)).await?;
        tx.event(event(caller, &row, "host.fence")).await?;
        tx.commit().await?;
        self.registry.learn(&row);
        self.view(row).await
    }

    /// Removes a host that holds nothing. Its agents are refused from then on, and its identity is never taken again (operators).
    ///
    /// # Errors
    /// Denied, `NotFound`, `StaleEtag`; Precondition while it holds instances, volumes or snapshots.
    pub async fn remove(&self, caller: &Caller, id: &str, etag: &str) -> Result<HostView, CoreError> {
        operator(caller, "remove hosts")?;
        let mut tx = self.store.begin().await?;
        let mut row = locked(&mut tx, id).await?;
        check_etag(&row, etag)?;
        let some = Query { limit: Some(NAMED + 1), ..Query::by("host_id", &row.id()) };
        let instances: Vec<String> = tx.list::<Instance>(&some).await?.into_iter().map(|i| i.meta.name).collect();
        let volumes: Vec<String> = tx.list::<Volume>(&some).await?.into_iter().map(|v| v.meta.name).collect();
        let snapshots: Vec<String> = tx.list::<Snapshot>(&some).await?.into_iter().map(|s| s.meta.name).collect();
        let held: Vec<String> =
            [named("instances", &instances), named("volumes", &volumes), named("snapshots", &snapshots)]
                .into_iter()
                .flatten()
                .collect();
        if !held.is_empty() {
            let why = format!("it holds {}: delete them first", held.join(", and "));
            return Err(refuse(&row, "HOST_HOLDS", "remove", &why));
        }
        for mut orphan in tx.list::<Orphan>(&Query::by("host_id", &row.id())).await? {
            orphan.meta.deleted_at = Some(Timestamp::now());
            tx.update(&mut orphan).await?;
        }
        row.mode = HostMode::Removed;
        row.mode_reason = format!("removed by `{}`", caller.key_name);
        row.meta.deleted_at = Some(Timestamp::now());
        tx.update(&mut row).await?;
        tx.forget_agents(row.id()).await?;
        revoke_certificates(&mut tx, row.id()).await?;
        tx.event(event(caller, &row, "host.remove")).await?;
        let view = self.view(row.clone()).await?;
        tx.commit().await?;
        self.registry.learn(&row);
        Ok(view)
    }
}

fn named(what: &str, names: &[String]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let more = if names.len() > NAMED as usize { " and more" } else { "" };
    let names: Vec<_> = names.iter().take(NAMED as usize).map(|name| format!("`{name}`")).collect();
    Some(format!("{what} {}{more}", names.join(", ")))
}
