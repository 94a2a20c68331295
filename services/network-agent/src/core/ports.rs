//! What the core needs from outside: a switch and network devices.

use std::{collections::BTreeMap, error::Error, time::SystemTime};

use async_trait::async_trait;
use cloud_domain::{CloudId, InstanceId, PortId, Vni, VpcId};

use super::{
    diff::Change,
    error::EngineError,
    flow::{Flow, OfPort},
    model::{Order, VpcSlice},
};

/// The cause of an error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why the switch or the devices did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// It does not answer; the same may succeed later.
    #[error("{what}")]
    Unavailable {
        /// What does not answer.
        what: String,
        /// Why.
        #[source]
        source: Option<BoxError>,
    },
    /// It belongs to someone else.
    #[error("{0}")]
    Refused(String),
    /// It answered, and did not do it.
    #[error("{what}")]
    Failed {
        /// What did not work.
        what: String,
        /// Why.
        #[source]
        source: Option<BoxError>,
    },
}

impl BackendError {
    /// It does not answer.
    pub fn unavailable(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Unavailable { what: what.into(), source: Some(source.into()) }
    }

    /// It did not do it.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), source: None }
    }

    /// It did not do it, and here is why.
    pub fn failed_by(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Failed { what: what.into(), source: Some(source.into()) }
    }
}

/// A port to be plugged into the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPort {
    /// The network device; it exists.
    pub device: String,
    /// The port number it gets.
    pub ofport: OfPort,
    /// The NIC.
    pub port: PortId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its VPC's identifier.
    pub vni: Vni,
    /// Whose it is.
    pub instance: InstanceId,
}

/// A port of a guest as the switch has it, with our tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchPort {
    /// The network device.
    pub device: String,
    /// The port number; none while the switch cannot use the device.
    pub ofport: Option<OfPort>,
    /// The switch's complaint, if any.
    pub error: Option<String>,
    /// The NIC.
    pub port: PortId,
    /// Its VPC.
    pub vpc: VpcId,
}

/// A change of the switch's configuration; all of it at once or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortChange {
    /// Ports to make.
    pub plug: Vec<NewPort>,
    /// Ports to remove, by device; what is gone is success.
    pub unplug: Vec<String>,
    /// A VPC to note on the bridge, or to strike out (no identifier).
    pub note: Option<(VpcId, Option<Vni>)>,
}

/// The switch of this host.
#[async_trait]
pub trait Switch: Send + Sync {
    /// Makes the integration bridge with the ports that are not guests', or adopts the one that is there. Adopting changes no flow.
    ///
    /// # Errors
    /// `Refused` where a bridge of that name is not this cloud's.
    async fn ensure_bridge(&self, cloud: CloudId) -> Result<(), BackendError>;

    /// This cloud's ports, by NIC.
    async fn ports(&self, cloud: CloudId) -> Result<BTreeMap<PortId, SwitchPort>, BackendError>;

    /// The VPCs noted on the bridge.
    async fn vpcs(&self) -> Result<BTreeMap<VpcId, Vni>, BackendError>;

    /// Changes ports and waits until the switch has done it. Says nothing of whether a port works: see [`Self::ports`].
    async fn change_ports(&self, cloud: CloudId, change: PortChange) -> Result<(), BackendError>;

    /// All flows of the bridge.
    async fn flows(&self) -> Result<Vec<Flow>, BackendError>;

    /// How many flows the bridge has.
    async fn flow_count(&self) -> Result<usize, BackendError>;

    /// Changes flows, all at once or nothing, and waits until the switch forwards by them.
    async fn change_flows(&self, change: &Change) -> Result<(), BackendError>;

    /// Gives up every port of this cloud and the bridge itself. For taking a host apart.
    async fn remove_bridge(&self, cloud: CloudId) -> Result<(), BackendError>;
}

/// The network device of a NIC, called [`PortId::tap_device`]. It carries its owner as a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The cloud that made it.
    pub cloud: CloudId,
    /// The NIC's VPC.
    pub vpc: VpcId,
    /// The NIC.
    pub port: PortId,
    /// Bytes in one packet.
    pub mtu: u16,
}

/// The network devices of NICs: taps, outside of tests.
#[async_trait]
pub trait Devices: Send + Sync {
    /// Makes those that are missing, up, with their MTU, and deaf towards the host's own network stack; gives existing ones the MTU.
    ///
    /// # Errors
    /// `Refused` where a device of that name has another owner.
    async fn ensure(&self, devices: &[Device]) -> Result<(), BackendError>;

    /// The devices of a cloud.
    async fn list(&self, cloud: CloudId) -> Result<Vec<Device>, BackendError>;

    /// Removes them; what is gone is success.
    async fn remove(&self, devices: &[Device]) -> Result<(), BackendError>;
}

/// A NIC of this host, plugged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluggedPort {
    /// The NIC.
    pub port: PortId,
    /// The device a hypervisor uses.
    pub device: String,
    /// The switch port number.
    pub ofport: OfPort,
}

/// What a host has of a VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcState {
    /// The VPC.
    pub vpc: VpcId,
    /// Its virtual network identifier.
    pub vni: Vni,
    /// What was last applied; zero where the agent was restarted since.
    pub order: Order,
    /// The local NICs.
    pub ports: Vec<PluggedPort>,
}

/// The networks of a host: the primary port of this agent.
#[async_trait]
pub trait NetworkBackend: Send + Sync {
    /// Makes the host agree with a slice. Success means that the switch forwards by it.
    async fn apply(&self, cloud: CloudId, slice: VpcSlice) -> Result<Vec<PluggedPort>, EngineError>;

    /// Forgets a VPC: its ports, devices and flows.
    async fn remove(&self, cloud: CloudId, vpc: VpcId, order: Order) -> Result<(), EngineError>;

    /// What the switch has, and what is remembered of it.
    async fn list(&self) -> Result<Vec<VpcState>, EngineError>;
}

/// How the backend does, for heartbeats.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Why it does not work; none: it does.
    pub error: Option<String>,
    /// When a slice was last applied.
    pub applied_at: Option<SystemTime>,
    /// VPCs remembered.
    pub vpcs: usize,
    /// Flows installed.
    pub flows: usize,
    /// Flows found missing, wrong or too many when the switch was compared, and mended.
    pub repairs: usize,
}
