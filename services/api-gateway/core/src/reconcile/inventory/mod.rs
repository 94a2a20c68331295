//! Inventories: what a host has, compared with what the rows say it shall have.
//!
//! # Theory of operation
//!
//! Each of a host's three agents is asked for everything of this cloud that it has: when this process starts, when the agent registers as a new
//! run, when the host answers again after it did not, when the stream of its hypervisor's events broke, and once every sweep interval. Only what
//! differs costs anything beyond that: its work is woken (or its VPC told again), and the reconciler, which asks the agent for the one thing
//! it is about, decides. Five rules keep a list that is old by the time it is compared from doing harm:
//!
//! - **The list is read first, the rows after it.** An object in the list whose row is missing is no race: rows are committed before their objects
//!   are made.
//! - **What seems to be missing, or to be an orphan, is asked for once more** after the row was read: a row is ended after its object is gone.
//! - **A comparison writes no row of what it compares.** It wakes work; whoever does that reads the row and asks the agent again.
//! - **What was compared is not compared again** where the host says what it said, and the rows are what they were ([`Mark`](crate::ports::Mark)), when
//!   there was nothing to do. An inventory that hurries compares all the same.
//! - **Rows of orphans are written here** and claim nothing: what removes one is work of its own, which looks again.
//!
//! What is guaranteed of orders: **no call that changes something is made to an agent before that agent, in its present session, has said to this
//! gateway what it has, and the work of what differed has been made due** ([`Context::reach`] waits for it). So no worker acts on a host
//! from memory alone: what it is about to order for a resource, it orders after the difference of that resource was known. It is not
//! guaranteed that nothing changes on the host between the inventory and the order: that is what the agents' own checks (fence, incarnation,
//! specification) are for.

mod guests;
mod orphans;
mod snapshots;
mod volumes;
mod vpcs;

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Duration,
};

use cloud_domain::HostId;
use rand::Rng;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{Context, Failure};
use crate::{
    model::{AgentRole, Timestamp},
    ports::{BackendError, Store},
};

/// How soon an inventory is tried again that could not be taken; doubled up to the sweep interval.
const RETRY: Duration = Duration::from_millis(100);
/// How long one that could not be taken is not tried again, whoever asks for it: all work of the host may be asking.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a compute-agent that does not answer keeps the host's networks from being looked at.
const GUESTS_FIRST: Duration = Duration::from_secs(2);

/// What a comparison came to.
#[derive(Debug, Default, Clone, Copy)]
struct Compared {
    /// Objects on the host.
    found: usize,
    /// What was not as it should be.
    differ: usize,
}

/// A list, in whatever order, and what it is compared with: in a word.
fn fingerprint<T: Hash>(list: &[T], rows: impl Hash) -> u64 {
    let all = list.iter().map(|one| hash(&one)).fold(0, u64::wrapping_add);
    hash(&(list.len(), all, rows))
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Takes a host's inventory again and again, for ever.
pub(super) async fn keep<S: Store>(context: &Context<S>, host: HostId) {
    let inventories = context.registry.inventories();
    let mut retry = RETRY;
    loop {
        let hurry = inventories.begin(host);
        // Boxed: for most of its time each host's task waits, and need not hold what the taking needs (65 kB).
        let wait = if Box::pin(take(context, host, hurry)).await {
            retry = RETRY;
            context.settings.sweep_interval
        } else {
            if hurry {
                inventories.failed(host);
            }
            let wait = retry;
            sleep(wait.min(PAUSE)).await;
            retry = (retry * 2).min(context.settings.sweep_interval);
            wait
        };
        // Many hosts may have been asked at once, as when this process started: from then on they take turns.
        let wait = wait.mul_f64(rand::rng().random_range(if hurry { 0.0..1.0 } else { 0.8..1.2 }));
        tokio::select! {
            () = inventories.asked(host) => {}
            () = sleep(wait) => {}
        }
    }
}

/// Takes one inventory of all three agents; whether all of it could be taken.
async fn take<S: Store>(context: &Context<S>, host: HostId, hurry: bool) -> bool {
    let of = |role| async move {
        match of_role(context, host, role, hurry).await {
            Ok(()) => true,
            Err(Failure::Backend(error @ (BackendError::Unreachable(_) | BackendError::Stale(_)))) => {
                tracing::debug!(host = context.registry.name(host), role = role.as_str(), %error, "no inventory now");
                false
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(host = context.registry.name(host), role = role.as_str(), error, "no inventory now");
                false
            }
        }
    };
    let (heard, hears) = oneshot::channel::<()>();
    let compute = async move {
        let taken = of(AgentRole::Compute).await;
        drop(heard);
        taken
    };
    // A guest that no row knows keeps its network: so guests are looked at before networks, and until they were nothing is told.
    let network = async {
        let _either = timeout(GUESTS_FIRST, hears).await;
        of(AgentRole::Network).await
    };
    let (compute, storage, network) = futures::join!(compute, of(AgentRole::Storage), network);
    compute && storage && network
}

async fn of_role<S: Store>(context: &Context<S>, host: HostId, role: AgentRole, asked: bool) -> Result<(), Failure> {
    let inventories = context.registry.inventories();
    // Before the agent is asked: what a later run of it answers holds for that run too, and that run is asked again when it registers.
    let session = context.present(host, role)?;
    let first = !inventories.is_taken(host, role, session);
    let (begun, asked_at) = (Instant::now(), Timestamp::now());
    let hurry = asked || first;
    let (compared, told) = match role {
        AgentRole::Compute => (guests::compare(context, host, hurry).await?, Vec::new()),
        AgentRole::Storage => {
            let volumes = volumes::compare(context, host, hurry).await?;
            let snapshots = snapshots::compare(context, host, hurry).await?;
            let (found, differ) = (volumes.found + snapshots.found, volumes.differ + snapshots.differ);
            (Compared { found, differ }, Vec::new())
        }
        AgentRole::Network => vpcs::compare(context, host, hurry).await?,
    };
    inventories.taken(host, role, session, asked_at);
    // Telling a run that has registered meanwhile would be to wait for its inventory, which is taken here.
    let is_another = context.present(host, role)? != session;
    let Compared { found, differ } = compared;
    let (name, role, took) = (context.registry.name(host), role.as_str(), begun.elapsed());
    if first {
        tracing::info!(host = name, role, %session, found, differ, ?took, "inventory taken");
    } else {
        tracing::debug!(host = name, role, found, differ, ?took, "inventory taken");
    }
    if is_another {
        return Err(
            BackendError::Stale(format!("another run of the {role}-agent of host {name} has registered")).into()
        );
    }
    vpcs::tell(context, host, told).await
}
