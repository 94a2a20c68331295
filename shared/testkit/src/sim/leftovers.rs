//! What is left on a host.

use std::fmt;

use super::Snapshot;

/// Ids of what exists on a host beside cached images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Guests, in whatever state.
    pub domains: Vec<String>,
    /// Volumes.
    pub volumes: Vec<String>,
    /// Snapshots.
    pub snapshots: Vec<String>,
    /// Plugged ports.
    pub ports: Vec<String>,
    /// VPCs.
    pub vpcs: Vec<String>,
}

impl Leftovers {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        Self {
            domains: snapshot.domains.keys().cloned().collect(),
            volumes: snapshot.volumes.keys().cloned().collect(),
            snapshots: snapshot.snapshots.keys().cloned().collect(),
            ports: snapshot.vpcs.values().flat_map(|v| v.plugged.keys().cloned()).collect(),
            vpcs: snapshot.vpcs.keys().cloned().collect(),
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domains, volumes, snapshots, ports, vpcs } = self;
        write!(f, "domains {domains:?}, volumes {volumes:?}, snapshots {snapshots:?}, ports {ports:?}, VPCs {vpcs:?}")
    }
}
