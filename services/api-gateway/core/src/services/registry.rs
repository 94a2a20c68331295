//! Which agents live, in memory: their sessions, and when they last gave a sign of life.
//!
//! Heartbeats are not written to the database, except where several gateways share it: then each tells the others, once a second, which agents
//! it hears. A gateway that starts knows the agents as they last registered, and blames none of them until one full timeout has passed in
//! which a heartbeat could have been received.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cloud_domain::{HostId, SessionId};
use tokio::time::Instant;

use super::Inventories;
use crate::{
    model::{AgentRole, Host, HostCapacity, Timestamp},
    ports::HeardAgent,
};

/// What operators see of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// All three agents answer, and their backends work.
    Up,
    /// One does not.
    Unreachable,
}

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
}

#[derive(Debug, Default)]
struct HostEntry {
    name: String,
    agents: BTreeMap<AgentRole, Entry>,
    /// What the database has of the host's capacity, coarsely.
    capacity: HostCapacity,
}

/// How far apart two pulses may be: they come every second. Further apart, this process did not run.
const FROZEN: Duration = Duration::from_secs(3);

/// When this process last proved to run, and since when it does without a break.
#[derive(Debug, Clone, Copy)]
struct Pulse {
    last: Instant,
    since: Instant,
}

impl Pulse {
    /// How long something has not been heard that was last heard at `seen`. Nothing could be heard while this process stood still.
    fn silence(pulse: Option<Self>, seen: Instant) -> Duration {
        match pulse {
            Some(pulse) if pulse.last.elapsed() > FROZEN => Duration::ZERO,
            Some(pulse) => pulse.since.max(seen).elapsed(),
            None => seen.elapsed(),
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
}

impl HostRegistry {
    /// An empty registry; an agent is silent after `timeout`.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, hosts: Mutex::default(), pulse: Mutex::default(), inventories: Inventories::default() }
    }

    /// What is known of the hosts' inventories.
    #[must_use]
    pub const fn inventories(&self) -> &Inventories {
        &self.inventories
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

    fn silence_of(&self, entry: &Entry) -> Duration {
        Pulse::silence(*self.pulse.lock().unwrap_or_else(PoisonError::into_inner), entry.seen)
    }

    /// Takes over what the database remembers of a host, at start.
    pub fn remember(&self, host: &Host) {
        for (role, agent) in &host.agents {
            let reference = AgentRef { endpoint: agent.endpoint.clone(), session: agent.session };
            self.put(host.id(), &host.meta.name, *role, reference, &agent.version, None);
        }
        self.lock().entry(host.id()).or_default().capacity = host.capacity.coarse();
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
            Entry { agent, version, seen: Instant::now(), seen_at, shared: None, backend_error: String::new() },
        );
    }

    /// Takes over what another gateway wrote of a host: its name and what it has.
    pub(crate) fn learn(&self, host: &Host) {
        let mut hosts = self.lock();
        let entry = hosts.entry(host.id()).or_default();
        host.meta.name.clone_into(&mut entry.name);
        entry.capacity = host.capacity.coarse();
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
        let (version, backend_error) = (heard.version, heard.backend_error);
        host.agents.insert(heard.role, Entry { agent, version, seen, seen_at, shared: Some(seen), backend_error });
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
        let silence = self.silence_of(hosts.get(&host)?.agents.get(&role)?);
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

    /// A host's state, and why.
    #[must_use]
    pub fn state(&self, host: HostId) -> (HostState, String) {
        let hosts = self.lock();
        let Some(entry) = hosts.get(&host) else {
            return (HostState::Unreachable, "no agent has registered".to_owned());
        };
        let mut wrong = Vec::new();
        for role in AgentRole::ALL {
            match entry.agents.get(&role) {
                None => wrong.push(format!("the {}-agent has not registered", role.as_str())),
                Some(a) if self.silence_of(a) > self.timeout => {
                    wrong.push(format!(
                        "the {}-agent has been silent for {} s",
                        role.as_str(),
                        a.seen.elapsed().as_secs()
                    ));
                }
                Some(a) if !a.backend_error.is_empty() => {
                    wrong.push(format!("the {}-agent's backend does not work: {}", role.as_str(), a.backend_error));
                }
                // Its hypervisor is being looked at: until then there is nothing to promise.
                Some(_) if role == AgentRole::Compute && entry.capacity.vcpus == 0 => {
                    wrong.push("the compute-agent has not said yet what the host has".to_owned());
                }
                Some(_) => {}
            }
        }
        let state = if wrong.is_empty() { HostState::Up } else { HostState::Unreachable };
        (state, wrong.join("; "))
    }

    /// Whether a host is UP.
    #[must_use]
    pub fn is_up(&self, host: HostId) -> bool {
        self.state(host).0 == HostState::Up
    }

    /// How a host's agents do.
    #[must_use]
    pub fn health(&self, host: HostId) -> Vec<AgentHealth> {
        let hosts = self.lock();
        let Some(entry) = hosts.get(&host) else { return Vec::new() };
        let health = |(role, a): (&AgentRole, &Entry)| AgentHealth {
            role: *role,
            reachable: self.silence_of(a) <= self.timeout,
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

    /// Every host: id and name.
    #[must_use]
    pub fn hosts(&self) -> Vec<(HostId, String)> {
        let mut all: Vec<_> = self.lock().iter().map(|(id, h)| (*id, h.name.clone())).collect();
        all.sort_by(|a, b| a.1.cmp(&b.1));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(registry: &HostRegistry, host: HostId) {
        let capacity = HostCapacity { vcpus: 2, ..HostCapacity::default() };
        registry.offers(host, AgentRole::Compute, &capacity);
    }

    fn agent() -> AgentRef {
        AgentRef { endpoint: "unix:/x".into(), session: SessionId::random() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_is_up_while_all_three_agents_give_signs_of_life() {
        let registry = HostRegistry::new(Duration::from_secs(10));
        let host = HostId::random();
        let agents: Vec<_> = AgentRole::ALL.into_iter().map(|r| (r, agent())).collect();
        for (role, a) in &agents[..2] {
            registry.registered(host, "h1", *role, a.clone(), "0.1.0");
        }
        offer(&registry, host);
        assert_eq!(registry.state(host).1, "the network-agent has not registered");
        registry.registered(host, "h1", AgentRole::Network, agents[2].1.clone(), "0.1.0");
        assert!(registry.is_up(host));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(registry.heartbeat(host, AgentRole::Compute, agents[0].1.session, ""));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(
            registry.state(host).1,
            "the storage-agent has been silent for 11 s; the network-agent has been silent for 11 s"
        );
        assert!(
            !registry.heartbeat(host, AgentRole::Compute, SessionId::random(), ""),
            "another session must register"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_blames_nobody() {
        let registry = HostRegistry::new(Duration::from_secs(10));
        let host = HostId::random();
        for role in AgentRole::ALL {
            registry.registered(host, "h1", role, agent(), "0.1.0");
        }
        offer(&registry, host);
        registry.pulse();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(registry.is_up(host), "before it notices that it stood still");
        registry.pulse();
        assert!(registry.is_up(host), "and after");
        for _ in 0..11 {
            tokio::time::advance(Duration::from_secs(1)).await;
            registry.pulse();
        }
        assert!(!registry.is_up(host) && registry.silence(host, AgentRole::Compute).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_backend_makes_a_host_unreachable_and_is_named() {
        let registry = HostRegistry::new(Duration::from_secs(10));
        let host = HostId::random();
        for role in AgentRole::ALL {
            let a = agent();
            registry.registered(host, "h1", role, a.clone(), "0.1.0");
            registry.heartbeat(host, role, a.session, if role == AgentRole::Compute { "libvirt is down" } else { "" });
        }
        assert_eq!(
            registry.state(host),
            (HostState::Unreachable, "the compute-agent's backend does not work: libvirt is down".into())
        );
    }
}
