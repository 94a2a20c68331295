//! Which agents live, in memory: their sessions, and when they last gave a sign of life.
//!
//! Heartbeats are not written to the database, except where several gateways share it: then each tells the others, once a second, which agents
//! it hears. A gateway that starts knows the agents as they last registered, and blames none of them until one full timeout has passed in
//! which a heartbeat could have been received.

mod standing;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cloud_domain::{HostId, ImageId, SessionId};
use tokio::time::Instant;

use super::{Inventories, Strangers, placement::Recent};
use crate::{
    model::{AgentRole, Host, HostCapacity, HostMode, Labels, Timestamp},
    ports::HeardAgent,
};

pub use standing::{Facts, HostState};

/// Where an agent is, and which run of it calls are addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRef {
    /// `unix:/path` or `tcp:host:port`.
    pub endpoint: String,
    /// The run.
    pub session: SessionId,
}

/// How an agent does.
#[derive(Debug, Clone)]
pub struct AgentHealth {
    /// Which.
    pub role: AgentRole,
    /// Whether it gave a sign of life in time.
    pub reachable: bool,
    /// Its release.
    pub version: String,
    /// When it last did.
    pub last_heartbeat_at: Option<Timestamp>,
    /// What is wrong with its backend; empty: nothing.
    pub backend_error: String,
}

#[derive(Debug)]
struct Entry {
    agent: AgentRef,
    version: String,
    seen: Instant,
    seen_at: Option<Timestamp>,
    /// The last sign of life that the other gateways know of.
    shared: Option<Instant>,
    backend_error: String,
    load: [u32; 3],
}

#[derive(Debug, Default)]
struct HostEntry {
    name: String,
    /// Of the row that is known.
    version: u64,
    agents: BTreeMap<AgentRole, Entry>,
    /// What the database has of the host's capacity, coarsely.
    capacity: HostCapacity,
    /// The same as it was last written.
    offered: HostCapacity,
    mode: HostMode,
    mode_reason: String,
    labels: Labels,
    /// Images that are known to be there. Others may be too.
    images: HashSet<ImageId>,
}

impl HostEntry {
    fn take(&mut self, host: &Host) {
        // Rows are heard of in no order: what is written first may be told last.
        if host.meta.version <= self.version {
            return;
        }
        self.version = host.meta.version;
        self.name.clone_from(&host.meta.name);
        self.capacity = host.capacity.coarse();
        self.offered.clone_from(&host.capacity);
        self.mode = host.mode;
        self.mode_reason.clone_from(&host.mode_reason);
        self.labels.clone_from(&host.meta.labels);
    }
}

/// How far apart two pulses may be: they come every second. Further apart, this process did not run.
const FROZEN: Duration = Duration::from_secs(3);

/// When this process last proved to run, and since when it does without a break.
#[derive(Debug, Clone, Copy)]
struct Pulse {
    last: Instant,
    since: Instant,
}

/// One moment at which agents are looked at.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Instant,
    pulse: Option<Pulse>,
}

impl Moment {
    /// How long an agent has not been heard. Nothing could be heard while this process stood still.
    fn silence_of(self, agent: &Entry) -> Duration {
        match self.pulse {
            Some(pulse) if self.now.duration_since(pulse.last) > FROZEN => Duration::ZERO,
            Some(pulse) => self.now.duration_since(pulse.since.max(agent.seen)),
            None => self.now.duration_since(agent.seen),
        }
    }
}

/// The agents of all hosts.
#[derive(Debug)]
pub struct HostRegistry {
    timeout: Duration,
    hosts: Mutex<HashMap<HostId, HostEntry>>,
    pulse: Mutex<Option<Pulse>>,
    inventories: Inventories,
    strangers: Strangers,
    recent: Recent,
}

impl HostRegistry {
    /// An empty registry; an agent is silent after `timeout`.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            hosts: Mutex::default(),
            pulse: Mutex::default(),
            inventories: Inventories::default(),
            strangers: Strangers::default(),
            recent: Recent::default(),
        }
    }

    /// What is known of the hosts' inventories.
    #[must_use]
    pub const fn inventories(&self) -> &Inventories {
        &self.inventories
    }

    /// The networks of guests that no row knows.
    #[must_use]
    pub const fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    /// What placement's filters came to lately.
    pub(super) const fn recent(&self) -> &Recent {
        &self.recent
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, HostEntry>> {
        // Every critical section leaves the map whole, so a panic elsewhere does not spoil it.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that this process runs. Once this has begun, it must be said every second.
    pub(crate) fn pulse(&self) {
        let now = Instant::now();
        let mut pulse = self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        let since = pulse.filter(|p| now.duration_since(p.last) <= FROZEN).map_or(now, |p| p.since);
        *pulse = Some(Pulse { last: now, since });
    }

    fn moment(&self) -> Moment {
        let pulse = *self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        Moment { now: Instant::now(), pulse }
    }

    /// Takes over what the database remembers of a host, at start.
    pub fn remember(&self, host: &Host) {
        for (role, agent) in &host.agents {
            let reference = AgentRef { endpoint: agent.endpoint.clone(), session: agent.session };
            self.put(host.id(), &host.meta.name, *role, reference, &agent.version, None);
        }
        self.lock().entry(host.id()).or_default().take(host);
    }

    /// An agent registered.
    pub fn registered(&self, host: HostId, name: &str, role: AgentRole, agent: AgentRef, version: &str) {
        self.put(host, name, role, agent, version, Some(Timestamp::now()));
    }

    fn put(
        &self,
        host: HostId,
        name: &str,
        role: AgentRole,
        agent: AgentRef,
        version: &str,
        seen_at: Option<Timestamp>,
    ) {
        let mut hosts = self.lock();
        let entry = hosts.entry(host).or_default();
        name.clone_into(&mut entry.name);
        let version = version.to_owned();
        entry.agents.insert(
            role,
            Entry {
                agent,
                version,
                seen: Instant::now(),
                seen_at,
                shared: None,
                backend_error: String::new(),
                load: [0; 3],
            },
        );
    }

    /// Takes over what was written of a host, by whichever gateway.
    pub(crate) fn learn(&self, host: &Host) {
        if host.mode == HostMode::Removed {
            // Its agents are nobody's any more.
            self.lock().remove(&host.id());
        } else {
            self.lock().entry(host.id()).or_default().take(host);
        }
    }

    /// The agents that were heard here, since the other gateways were last told of it.
    pub(crate) fn heard(&self) -> Vec<HeardAgent> {
        let hosts = self.lock();
        let agents = hosts.iter().flat_map(|(host, h)| h.agents.iter().map(move |(role, a)| (*host, *role, a)));
        let news = agents.filter(|(_, _, a)| a.seen_at.is_some() && a.shared.is_none_or(|at| at < a.seen));
        let heard = |(host, role, a): (HostId, AgentRole, &Entry)| HeardAgent {
            host,
            role,
            session: a.agent.session,
            endpoint: a.agent.endpoint.clone(),
            version: a.version.clone(),
            age: a.seen.elapsed(),
            backend_error: a.backend_error.clone(),
            load: a.load,
        };
        news.map(heard).collect()
    }

    /// Takes over what some gateway heard of an agent, where that is newer than what is known here.
    pub(crate) fn told(&self, heard: HeardAgent) {
        let mut hosts = self.lock();
        let Some(host) = hosts.get_mut(&heard.host) else { return };
        let now = Instant::now();
        let seen = now.checked_sub(heard.age).unwrap_or(now);
        if host.agents.get(&heard.role).is_some_and(|known| known.seen_at.is_some() && known.seen >= seen) {
            if let Some(known) = host.agents.get_mut(&heard.role).filter(|k| k.agent.session == heard.session) {
                known.shared = Some(known.shared.map_or(seen, |at| at.max(seen)));
            }
            return;
        }
        let agent = AgentRef { endpoint: heard.endpoint, session: heard.session };
        let seen_at = Some(Timestamp::now().minus(heard.age));
        let (version, backend_error, load) = (heard.version, heard.backend_error, heard.load);
        host.agents
            .insert(heard.role, Entry { agent, version, seen, seen_at, shared: Some(seen), backend_error, load });
    }

    /// An agent gave a sign of life. False where this is not the session that is known: it must register.
    pub fn heartbeat(&self, host: HostId, role: AgentRole, session: SessionId, backend_error: &str) -> bool {
        let mut hosts = self.lock();
        let Some(entry) = hosts.get_mut(&host).and_then(|h| h.agents.get_mut(&role)) else { return false };
        // After a restart of the gateway a session is known from the database only: let it register again, so that what may have
        // happened meanwhile is looked at.
        if entry.agent.session != session || entry.seen_at.is_none() {
            return false;
        }
        entry.seen = Instant::now();
        entry.seen_at = Some(Timestamp::now());
        backend_error.clone_into(&mut entry.backend_error);
        true
    }

    /// An agent says what it offers. True where that is worth writing down.
    pub fn offers(&self, host: HostId, role: AgentRole, capacity: &HostCapacity) -> bool {
        let mut hosts = self.lock();
        let entry = hosts.entry(host).or_default();
        let mut now = entry.capacity.clone();
        now.take(role, capacity.coarse());
        let differs = now != entry.capacity;
        entry.capacity = now;
        entry.offered.take(role, capacity.clone());
        differs
    }

    /// Where an agent is; none where it never registered.
    #[must_use]
    pub fn agent(&self, host: HostId, role: AgentRole) -> Option<AgentRef> {
        self.lock().get(&host).and_then(|h| h.agents.get(&role)).map(|e| e.agent.clone())
    }

    /// How long an agent has been silent, where that is too long.
    #[must_use]
    pub fn silence(&self, host: HostId, role: AgentRole) -> Option<Duration> {
        let hosts = self.lock();
        let silence = self.moment().silence_of(hosts.get(&host)?.agents.get(&role)?);
        (silence > self.timeout).then_some(silence)
    }

    /// Whether what an agent offers differs from what is known.
    pub(super) fn differs(&self, host: HostId, role: AgentRole, capacity: &HostCapacity) -> bool {
        let hosts = self.lock();
        let Some(entry) = hosts.get(&host) else { return true };
        let mut now = entry.capacity.clone();
        now.take(role, capacity.coarse());
        now != entry.capacity
    }

    /// How a host's agents do.
    #[must_use]
    pub fn health(&self, host: HostId) -> Vec<AgentHealth> {
        let hosts = self.lock();
        let Some(entry) = hosts.get(&host) else { return Vec::new() };
        let moment = self.moment();
        let health = |(role, a): (&AgentRole, &Entry)| AgentHealth {
            role: *role,
            reachable: moment.silence_of(a) <= self.timeout,
            version: a.version.clone(),
            last_heartbeat_at: a.seen_at,
            backend_error: a.backend_error.clone(),
        };
        entry.agents.iter().map(health).collect()
    }

    /// A host's name; its id where it never registered.
    #[must_use]
    pub fn name(&self, host: HostId) -> String {
        self.lock().get(&host).map_or_else(|| host.to_string(), |h| h.name.clone())
    }

    /// How many hosts there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Every host: id and name.
    #[must_use]
    pub fn hosts(&self) -> Vec<(HostId, String)> {
        let mut all: Vec<_> = self.lock().iter().map(|(id, h)| (*id, h.name.clone())).collect();
        all.sort_by(|a, b| a.1.cmp(&b.1));
        all
    }
}

#[cfg(test)]
mod tests;
