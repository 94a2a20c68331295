//! What a host is told about a VPC: its slice.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use cloud_domain::{Cidr, InstanceId, MacAddr, PortId, SubnetId, Vni, VpcId};

/// The virtual router's MAC address, the same in every subnet of every VPC (`02` marks it locally administered, the rest spells "cloud").
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x63, 0x6c, 0x6f, 0x75, 0x64];

/// The first four bytes of the addresses that name a guest's switch port on the way to and from the DHCP responder
/// (`02`, then "dhc"); the last two are the port number.
pub const DHCP_MAC_PREFIX: [u8; 4] = [0x02, 0x64, 0x68, 0x63];

/// Orders the states of one VPC: a restored database (`epoch`) comes before any count of changes (`generation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Order {
    /// Changes when the gateway's database is restored.
    pub epoch: u64,
    /// Goes up with every change of the VPC.
    pub generation: u64,
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch {}, generation {}", self.epoch, self.generation)
    }
}

/// The whole state of one VPC as far as this host takes part in it. Consistent: see [`VpcSlice::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcSlice {
    /// The VPC.
    pub vpc: VpcId,
    /// Its virtual network identifier.
    pub vni: Vni,
    /// How new the slice is.
    pub order: Order,
    /// Bytes a guest may send in one packet.
    pub mtu: u16,
    /// By id.
    pub subnets: BTreeMap<SubnetId, Subnet>,
    /// NICs, on this host and on others, by id.
    pub ports: BTreeMap<PortId, Port>,
}

/// A subnet of a VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The subnet.
    pub id: SubnetId,
    /// Its addresses.
    pub cidr: Cidr,
    /// The virtual router's address in it.
    pub gateway: Ipv4Addr,
    /// Resolvers told to guests.
    pub dns: Vec<Ipv4Addr>,
}

/// A NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The port.
    pub id: PortId,
    /// Where its address comes from.
    pub subnet: SubnetId,
    /// Whose it is.
    pub instance: InstanceId,
    /// The only MAC address it may use.
    pub mac: MacAddr,
    /// The only IP address it may use.
    pub ip: Ipv4Addr,
    /// The name told to the guest by DHCP; empty for none.
    pub hostname: String,
    /// Which host it is on.
    pub place: Place,
}

/// Which host a NIC is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This one.
    Local,
    /// Another one, whose tunnels end at this address.
    Remote(Ipv4Addr),
}

/// Why a slice cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Guests need 576 (RFC 791); an Ethernet frame ends at 9,216 or so.
    #[error("mtu is {0}, must be 576 to 9000")]
    Mtu(u32),
    /// An id twice.
    #[error("{0} is in the slice twice")]
    Twice(String),
    /// The router must be on the subnet.
    #[error("subnet {0}: gateway {1} is not an address of {2}")]
    Gateway(SubnetId, Ipv4Addr, Cidr),
    /// Routing between them would be ambiguous.
    #[error("subnets {0} and {1} overlap")]
    Overlap(SubnetId, SubnetId),
    /// A port of no subnet.
    #[error("port {0}: its subnet {1} is not in the slice")]
    NoSubnet(PortId, SubnetId),
    /// An address that no guest of the subnet can have.
    #[error("port {0}: {1} is not an address for guests of {2}")]
    Address(PortId, Ipv4Addr, Cidr),
    /// Two NICs with one IP address.
    #[error("ports {0} and {1} have the same address {2}")]
    SameAddress(PortId, PortId, Ipv4Addr),
    /// Two NICs with one MAC address.
    #[error("ports {0} and {1} have the same MAC address {2}")]
    SameMac(PortId, PortId, MacAddr),
    /// The router's or the DHCP responder's.
    #[error("port {0}: MAC address {1} is reserved")]
    ReservedMac(PortId, MacAddr),
    /// Not a host name label.
    #[error("port {0}: host name `{1}` is not a label of letters, digits and `-`")]
    Hostname(PortId, String),
    /// Two ports whose ids begin alike would share a device.
    #[error("ports {0} and {1} would share the device {2}")]
    SameDevice(PortId, PortId, String),
}

impl VpcSlice {
    /// A slice whose parts agree with each other.
    ///
    /// # Errors
    /// The first disagreement found.
    pub fn new(
        vpc: VpcId,
        vni: Vni,
        order: Order,
        mtu: u32,
        subnets: Vec<Subnet>,
        ports: Vec<Port>,
    ) -> Result<Self, ModelError> {
        let checked_mtu = u16::try_from(mtu).ok().filter(|m| (576..=9000).contains(m)).ok_or(ModelError::Mtu(mtu))?;
        let mut slice = Self { vpc, vni, order, mtu: checked_mtu, subnets: BTreeMap::new(), ports: BTreeMap::new() };
        for subnet in subnets {
            slice.add_subnet(subnet)?;
        }
        let mut seen = Seen::default();
        for port in ports {
            slice.check_port(&port)?;
            seen.check(&port)?;
            slice.ports.insert(port.id, port);
        }
        Ok(slice)
    }

    /// The NICs on this host.
    pub fn local_ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.values().filter(|p| p.place == Place::Local)
    }

    /// Where the tunnels to the other hosts of this VPC end.
    #[must_use]
    pub fn tunnel_ends(&self) -> BTreeSet<Ipv4Addr> {
        let end = |p: &Port| match p.place {
            Place::Local => None,
            Place::Remote(address) => Some(address),
        };
        self.ports.values().filter_map(end).collect()
    }

    fn add_subnet(&mut self, subnet: Subnet) -> Result<(), ModelError> {
        let net = subnet.cidr.net();
        let inside =
            net.contains(&subnet.gateway) && subnet.gateway != net.network() && subnet.gateway != net.broadcast();
        if !inside {
            return Err(ModelError::Gateway(subnet.id, subnet.gateway, subnet.cidr));
        }
        if self.subnets.contains_key(&subnet.id) {
            return Err(ModelError::Twice(format!("subnet {}", subnet.id)));
        }
        if let Some(other) = self.subnets.values().find(|s| s.cidr.overlaps(&subnet.cidr)) {
            return Err(ModelError::Overlap(other.id, subnet.id));
        }
        self.subnets.insert(subnet.id, subnet);
        Ok(())
    }

    fn check_port(&self, port: &Port) -> Result<(), ModelError> {
        let subnet = self.subnets.get(&port.subnet).ok_or(ModelError::NoSubnet(port.id, port.subnet))?;
        if self.ports.contains_key(&port.id) {
            return Err(ModelError::Twice(format!("port {}", port.id)));
        }
        let net = subnet.cidr.net();
        let usable = net.contains(&port.ip) && ![net.network(), net.broadcast(), subnet.gateway].contains(&port.ip);
        if !usable {
            return Err(ModelError::Address(port.id, port.ip, subnet.cidr));
        }
        if port.mac.octets() == GATEWAY_MAC || port.mac.octets().starts_with(&DHCP_MAC_PREFIX) {
            return Err(ModelError::ReservedMac(port.id, port.mac));
        }
        if !is_label(&port.hostname) {
            return Err(ModelError::Hostname(port.id, port.hostname.chars().take(80).collect()));
        }
        Ok(())
    }
}

/// A host name label (RFC 1123, section 2.1), or nothing.
fn is_label(name: &str) -> bool {
    name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// What must differ between the ports of a VPC.
#[derive(Default)]
struct Seen {
    ips: BTreeMap<Ipv4Addr, PortId>,
    macs: BTreeMap<MacAddr, PortId>,
    devices: BTreeMap<String, PortId>,
}

impl Seen {
    fn check(&mut self, port: &Port) -> Result<(), ModelError> {
        if let Some(other) = self.ips.insert(port.ip, port.id) {
            return Err(ModelError::SameAddress(other, port.id, port.ip));
        }
        if let Some(other) = self.macs.insert(port.mac, port.id) {
            return Err(ModelError::SameMac(other, port.id, port.mac));
        }
        let device = port.id.tap_device();
        if port.place == Place::Local
            && let Some(other) = self.devices.insert(device.clone(), port.id)
        {
            return Err(ModelError::SameDevice(other, port.id, device));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
