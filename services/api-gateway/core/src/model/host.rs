//! Hosts, as their agents registered them.

use std::collections::BTreeMap;

use cloud_domain::{Daemon, HostId, SessionId};
use serde::{Deserialize, Serialize};

use super::{Meta, Timestamp, Value, meta::resource};
use crate::filter::{Field, FieldKind, ID, LABELS, NAME};

/// The three daemons of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentRole {
    /// compute-agent.
    Compute,
    /// storage-agent.
    Storage,
    /// network-agent.
    Network,
}

impl AgentRole {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Compute, Self::Storage, Self::Network];

    /// The role's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Storage => "storage",
            Self::Network => "network",
        }
    }
}

impl From<AgentRole> for Daemon {
    fn from(role: AgentRole) -> Self {
        match role {
            AgentRole::Compute => Self::Compute,
            AgentRole::Storage => Self::Storage,
            AgentRole::Network => Self::Network,
        }
    }
}

/// One agent, as it last registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Where it listens: `unix:/path` or `tcp:host:port`.
    pub endpoint: String,
    /// Random at its start. Calls are addressed to it.
    pub session: SessionId,
    /// Its release.
    pub version: String,
    /// When it registered.
    pub registered_at: Timestamp,
}

/// A place for volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Unique on its host.
    pub name: String,
    /// `directory` or `lvm-thin`.
    pub backend: String,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
}

/// What a host has, as its agents say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostCapacity {
    /// Processors, in threads.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// The hypervisor and its version.
    pub hypervisor: String,
    /// The guest architecture.
    pub architecture: String,
    /// Its pools.
    pub pools: Vec<Pool>,
    /// `system` or `netdev`.
    pub datapath: String,
    /// The switch and its version.
    pub switch_version: String,
    /// Where tunnels to it end.
    pub tunnel_address: String,
    /// Load averages over one, five and fifteen minutes, in hundredths. They move all the time: the row has them as of its last write.
    #[serde(default)]
    pub load: [u32; 3],
}

impl HostCapacity {
    /// Takes over the part that is the role's own.
    pub fn take(&mut self, role: AgentRole, from: Self) {
        match role {
            AgentRole::Compute => {
                self.vcpus = from.vcpus;
                self.memory_mib = from.memory_mib;
                self.accelerator = from.accelerator;
                self.hypervisor = from.hypervisor;
                self.architecture = from.architecture;
                self.load = from.load;
            }
            AgentRole::Storage => self.pools = from.pools,
            AgentRole::Network => {
                self.datapath = from.datapath;
                self.switch_version = from.switch_version;
                self.tunnel_address = from.tunnel_address;
            }
        }
    }

    /// The same, with free space in hundredths of its pool and without its load: they move all the time, and not every move is worth a write.
    #[must_use]
    pub fn coarse(&self) -> Self {
        let mut coarse = self.clone();
        coarse.load = [0; 3];
        for pool in &mut coarse.pools {
            pool.free_bytes = pool.free_bytes.checked_div(pool.total_bytes / 100).unwrap_or(0);
        }
        coarse
    }
}

/// What operators say of a host. What its agents say is not in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HostMode {
    /// Gets new instances.
    #[default]
    Active,
    /// Gets none.
    Cordoned,
    /// Gets none, and becomes CORDONED when it holds none.
    Draining,
    /// Declared dead.
    Fenced,
    /// No longer part of the cloud; its row is kept for good, so that its identity is never anybody's again.
    Removed,
}

impl HostMode {
    /// The name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Cordoned => "CORDONED",
            Self::Draining => "DRAINING",
            Self::Fenced => "FENCED",
            Self::Removed => "REMOVED",
        }
    }
}

/// What of a host may be promised. None: what the gateway is told for all hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostLimits {
    /// Virtual processors promised for 100 threads.
    pub vcpu_percent: Option<u32>,
    /// Memory promised for 100 MiB.
    pub memory_percent: Option<u32>,
    /// Threads that are not promised.
    pub vcpus_reserved: Option<u32>,
    /// Memory that is not promised, in MiB.
    pub memory_reserved_mib: Option<u64>,
}

/// A machine under the cloud. Its counters (what is promised to instances) are the store's alone: see `Tx::claim_capacity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What every row has.
    pub meta: Meta,
    /// Its agents.
    pub agents: BTreeMap<AgentRole, Agent>,
    /// What it has.
    pub capacity: HostCapacity,
    /// Its boot, to tell a restarted machine.
    pub boot_id: String,
    /// What operators say of it.
    #[serde(default)]
    pub mode: HostMode,
    /// Why, where there is more to say than who said so.
    #[serde(default)]
    pub mode_reason: String,
    /// Since when.
    #[serde(default)]
    pub mode_since: Timestamp,
    /// What of it may be promised.
    #[serde(default)]
    pub limits: HostLimits,
}

impl Host {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> HostId {
        self.meta.id.into()
    }
}

/// The field that the row holds a part of only: whether its agents answer is not in it. `HostService::list` looks at it.
pub(crate) const STATE: &str = "state";

/// What operators see of a host, in the contract's words.
const STATES: &[(&str, &str)] = &[
    ("UP", "UP"),
    ("UNREACHABLE", "UNREACHABLE"),
    ("CORDONED", "CORDONED"),
    ("DRAINING", "DRAINING"),
    ("FENCED", "FENCED"),
    ("REMOVED", "REMOVED"),
];

resource!(Host, Host, "hosts", |row| {
    "mode": Value::Text(row.mode.as_str().to_owned()),
}, fields: &[
    ID,
    NAME,
    LABELS,
    Field::new(STATE, FieldKind::Word(STATES), &["mode"]),
    Field::new("vcpus", FieldKind::Whole, &["capacity", "vcpus"]),
    Field::new("memory_mib", FieldKind::Whole, &["capacity", "memory_mib"]),
    Field::new("accelerator", FieldKind::Text, &["capacity", "accelerator"]),
    Field::new("hypervisor", FieldKind::Text, &["capacity", "hypervisor"]),
    Field::new("architecture", FieldKind::Text, &["capacity", "architecture"]),
    Field::new("datapath", FieldKind::Text, &["capacity", "datapath"]),
]);
