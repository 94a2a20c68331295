//! What a project may have, and has.

use std::{collections::BTreeMap, fmt};

use cloud_domain::ProjectId;

use super::{Instance, Snapshot, Volume};

/// Something that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limited {
    /// Instances, from launch until they are DELETED.
    Instances,
    /// Virtual processors of instances, for as long as they are promised on a host: not only while they run.
    Vcpus,
    /// Memory of instances, in MiB, likewise.
    MemoryMib,
    /// Sizes of volumes, root disks included, until their data is gone.
    VolumeGib,
    /// Snapshots.
    Snapshots,
    /// VPCs, the default one included.
    Vpcs,
    /// Floating IPs.
    FloatingIps,
}

impl Limited {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Instances,
        Self::Vcpus,
        Self::MemoryMib,
        Self::VolumeGib,
        Self::Snapshots,
        Self::Vpcs,
        Self::FloatingIps,
    ];

    /// Its name in the contract, and of its columns in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Vcpus => "vcpus",
            Self::MemoryMib => "memory_mib",
            Self::VolumeGib => "volume_gib",
            Self::Snapshots => "snapshots",
            Self::Vpcs => "vpcs",
            Self::FloatingIps => "floating_ips",
        }
    }

    /// By its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.as_str() == name)
    }
}

/// Numbers by what is limited: limits, or amounts.
pub type Amounts = BTreeMap<Limited, u64>;

/// The number that as a limit means none.
pub const NO_LIMIT: u64 = i64::MAX as u64;

/// The limits of a project that has none of its own.
#[must_use]
pub fn default_limits() -> Amounts {
    Amounts::from([
        (Limited::Instances, 1_000),
        (Limited::Vcpus, 4_000),
        (Limited::MemoryMib, 8 << 20),
        (Limited::VolumeGib, 100_000),
        (Limited::Snapshots, 10_000),
        (Limited::Vpcs, 100),
        (Limited::FloatingIps, 100),
    ])
}

/// What an instance holds of its project's quota.
#[must_use]
pub fn held_by_instance(row: &Instance) -> Amounts {
    let mut held = Amounts::new();
    if row.meta.deleted_at.is_none() {
        held.insert(Limited::Instances, 1);
    }
    if row.holds_capacity {
        held.insert(Limited::Vcpus, row.vcpus.into());
        held.insert(Limited::MemoryMib, row.memory_mib.into());
    }
    held
}

/// What a volume holds of its project's quota.
#[must_use]
pub fn held_by_volume(row: &Volume) -> Amounts {
    if row.meta.deleted_at.is_some() {
        return Amounts::new();
    }
    // One that grows holds what it will have.
    let size = row.growing_to.map_or(row.size, |to| to.max(row.size));
    Amounts::from([(Limited::VolumeGib, u64::from(size.get()))])
}

/// What a snapshot holds of its project's quota.
#[must_use]
pub fn held_by_snapshot(row: &Snapshot) -> Amounts {
    if row.meta.deleted_at.is_some() {
        return Amounts::new();
    }
    Amounts::from([(Limited::Snapshots, 1)])
}

/// The quota of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The project.
    pub project: ProjectId,
    /// Its own limits; others are the defaults.
    pub limits: Amounts,
    /// What is used; all of them.
    pub used: Amounts,
}

/// A limit that does not suffice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What is limited.
    pub of: Limited,
    /// The limit.
    pub limit: u64,
    /// What is used of it.
    pub used: u64,
    /// What was asked for.
    pub asked: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, limit, used, asked } = self;
        write!(f, "{}: the limit is {limit}, {used} used, {asked} asked for", of.as_str())
    }
}
