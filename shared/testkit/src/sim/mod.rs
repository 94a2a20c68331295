//! A simulated host: three agents that implement the tonic server traits of `cloud.agent.v1`, over a model of what a hypervisor, a pool and a
//! switch would hold.
//!
//! # Theory of operation
//!
//! The gateway cannot tell it from a real host: it speaks over real unix sockets, registers, sends heartbeats and follows the contract's
//! comments to the letter. What makes it useful for tests is what a real host cannot do on demand: [`Faults`] make any call slow, fail
//! before or after its work, or hang; agents are killed and started ([`SimHost::restart_agent`]); the power fails
//! ([`SimHost::power_off`]); the network is cut ([`SimHost::cut_network`]); things vanish by hand ([`SimHost::remove_domain`] and the
//! like).
//!
//! Two layers keep this honest. The **model** (`model.rs`, and `domains.rs`, `volumes.rs`, `vpcs.rs` with the rules) outlives the agents, as libvirt
//! and a disk outlive a daemon; it is changed by synchronous functions under one lock. An **agent** (`agent.rs`) is one session: killing it drops
//! every task and connection it has, and its successor has a new session id, knows nothing of earlier calls, and finds the model as it was.
//!
//! The model also watches its gateway: what a correct one never brings about, such as a volume used by two running guests, an address
//! plugged twice or more memory promised than there is, is recorded in [`SimHost::violations`]. Tests assert that it is empty, and
//! that [`SimHost::leftovers`] is empty once everything is deleted.

mod agent;
mod compute;
mod domains;
mod faults;
mod fence;
mod host;
mod leftovers;
mod method;
mod model;
mod network;
mod register;
mod serve;
mod snapshots;
mod status;
mod storage;
mod volumes;
mod vpcs;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cloud_contracts::agent::{PowerState, StateReason};
use tokio::sync::{Notify, watch};
use tonic::transport::Endpoint;

pub use faults::{Effect, Faults, Rule};
pub use leftovers::Leftovers;
pub use method::{Method, Role};
pub use model::{Domain, SimImage, SimSnapshot, SimVolume, SimVpc, Snapshot};
pub use status::reason;

use agent::Running;
use host::{Settings, Shared};
use model::Model;

/// What a simulated host offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimCapacity {
    /// Processors.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The pool's size in bytes.
    pub pool_bytes: u64,
}

impl Default for SimCapacity {
    fn default() -> Self {
        Self { vcpus: 64, memory_mib: 256 << 10, pool_bytes: 4 << 40 }
    }
}

/// How to make a simulated host.
#[derive(Debug, Clone)]
pub struct SimHostConfig {
    /// The host's name, unique in the cloud.
    pub name: String,
    /// Where the sockets are made.
    pub dir: PathBuf,
    /// The gateways' `HostService`s, such as `unix:/run/host.sock`. An agent speaks to one of them, and to the next one when that does not
    /// answer. None: the host tells nobody that it lives.
    pub gateways: Vec<String>,
    /// What it offers.
    pub capacity: SimCapacity,
    /// How many vCPUs per processor the gateway may promise; more is a violation.
    pub cpu_overcommit: u32,
    /// How long guests take to shut down when asked; `None`: they never do.
    pub guest_shutdown: Option<Duration>,
    /// What the faults' probabilities are drawn from.
    pub seed: u64,
}

impl SimHostConfig {
    /// A large host whose guests shut down within 20 ms.
    #[must_use]
    pub fn new(name: impl Into<String>, dir: impl Into<PathBuf>, gateways: impl IntoIterator<Item = String>) -> Self {
        Self {
            name: name.into(),
            dir: dir.into(),
            gateways: gateways.into_iter().collect(),
            capacity: SimCapacity::default(),
            cpu_overcommit: 8,
            guest_shutdown: Some(Duration::from_millis(20)),
            seed: 1,
        }
    }
}

/// A simulated host. Dropping it is pulling its plug.
#[derive(Debug)]
pub struct SimHost {
    shared: Arc<Shared>,
    running: Mutex<Running>,
}

impl SimHost {
    /// Starts a host and its three agents.
    ///
    /// # Errors
    /// A socket cannot be made, or a gateway's address is none.
    pub fn start(config: SimHostConfig) -> anyhow::Result<Self> {
        let channel = |address| anyhow::Ok(Endpoint::try_from(address)?.connect_lazy());
        let gateways = config.gateways.into_iter().map(channel).collect::<anyhow::Result<_>>()?;
        let shared = Shared {
            id: uuid::Uuid::new_v4().to_string(),
            pool_id: uuid::Uuid::new_v4().to_string(),
            faults: Faults::new(config.seed),
            guests: serve::Owned::default(),
            dir: config.dir,
            gateways,
            model: Mutex::new(Model::new(config.name.clone(), config.capacity, config.cpu_overcommit)),
            calls: Mutex::default(),
            traces: Mutex::default(),
            settings: Mutex::new(Settings {
                guest_shutdown: config.guest_shutdown,
                boot_id: uuid::Uuid::new_v4().to_string(),
            }),
            partitioned: watch::Sender::new(false),
            hurry: Notify::new(),
            name: config.name,
        };
        let host = Self { shared: Arc::new(shared), running: Mutex::default() };
        host.start_all()?;
        Ok(host)
    }

    fn start_all(&self) -> std::io::Result<()> {
        Role::ALL.into_iter().try_for_each(|role| self.start_agent(role))
    }

    fn agents(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What goes wrong on this host.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Where an agent is reached, such as `unix:/tmp/h1-compute.sock`.
    #[must_use]
    pub fn endpoint(&self, role: Role) -> String {
        format!("unix:{}", self.shared.socket(role).display())
    }

    /// The session id of the agent that runs, or ran last.
    #[must_use]
    pub fn session(&self, role: Role) -> String {
        self.shared.model().fences.of(role).session.clone()
    }

    /// What exists on the host now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.model().is.clone()
    }

    /// How many guests run. Cheaper than a [`snapshot`](Self::snapshot).
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.model().is.running()
    }

    /// Changes what exists on the host, as nobody who goes through the agents could.
    pub fn edit(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.shared.model().is);
    }

    /// What a guest does; `None`: it is not here. Cheaper than a [`snapshot`](Self::snapshot).
    #[must_use]
    pub fn power(&self, id: &str) -> Option<PowerState> {
        self.shared.model().is.domains.get(id).map(|d| d.power)
    }

    /// How often a method was called since the start, calls that failed included.
    #[must_use]
    pub fn calls(&self, method: Method) -> u64 {
        self.shared.calls().get(&method).copied().unwrap_or_default()
    }

    /// The `traceparent`s of the last calls of a method that had one.
    #[must_use]
    pub fn traceparents(&self, method: Method) -> Vec<String> {
        self.shared.traces().get(method.as_str()).into_iter().flatten().cloned().collect()
    }

    /// What a correct gateway never brings about, in the order it happened.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.model().violations.clone()
    }

    /// What exists that is no cached image.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers {
        Leftovers::of(&self.snapshot())
    }

    /// Starts an agent that was killed, with a new session; restarts one that runs.
    ///
    /// # Errors
    /// Its socket cannot be made.
    pub fn start_agent(&self, role: Role) -> std::io::Result<()> {
        self.agents().start(&self.shared, role)
    }

    /// Kills an agent as SIGKILL does. What it made stays.
    pub fn kill_agent(&self, role: Role) {
        self.agents().kill(role);
    }

    /// Kills an agent and starts it again.
    ///
    /// # Errors
    /// Its socket cannot be made.
    pub fn restart_agent(&self, role: Role) -> std::io::Result<()> {
        self.start_agent(role)
    }

    /// The power fails: agents are gone, guests are off, volumes stay.
    pub fn power_off(&self) {
        self.agents().kill_all();
        self.shared.model().power_off();
        self.shared.settings().boot_id = uuid::Uuid::new_v4().to_string();
    }

    /// The power is back: the agents start, guests stay off until they are started.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub fn power_on(&self) -> std::io::Result<()> {
        self.start_all()
    }

    /// Cuts the network to the gateway: calls hang, no heartbeat leaves. Guests go on.
    pub fn cut_network(&self) {
        self.shared.partitioned.send_replace(true);
    }

    /// Mends the network.
    pub fn mend_network(&self) {
        self.shared.partitioned.send_replace(false);
    }

    /// Changes what the host offers and tells the gateway at once.
    pub fn set_capacity(&self, capacity: SimCapacity) {
        self.shared.model().capacity = capacity;
        self.shared.hurry.notify_waiters();
    }

    /// Breaks an agent's backend with this error, or mends it, and tells the gateway at once. Calls answer UNAVAILABLE while it is broken.
    pub fn set_backend_error(&self, role: Role, error: Option<&str>) {
        self.shared.model().backend_errors[role.index()] = error.map(str::to_owned);
        self.shared.hurry.notify_waiters();
    }

    /// Whether guests refuse to release a disk that they are asked for.
    pub fn set_hold_disks(&self, hold: bool) {
        self.shared.model().hold_disks = hold;
    }

    /// Somebody changes the limits of a disk of a guest, past its agent.
    pub fn limit_disk(&self, instance: &str, volume: &str, total_iops_sec: u64, total_bytes_sec: u64) {
        if let Some(domain) = self.shared.model().is.domains.get_mut(instance) {
            for disk in domain.spec.disks.iter_mut().filter(|disk| disk.volume_id == volume) {
                (disk.total_iops_sec, disk.total_bytes_sec) = (total_iops_sec, total_bytes_sec);
            }
        }
    }

    /// How long guests take to shut down from now on; `None`: they never do.
    pub fn set_guest_shutdown(&self, time: Option<Duration>) {
        self.shared.settings().guest_shutdown = time;
    }

    /// A guest shuts itself down. False: it does not run here.
    #[must_use]
    pub fn shut_guest_down(&self, id: &str) -> bool {
        self.shared.model().end_domain(id, PowerState::Shutoff, StateReason::GuestShutdown, false)
    }

    /// A guest crashes. False: it does not run here.
    #[must_use]
    pub fn crash_guest(&self, id: &str) -> bool {
        self.shared.model().end_domain(id, PowerState::Crashed, StateReason::Crashed, false)
    }

    /// Somebody removes a domain by hand. False: there is none.
    #[must_use]
    pub fn remove_domain(&self, id: &str) -> bool {
        let mut model = self.shared.model();
        let was = model.is.domains.remove(id).is_some();
        model.changed(id);
        was
    }

    /// Somebody removes a volume by hand. False: there is none.
    #[must_use]
    pub fn remove_volume(&self, id: &str) -> bool {
        self.shared.model().is.volumes.remove(id).is_some()
    }

    /// Somebody puts a volume there by hand: one that was taken away, or one that nobody ordered. Its tag says which it is.
    pub fn put_volume(&self, volume: SimVolume) {
        self.shared.model().is.volumes.insert(volume.owner.resource_id.clone(), volume);
    }

    /// A guest is there that nobody ordered. Its tag says which it is.
    pub fn put_domain(&self, domain: Domain) {
        let mut model = self.shared.model();
        let id = domain.owner.resource_id.clone();
        model.is.domains.insert(id.clone(), domain);
        model.changed(&id);
    }

    /// Somebody unplugs a port by hand. False: there is none.
    #[must_use]
    pub fn remove_port(&self, id: &str) -> bool {
        self.shared.model().is.vpcs.values_mut().any(|v| v.plugged.remove(id).is_some())
    }

    /// Somebody wipes a VPC from the switch by hand. False: there is none.
    #[must_use]
    pub fn remove_vpc(&self, id: &str) -> bool {
        self.shared.model().is.vpcs.remove(id).is_some()
    }
}

#[cfg(test)]
mod tests;
