//! What this process knows of the hosts' inventories: which run of each agent has been asked what it has, and when.
//!
//! An inventory belongs to a run of an agent (its session) and to a run of this process. Whoever wants to order something of an agent waits
//! until its present run was asked (see `reconcile::inventory`, which does it).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cloud_domain::{HostId, SessionId};
use tokio::{
    sync::{Notify, futures::Notified, watch},
    time::timeout,
};

use crate::model::{AgentRole, OrphanKind, Timestamp};

type Taken = BTreeMap<AgentRole, (SessionId, Timestamp)>;

/// What is known of one host.
#[derive(Debug)]
struct Known {
    taken: watch::Sender<Taken>,
    again: Notify,
    /// The next inventory hurries: what differs does not wait for its turn after a failure.
    hurry: AtomicBool,
    /// Somebody waits for `again`.
    watched: AtomicBool,
    /// What was compared, by kind, where there was nothing to do.
    settled: Mutex<BTreeMap<OrphanKind, u64>>,
}

/// The hosts' inventories.
#[derive(Debug, Default)]
pub struct Inventories {
    hosts: Mutex<HashMap<HostId, Arc<Known>>>,
    unwatched: Notify,
    drift: Mutex<BTreeMap<&'static str, u64>>,
    wrong: Mutex<BTreeMap<&'static str, u64>>,
}

impl Inventories {
    fn known(&self, host: HostId) -> Arc<Known> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Known {
            taken: watch::Sender::default(),
            again: Notify::new(),
            hurry: AtomicBool::new(true),
            watched: AtomicBool::new(false),
            settled: Mutex::default(),
        };
        Arc::clone(hosts.entry(host).or_insert_with(|| Arc::new(new())))
    }

    /// Something may have happened on a host while nobody looked: its inventory is to be taken now, and what differs is looked at at once.
    pub fn again(&self, host: HostId) {
        let known = self.known(host);
        known.hurry.store(true, Ordering::SeqCst);
        known.again.notify_one();
        if !known.watched.load(Ordering::SeqCst) {
            self.unwatched.notify_one();
        }
    }

    /// Returns when there is something to do for a host that nobody looks after yet.
    pub(crate) fn unwatched(&self) -> Notified<'_> {
        self.unwatched.notified()
    }

    /// Begins an inventory. Whether it hurries.
    pub(crate) fn begin(&self, host: HostId) -> bool {
        let known = self.known(host);
        known.watched.store(true, Ordering::SeqCst);
        known.hurry.swap(false, Ordering::SeqCst)
    }

    /// Waits until the next one is asked for.
    pub(crate) async fn asked(&self, host: HostId) {
        self.known(host).again.notified().await;
    }

    /// An inventory that hurried could not be taken: the next one hurries.
    pub(crate) fn failed(&self, host: HostId) {
        self.known(host).hurry.store(true, Ordering::SeqCst);
    }

    /// This run of an agent has said what it has, which it was asked at this time, and what differs is to be looked at.
    pub(crate) fn taken(&self, host: HostId, role: AgentRole, session: SessionId, asked: Timestamp) {
        self.known(host).taken.send_modify(|taken| {
            taken.insert(role, (session, asked));
        });
    }

    /// Whether this run of an agent has said what it has.
    #[must_use]
    pub fn is_taken(&self, host: HostId, role: AgentRole, session: SessionId) -> bool {
        has(&self.known(host).taken.borrow(), role, session)
    }

    /// Waits until this run of an agent has said what it has; false where that takes too long.
    pub(crate) async fn wait(&self, host: HostId, role: AgentRole, session: SessionId, limit: Duration) -> bool {
        let mut taken = self.known(host).taken.subscribe();
        // The sender lives as long as this process.
        matches!(timeout(limit, taken.wait_for(|taken| has(taken, role, session))).await, Ok(Ok(_)))
    }

    /// When the agents of a host were last asked for what they have and answered, the longest ago of them; none: one has not since this process was started.
    #[must_use]
    pub fn at(&self, host: HostId) -> Option<Timestamp> {
        let known = self.known(host);
        let taken = known.taken.borrow();
        let times = AgentRole::ALL.iter().map(|role| taken.get(role).map(|(_, at)| *at));
        times.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Whether the last comparison of this kind was of the same, and found nothing to do.
    pub(crate) fn is_settled(&self, host: HostId, kind: OrphanKind, compared: u64) -> bool {
        let known = self.known(host);
        let settled = known.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.get(&kind) == Some(&compared)
    }

    /// This was compared, and there was nothing to do; none: there was.
    pub(crate) fn settle(&self, host: HostId, kind: OrphanKind, compared: Option<u64>) {
        let known = self.known(host);
        let mut settled = known.settled.lock().unwrap_or_else(PoisonError::into_inner);
        match compared {
            Some(compared) => settled.insert(kind, compared),
            None => settled.remove(&kind),
        };
    }

    /// Counts what was found not to be as it should be.
    pub(crate) fn drifted(&self, what: &'static str, count: usize) {
        let mut drift = self.drift.lock().unwrap_or_else(PoisonError::into_inner);
        *drift.entry(what).or_default() += count as u64;
    }

    /// What was found not to be as it should be since this process was started, by kind.
    #[must_use]
    pub fn drift(&self) -> Vec<(&'static str, u64)> {
        let drift = self.drift.lock().unwrap_or_else(PoisonError::into_inner);
        drift.iter().map(|(what, count)| (*what, *count)).collect()
    }

    /// What the last audit found wrong, by check.
    pub(crate) fn audited(&self, wrong: BTreeMap<&'static str, u64>) {
        *self.wrong.lock().unwrap_or_else(PoisonError::into_inner) = wrong;
    }

    /// What the last audit found wrong, by check; empty before the first one.
    #[must_use]
    pub fn wrong(&self) -> Vec<(&'static str, u64)> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.iter().map(|(check, count)| (*check, *count)).collect()
    }
}

fn has(taken: &Taken, role: AgentRole, session: SessionId) -> bool {
    taken.get(&role).is_some_and(|(of, _)| *of == session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_is_so_until_it_is_another() {
        let (inventories, host, other) = (Inventories::default(), HostId::random(), HostId::random());
        let is = |kind, compared| inventories.is_settled(host, kind, compared);
        assert!(!is(OrphanKind::Volume, 7));
        inventories.settle(host, OrphanKind::Volume, Some(7));
        assert!(is(OrphanKind::Volume, 7) && !is(OrphanKind::Volume, 8) && !is(OrphanKind::Vpc, 7));
        assert!(!inventories.is_settled(other, OrphanKind::Volume, 7));
        inventories.settle(host, OrphanKind::Volume, None);
        assert!(!is(OrphanKind::Volume, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn an_inventory_is_of_one_run_of_an_agent() {
        let inventories = Inventories::default();
        let (host, first, second) = (HostId::random(), SessionId::random(), SessionId::random());
        let limit = Duration::from_secs(1);
        assert!(!inventories.wait(host, AgentRole::Compute, first, limit).await);
        inventories.taken(host, AgentRole::Compute, first, Timestamp(7));
        assert!(inventories.wait(host, AgentRole::Compute, first, limit).await);
        assert!(!inventories.wait(host, AgentRole::Compute, second, limit).await, "another run");
        assert!(!inventories.wait(host, AgentRole::Storage, first, limit).await, "another agent");
        assert_eq!(inventories.at(host), None, "the others have not said anything");
        inventories.taken(host, AgentRole::Storage, first, Timestamp(5));
        inventories.taken(host, AgentRole::Network, first, Timestamp(6));
        assert_eq!(inventories.at(host), Some(Timestamp(5)), "all of it is at least as new as that");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_before_anybody_looks_is_not_lost() {
        let inventories = Inventories::default();
        let host = HostId::random();
        inventories.again(host);
        inventories.unwatched().await;
        assert!(inventories.begin(host), "the first one hurries");
        inventories.asked(host).await;
        assert!(!inventories.begin(host));
        inventories.failed(host);
        assert!(inventories.begin(host));
    }
}
