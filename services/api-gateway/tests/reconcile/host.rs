//! A host in memory behind the core's backend ports. It keeps the agents' contract (ensure, fence, refuse), can fail or fall silent at any
//! call, before or after the call took effect, and writes down what must never happen.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use cloud_core::{
    model::Timestamp,
    ports::{BackendError, DiskSpec, Guest, GuestPower, GuestReason, GuestSpec, GuestTarget},
};
use cloud_domain::{DiskLimits, ImageId, Incarnation, InstanceId, PortId, SnapshotId, VolumeId, VpcId};
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

#[path = "backends.rs"]
mod backends;

/// What goes wrong at a call, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call does not arrive.
    Lost,
    /// It is carried out, and its answer does not arrive.
    AnswerLost,
    /// The gateway is killed before the call arrives.
    KilledBefore,
    /// The gateway is killed after the call is carried out, before it hears of it.
    KilledAfter,
}

impl Fault {
    pub const ALL: [Self; 4] = [Self::Lost, Self::AnswerLost, Self::KilledBefore, Self::KilledAfter];
}

#[derive(Debug, Clone)]
pub struct Domain {
    pub incarnation: Incarnation,
    pub power: GuestPower,
    pub reason: GuestReason,
    pub boot_generation: u64,
    pub disks: Vec<VolumeId>,
    /// Of its disks.
    pub limits: BTreeMap<VolumeId, DiskLimits>,
    pub ports: Vec<PortId>,
    pub started_at: Timestamp,
    pub record: String,
}

impl Domain {
    fn is_active(&self) -> bool {
        matches!(self.power, GuestPower::Running | GuestPower::Paused)
    }
}

#[derive(Debug, Default)]
pub struct State {
    pub domains: BTreeMap<InstanceId, Domain>,
    /// Whether a guest was ever started on it.
    pub volumes: BTreeMap<VolumeId, bool>,
    /// Snapshots, by the volumes that they are of.
    pub snapshots: BTreeMap<SnapshotId, VolumeId>,
    /// What volumes have grown to, in bytes.
    pub grown: BTreeMap<VolumeId, u64>,
    /// What guests were told of it.
    pub told: BTreeMap<VolumeId, u64>,
    /// Calls that are refused once, each for something that passes.
    pub stumbles: Vec<&'static str>,
    /// Guests do not release disks.
    pub hold_disks: bool,
    /// Its pool is full: nothing grows.
    pub full: bool,
    pub images: BTreeSet<ImageId>,
    pub vpcs: BTreeMap<VpcId, (u64, BTreeSet<PortId>)>,
    /// How many subnets it was last told of.
    pub subnets: BTreeMap<VpcId, usize>,
    /// Calls that change something or ask for one guest, in order.
    pub calls: Vec<&'static str>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// At which call what goes wrong.
    pub fault: Option<(usize, Fault)>,
    /// The background's commits, in order: where each was made.
    pub commits: Vec<String>,
    /// At which commit of those made in a place what goes wrong.
    pub commit_fault: Option<(String, usize, Fault)>,
    /// At the next call of this name.
    pub call_fault: Option<(&'static str, Fault)>,
    /// Every change is asked for twice.
    pub twice: bool,
    /// Guests do not follow a request to shut down.
    pub deaf: bool,
    /// What starting a guest comes to instead.
    pub start: Option<Start>,
    /// Images never arrive.
    pub images_stall: bool,
    /// The host does not say what it has.
    pub silent: bool,
    /// It is off, or to be: its agents say nothing.
    pub off: bool,
    newest: HashMap<Uuid, u64>,
    left: HashMap<VpcId, u64>,
    written: BTreeSet<VolumeId>,
}

/// What starting a guest comes to.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    Fails,
    Pauses,
}

/// A host.
pub struct FakeHost {
    state: Mutex<State>,
    changes: broadcast::Sender<InstanceId>,
    /// The gateway is to be killed.
    pub kill: Notify,
}

type Answer<T> = Result<T, BackendError>;

impl FakeHost {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changes: broadcast::Sender::new(1024), kill: Notify::new() })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What a list is made of. Lists are not counted as calls: how many there are depends on time alone.
    fn listable(&self) -> Answer<MutexGuard<'_, State>> {
        let state = self.state();
        if state.silent {
            return Err(BackendError::Unreachable("the host does not say what it has".into()));
        }
        Ok(state)
    }

    pub fn changed(&self, id: InstanceId) {
        let _ = self.changes.send(id);
    }

    /// What goes wrong at a commit made in this place.
    pub fn strikes(&self, place: String) -> Option<Fault> {
        let mut state = self.state();
        let before = state.commits.iter().filter(|p| **p == place).count();
        let fault = state.commit_fault.take_if(|(at, nth, _)| *at == place && *nth == before);
        state.commits.push(place);
        fault.map(|(_, _, fault)| fault)
    }

    async fn call<T>(&self, name: &'static str, work: impl Fn(&mut State) -> Answer<T> + Send) -> Answer<T> {
        let lost = || Err(BackendError::Unreachable("the host does not answer".into()));
        let fault = {
            let mut state = self.state();
            state.calls.push(name);
            let now = state.calls.len() - 1;
            let named = state.call_fault.take_if(|(at, _)| *at == name).map(|(_, fault)| fault);
            state.fault.take_if(|(at, _)| *at == now).map(|(_, fault)| fault).or(named)
        };
        match fault {
            Some(Fault::Lost) => return lost(),
            Some(Fault::KilledBefore) => {}
            _ => {
                let mut state = self.state();
                if state.twice {
                    let _ = work(&mut state);
                }
                let done = work(&mut state);
                match fault {
                    None => return done,
                    Some(Fault::AnswerLost) => return lost(),
                    Some(_) => {}
                }
            }
        }
        self.kill.notify_one();
        std::future::pending().await
    }
}

impl State {
    fn fence(&mut self, id: Uuid, version: u64) -> Answer<()> {
        let newest = self.newest.entry(id).or_default();
        if version < *newest {
            return Err(BackendError::Stale(format!("version {version} came after {newest}")));
        }
        *newest = version;
        Ok(())
    }

    /// Whether this call is to be refused now.
    fn stumble(&mut self, name: &'static str) -> Answer<()> {
        match self.stumbles.iter().position(|call| *call == name) {
            None => Ok(()),
            Some(at) => {
                self.stumbles.remove(at);
                Err(BackendError::Precondition("not now".into()))
            }
        }
    }

    fn in_use(&self, id: VolumeId) -> bool {
        self.domains.values().any(|domain| domain.is_active() && domain.disks.contains(&id))
    }

    fn guest(&self, id: InstanceId) -> Option<Guest> {
        let domain = self.domains.get(&id)?;
        Some(Guest {
            id,
            incarnation: domain.incarnation,
            power: domain.power,
            reason: domain.reason,
            boot_generation: domain.boot_generation,
            started_at: Some(domain.started_at),
            volumes: domain.disks.clone(),
            limits: domain.limits.clone(),
        })
    }

    fn ensure(&mut self, target: GuestTarget, spec: &GuestSpec) -> Answer<()> {
        if let Some(domain) = self.domains.get_mut(&target.id) {
            if domain.incarnation == target.incarnation && domain.is_active() {
                domain.boot_generation = domain.boot_generation.max(spec.boot_generation);
                return Ok(());
            }
            if domain.is_active() {
                return Err(BackendError::Precondition("another incarnation runs".into()));
            }
            if domain.incarnation == target.incarnation
                && matches!(domain.reason, GuestReason::GuestShutdown | GuestReason::Destroyed | GuestReason::Crashed)
            {
                return Ok(());
            }
        }
        let (power, reason) = match self.start {
            Some(Start::Fails) => return Err(BackendError::Failed("the hypervisor cannot start it".into())),
            Some(Start::Pauses) => (GuestPower::Paused, GuestReason::IoError),
            None => (GuestPower::Running, GuestReason::Unknown),
        };
        for disk in &spec.disks {
            self.open(target.id, disk.volume)?;
        }
        let plugged = |port: &PortId| self.vpcs.values().any(|(_, ports)| ports.contains(port));
        if let Some(nic) = spec.nics.iter().find(|n| !plugged(&n.port)) {
            return Err(BackendError::Precondition(format!("port {} is missing", nic.port)));
        }
        let domain = Domain {
            incarnation: target.incarnation,
            power,
            reason,
            boot_generation: spec.boot_generation,
            disks: spec.disks.iter().map(|d| d.volume).collect(),
            limits: spec.disks.iter().map(|d| (d.volume, d.limits)).collect(),
            ports: spec.nics.iter().map(|n| n.port).collect(),
            started_at: Timestamp::now(),
            record: spec.record.clone(),
        };
        self.domains.insert(target.id, domain);
        Ok(())
    }

    /// A guest opens a disk and writes to it.
    fn open(&mut self, guest: InstanceId, disk: VolumeId) -> Answer<()> {
        let Some(written) = self.volumes.get_mut(&disk) else {
            return Err(BackendError::Precondition(format!("disk {disk} is missing")));
        };
        *written = true;
        self.written.insert(disk);
        let other = self.domains.iter().find(|(id, d)| **id != guest && d.is_active() && d.disks.contains(&disk));
        if let Some((other, _)) = other {
            self.violations.push(format!("volume {disk} is open in {other} and in {guest}"));
        }
        Ok(())
    }

    fn attach(&mut self, guest: InstanceId, disk: &DiskSpec, record: &str) -> Answer<()> {
        if !self.domains.get(&guest).is_some_and(Domain::is_active) {
            return Err(BackendError::Precondition("it does not run".into()));
        }
        self.stumble("compute.attach_disk")?;
        self.open(guest, disk.volume)?;
        if let Some(domain) = self.domains.get_mut(&guest) {
            if !domain.disks.contains(&disk.volume) {
                domain.disks.push(disk.volume);
            }
            domain.limits.insert(disk.volume, disk.limits);
            record.clone_into(&mut domain.record);
        }
        Ok(())
    }

    fn detach(&mut self, guest: InstanceId, disk: VolumeId, record: &str) {
        let hold = self.hold_disks;
        if let Some(domain) = self.domains.get_mut(&guest).filter(|domain| !(hold && domain.is_active())) {
            domain.disks.retain(|has| *has != disk);
            domain.limits.remove(&disk);
            record.clone_into(&mut domain.record);
        }
    }

    fn plug(&mut self, vpc: VpcId, generation: u64, ports: BTreeSet<PortId>) {
        let before = self.vpcs.get(&vpc).map(|(_, p)| p.clone()).unwrap_or_default();
        for gone in before.difference(&ports) {
            if self.domains.values().any(|d| d.is_active() && d.ports.contains(gone)) {
                self.violations.push(format!("port {gone} was unplugged from a running guest"));
            }
        }
        if ports.is_empty() {
            self.vpcs.remove(&vpc);
        } else {
            self.vpcs.insert(vpc, (generation, ports));
        }
    }
}
