//! What exists on a simulated host: the model that its three agents share. It outlives restarts of the agents, as libvirt, a pool and a switch
//! outlive those of the daemons. Plain data behind one lock that is never held over an await.

use std::{collections::BTreeMap, time::SystemTime};

use cloud_contracts::agent::{
    DiskSpec, DiskState, InstanceSpec, InstanceState, Owner, PortSlice, PowerState, StateReason, SubnetSlice,
    volume_spec::Source,
};
use tokio::sync::broadcast;

use super::{Role, SimCapacity, fence::Fences};

/// A guest.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Its tag.
    pub owner: Owner,
    /// As last ensured, with the disks that it has now.
    pub spec: InstanceSpec,
    /// What it does.
    pub power: PowerState,
    /// Why.
    pub reason: StateReason,
    /// The boot generation last carried out.
    pub boot_generation: u64,
    /// When this incarnation was started.
    pub started_at: Option<SystemTime>,
    /// How many times it was started on this host.
    pub starts: u32,
    /// How many times it was rebooted by a higher boot generation.
    pub reboots: u32,
    /// Whether it was asked to shut down and has not yet.
    pub shutting_down: bool,
    /// What it wrote to its serial console.
    pub console: Vec<u8>,
    /// The sizes in bytes that it was told its disks have grown to, by volume.
    pub grown: BTreeMap<String, u64>,
}

impl Domain {
    /// Whether it holds processors and memory.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.power, PowerState::Running | PowerState::Paused)
    }

    /// Whether it ended by itself or was powered off on request: what follows is the gateway's decision, which it says with a new
    /// incarnation. One that is off for no reason of its own (after a power failure, say) is started by the next ensuring call.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !self.is_active()
            && matches!(self.reason, StateReason::GuestShutdown | StateReason::Destroyed | StateReason::Crashed)
    }

    /// On the wire.
    #[must_use]
    pub fn state(&self) -> InstanceState {
        InstanceState {
            owner: Some(self.owner.clone()),
            power: self.power.into(),
            reason: self.reason.into(),
            boot_generation: self.boot_generation,
            started_at: self.started_at.map(Into::into),
            volume_ids: self.spec.disks.iter().map(|disk| disk.volume_id.clone()).collect(),
            disks: self.spec.disks.iter().filter(|_| self.is_active()).map(disk_state).collect(),
        }
    }

    pub(crate) fn end(&mut self, power: PowerState, reason: StateReason) {
        self.power = power;
        self.reason = reason;
        self.shutting_down = false;
    }
}

fn disk_state(disk: &DiskSpec) -> DiskState {
    DiskState {
        volume_id: disk.volume_id.clone(),
        total_iops_sec: disk.total_iops_sec,
        total_bytes_sec: disk.total_bytes_sec,
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq)]
pub struct SimVolume {
    /// Its tag.
    pub owner: Owner,
    /// Bytes a guest sees.
    pub size_bytes: u64,
    /// Bytes it was made with.
    pub created_size_bytes: u64,
    /// What it was made from.
    pub source: Option<Source>,
    /// The image that its file stands on: its source's, where that is a copy of one.
    pub image_id: Option<String>,
    /// Its pool.
    pub pool: String,
    /// Where a hypervisor opens it.
    pub path: String,
    /// How many times a volume was made under this id; more than one means that data was lost.
    pub created: u32,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SimSnapshot {
    /// Its tag.
    pub owner: Owner,
    /// The volume it is of.
    pub volume_id: String,
    /// Bytes a guest would see.
    pub size_bytes: u64,
    /// The image that it stands on.
    pub image_id: Option<String>,
    /// How many times one was taken under this id; more than one means that its moment was lost.
    pub taken: u32,
}

/// An image in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct SimImage {
    /// `qcow2` or `raw`.
    pub format: String,
    /// Bytes as imported.
    pub size_bytes: u64,
    /// Bytes a guest sees.
    pub virtual_size_bytes: u64,
    /// SHA-256 of the bytes as imported.
    pub sha256: String,
}

/// A VPC's slice.
#[derive(Debug, Clone, PartialEq)]
pub struct SimVpc {
    /// Its tag.
    pub owner: Owner,
    /// Its virtual network identifier.
    pub vni: u32,
    /// Bytes in a packet.
    pub mtu: u32,
    /// Epoch and generation last applied; `None` after a restart of the agent.
    pub applied: Option<(u64, u64)>,
    /// Its subnets.
    pub subnets: Vec<SubnetSlice>,
    /// Its ports here and elsewhere.
    pub ports: Vec<PortSlice>,
    /// The local ports that are plugged: port id to tap device and switch port number.
    pub plugged: BTreeMap<String, (String, u32)>,
}

/// Everything that exists on a simulated host.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Guests, by instance id.
    pub domains: BTreeMap<String, Domain>,
    /// Volumes, by id.
    pub volumes: BTreeMap<String, SimVolume>,
    /// Snapshots, by id.
    pub snapshots: BTreeMap<String, SimSnapshot>,
    /// Cached images, by id.
    pub images: BTreeMap<String, SimImage>,
    /// VPCs, by id.
    pub vpcs: BTreeMap<String, SimVpc>,
}

impl Snapshot {
    /// The ports plugged on this host, in all VPCs.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.vpcs.values().map(|v| v.plugged.len()).sum()
    }

    /// The guests that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.domains.values().filter(|d| d.power == PowerState::Running).count()
    }
}

/// The model and what the agents know beside it.
#[derive(Debug)]
pub(crate) struct Model {
    pub host: String,
    pub capacity: SimCapacity,
    pub cpu_overcommit: u32,
    pub is: Snapshot,
    pub fences: Fences,
    /// Guests do not release disks.
    pub hold_disks: bool,
    /// What a correct gateway never brings about.
    pub violations: Vec<String>,
    /// Ids under which a volume was made before, with how often.
    pub made_volumes: BTreeMap<String, u32>,
    /// The same of snapshots.
    pub taken_snapshots: BTreeMap<String, u32>,
    pub backend_errors: [Option<String>; 3],
    pub next_ofport: u32,
    pub changes: broadcast::Sender<String>,
}

impl Model {
    pub fn new(host: String, capacity: SimCapacity, cpu_overcommit: u32) -> Self {
        Self {
            host,
            capacity,
            cpu_overcommit,
            is: Snapshot::default(),
            fences: Fences::default(),
            hold_disks: false,
            violations: Vec::new(),
            made_volumes: BTreeMap::new(),
            taken_snapshots: BTreeMap::new(),
            backend_errors: [None, None, None],
            next_ofport: 1,
            changes: broadcast::Sender::new(4096),
        }
    }

    /// Whether an object is this cloud's. Before the agents know their cloud, nothing is.
    pub fn is_ours(&self, owner: &Owner) -> bool {
        self.fences.cloud().is_some_and(|own| own == owner.cloud_id)
    }

    pub fn changed(&self, id: &str) {
        // Fails where nobody watches.
        let _unwatched = self.changes.send(id.to_owned());
    }

    pub fn violation(&mut self, what: String) {
        tracing::error!(host = %self.host, violation = %what);
        self.violations.push(what);
    }

    /// An agent of `role` starts: it has a new session and has forgotten every order of calls.
    pub fn start_session(&mut self, role: Role, session: String) {
        *self.fences.of(role) = super::fence::Fence::new(session);
        if role == Role::Network {
            for vpc in self.is.vpcs.values_mut() {
                vpc.applied = None;
            }
        }
    }

    /// The machine loses power: guests end and tap devices go; disks stay.
    pub fn power_off(&mut self) {
        for vpc in self.is.vpcs.values_mut() {
            vpc.plugged.clear();
        }
        for domain in self.is.domains.values_mut().filter(|d| d.is_active()) {
            domain.end(PowerState::Shutoff, StateReason::Unspecified);
        }
    }
}
