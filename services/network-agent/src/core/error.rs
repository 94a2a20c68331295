//! Why the host does not agree with a slice.

use cloud_domain::{PortId, Vni, VpcId};

use super::{flow::OfPort, model::Order, ports::BackendError};

/// Why a slice was not applied.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An older one than the host has seen.
    #[error("VPC {vpc}: {given} is older than {known}, which this host has seen already")]
    Stale {
        /// The VPC.
        vpc: VpcId,
        /// What came.
        given: Order,
        /// What is known.
        known: Order,
    },
    /// The VPC's identifier is another VPC's on this host, or was another one before.
    #[error("VPC {vpc}: virtual network identifier {vni} conflicts with VPC {other}, which has {theirs} on this host")]
    Vni {
        /// The VPC.
        vpc: VpcId,
        /// The identifier in the slice.
        vni: Vni,
        /// Who has it here; the VPC itself where it had another one before.
        other: VpcId,
        /// The identifier that one has.
        theirs: Vni,
    },
    /// A NIC belongs to another VPC here.
    #[error("port {port} is in VPC {vpc} on this host already")]
    PortTaken {
        /// The NIC.
        port: PortId,
        /// The VPC that has it.
        vpc: VpcId,
    },
    /// Other hosts are out of reach.
    #[error(
        "VPC {0} has ports on other hosts, and this host has no tunnel address: start its network-agent with --tunnel-address"
    )]
    NoTunnel(VpcId),
    /// No port number is left.
    #[error("this host has no free switch port number: {max} are in use", max = OfPort::MAX_GUEST)]
    Full,
    /// Of another cloud.
    #[error("{0}")]
    Cloud(String),
    /// No cloud is known yet.
    #[error("this host's network-agent is not registered with a gateway yet")]
    Unregistered,
    /// The agent is ending.
    #[error("the network-agent is shutting down")]
    Ending,
    /// The switch or a device.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
