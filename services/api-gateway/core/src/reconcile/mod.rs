//! Reconcilers: how intent becomes fact.
//!
//! # Theory of operation
//!
//! A call commits what shall be (a row's `desired`) together with a row in the work table, and answers. From there on everything is done
//! here. A worker claims due work, reads the rows it needs, asks the host's agents for what is, orders what is missing, and writes what it
//! found. It takes **no input but the database**: the first attempt, a retry, the start after a crash and the repair of drift are one code
//! path. A signal (a commit, an event of a hypervisor) only wakes it earlier.
//!
//! Three rules make it safe to be killed anywhere:
//!
//! - **Every step may be repeated.** Agents ensure and remove by ids that the database chose, so doing a thing twice is doing it once.
//! - **Every write is fenced.** A transaction begins by checking that this worker still holds its lease ([`Tx::guard`]), and writes rows only at
//!   the version it has read; who lost either rolls back and leaves the work to whoever holds it.
//! - **Completion clears only what was read.** Intent that is written while a worker runs raises the work's sequence, so that finishing the
//!   older one leaves the work due.
//!
//! Work that fails is tried again, later and later, without end. What cannot succeed (the agent refuses, the deadline of a start has passed)
//! becomes the resource's status, with the reason; then the reconciler's job is to leave nothing behind.
//!
//! What nobody asked for is found by the hosts' inventories (`inventory`) and by comparing the database with itself (`audit`); they
//! wake work, and the work decides.
//!
//! [`Tx::guard`]: crate::ports::Tx::guard

mod audit;
mod host;
mod image;
mod instance;
mod inventory;
mod locks;
mod network;
mod orphan;
mod runner;
mod snapshot;
mod volume;
mod volume_data;
mod volume_growth;
mod volume_making;
mod watch;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cloud_domain::{HostId, SessionId};
use uuid::Uuid;

use crate::{
    model::{AgentRole, Host, HostMode, NewEvent, Resource},
    ports::{
        BackendError, ComputeBackend, Fencer, FetchError, ImageStore, NetworkBackend, StorageBackend, Store,
        StoreError, Tx, WorkItem, WorkKind,
    },
    services::{HostRegistry, Settings},
};

pub use runner::{Traced, Workers};

/// The agents of all hosts, and the gateway's image files.
#[derive(Clone)]
pub struct Backends {
    /// Guests.
    pub compute: Arc<dyn ComputeBackend>,
    /// Volumes and cached images.
    pub storage: Arc<dyn StorageBackend>,
    /// Virtual networks.
    pub network: Arc<dyn NetworkBackend>,
    /// Image files.
    pub images: Arc<dyn ImageStore>,
    /// What takes the power of a silent host away; none: only people say that one is dead.
    pub fencer: Option<Arc<dyn Fencer>>,
}

/// How long work waits for a host's inventory before it is tried again later: a worker that waits is one less for other hosts.
const INVENTORY_WAIT: Duration = Duration::from_secs(1);

/// What reconcilers share.
struct Context<S> {
    store: S,
    registry: Arc<HostRegistry>,
    backends: Backends,
    settings: Settings,
    slices: network::Slices,
    pushes: locks::KeyedLocks<(cloud_domain::HostId, String, cloud_domain::ImageId)>,
}

/// How an attempt ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// As intended.
    Done,
    /// Under way: look again after this long.
    Again(Duration),
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// An agent did not do it.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The store did not do it. Stale: somebody else has the work, or changed the row.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An image could not be had.
    #[error(transparent)]
    Image(#[from] FetchError),
    /// Data that it needs are not there any more.
    #[error("{0}")]
    DataMissing(String),
    /// It can never be done as things are.
    #[error("{0}")]
    Final(String),
}

impl Failure {
    /// Whether trying again cannot help.
    fn is_final(&self) -> bool {
        match self {
            Self::Backend(error) => error.is_final(),
            Self::Image(FetchError::Refused(_)) | Self::DataMissing(_) | Self::Final(_) => true,
            Self::Image(FetchError::Later(_)) | Self::Store(_) => false,
        }
    }
}

impl<S: Store> Context<S> {
    /// A transaction of the worker that holds this lease.
    async fn begin(&self, item: &WorkItem) -> Result<S::Tx, StoreError> {
        let mut tx = self.store.begin_background().await?;
        tx.guard(item).await?;
        Ok(tx)
    }

    /// The present run of an agent. Fails where it has been silent: waiting for it in vain would take a worker from other hosts' work. Its return
    /// wakes the work.
    fn present(&self, host: HostId, role: AgentRole) -> Result<SessionId, BackendError> {
        let agent = || format!("host {}: its {}-agent", self.registry.name(host), role.as_str());
        match (self.registry.silence(host, role), self.registry.agent(host, role)) {
            (Some(silence), _) => {
                Err(BackendError::Unreachable(format!("{} has been silent for {} s", agent(), silence.as_secs())))
            }
            (None, Some(present)) => Ok(present.session),
            (None, None) => Err(BackendError::Unreachable(format!("{} has not registered", agent()))),
        }
    }

    /// Fails where an agent is silent, or where its present run has not said yet what it has: nothing is ordered of it before.
    async fn reach(&self, host: HostId, role: AgentRole) -> Result<(), BackendError> {
        let session = self.present(host, role)?;
        let inventories = self.registry.inventories();
        if inventories.is_taken(host, role, session) {
            return Ok(());
        }
        // Usually asked for by whatever made the session new; where that was another gateway, here.
        inventories.again(host);
        if inventories.wait(host, role, session, INVENTORY_WAIT).await {
            return Ok(());
        }
        let (host, role) = (self.registry.name(host), role.as_str());
        Err(BackendError::Unreachable(format!("host {host}: its {role}-agent has not said yet what it has")))
    }

    /// Whether a host was declared dead, and nothing is heard of it. Asked where it does not answer: of one that does, its agents are asked.
    async fn is_dead(&self, host: HostId) -> Result<bool, StoreError> {
        if !self.registry.heard_of(host).is_empty() {
            return Ok(false);
        }
        let row: Option<Host> = self.store.get(*host.as_uuid()).await?;
        Ok(row.is_some_and(|row| row.mode == HostMode::Fenced))
    }

    /// Has work looked at. Where it does not hurry, not as new intent: an attempt that fails causes changes itself.
    async fn wake(&self, kind: WorkKind, ids: BTreeSet<Uuid>, hurry: bool) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.begin_background().await?;
        for id in ids {
            if hurry {
                tx.enqueue(kind, id).await?;
            } else {
                tx.wake(kind, id).await?;
            }
        }
        tx.commit().await
    }

    async fn reconcile(&self, item: &WorkItem) -> Result<Outcome, Failure> {
        match item.kind {
            WorkKind::Instance => instance::reconcile(self, item).await,
            WorkKind::Volume => volume::reconcile(self, item).await,
            WorkKind::Snapshot => snapshot::reconcile(self, item).await,
            WorkKind::Image => image::reconcile(self, item).await,
            WorkKind::Vpc => network::reconcile(self, item).await,
            WorkKind::Orphan => orphan::reconcile(self, item).await,
            WorkKind::Host => host::reconcile(self, item).await,
        }
    }
}

/// What the cloud itself did, as an event.
fn event<R: Resource>(row: &R, action: &'static str, message: &str) -> NewEvent {
    NewEvent {
        project: row.meta().project,
        kind: R::KIND,
        resource: row.meta().id,
        name: row.meta().name.clone(),
        action,
        actor: "system".to_owned(),
        source: String::new(),
        outcome: NewEvent::OK,
        message: message.to_owned(),
        request_id: String::new(),
        once: None,
    }
}
