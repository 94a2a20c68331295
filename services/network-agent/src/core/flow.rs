//! Flows: what the switch matches and does, typed, and the same as the text that `ovs-ofctl dump-flows` prints.
//!
//! A [`Rule`] is computed from the model and made of typed parts only, so that nothing a user chose can become syntax. A [`Flow`] is
//! its text. Flows read back from the switch are texts too, and the two are compared as such: fields as a sorted list, because the
//! switch prints them in an order of its own.

use std::{fmt, net::Ipv4Addr};

use cloud_domain::{Cidr, MacAddr, Vni};

/// A switch port number (OpenFlow 1.0 to 1.5: 1 to 65,279; guests' ports stay below 32,768).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfPort(u16);

impl OfPort {
    /// The largest number that a guest's port can have: the upper half belongs to NAT zones, because a port's conntrack zone is its number.
    pub const MAX_GUEST: u16 = 0x7fff;
    /// Where the DHCP responder listens.
    pub const DHCP: Self = Self(0xfe00);
    /// The Geneve tunnels, all of them.
    pub const TUNNEL: Self = Self(0xfe01);

    /// A guest's port.
    #[must_use]
    pub fn guest(number: u16) -> Option<Self> {
        (1..=Self::MAX_GUEST).contains(&number).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for OfPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The tables of the pipeline. Numbers that are missing belong to parts that are not built yet (external networks 5 and 6, conntrack
/// and rules 30 to 32 and 70 to 72, SNAT 80 and 81).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Which VPC a packet belongs to.
    Classify = 0,
    /// Whether a guest may send it.
    PortSecurity = 10,
    /// Answers to ARP.
    Arp = 20,
    /// The way to and from the DHCP responder.
    Dhcp = 25,
    /// What the virtual router answers itself.
    Services = 40,
    /// Which subnet a packet goes to.
    Routing = 50,
    /// Which MAC address is next.
    Neighbour = 55,
    /// Which port or tunnel is next.
    Forward = 60,
    /// Out.
    Output = 90,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Classify,
        Self::PortSecurity,
        Self::Arp,
        Self::Dhcp,
        Self::Services,
        Self::Routing,
        Self::Neighbour,
        Self::Forward,
        Self::Output,
    ];
}

/// What a flow is for: the first byte of its cookie, so that counters and traces can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The end of a table: drops what nothing allowed.
    DefaultDrop = 0x01,
    /// Moves a packet on.
    Forward = 0x02,
    /// What a guest may send.
    PortSecurity = 0x03,
    /// Answers ARP.
    Arp = 0x04,
    /// To and from the DHCP responder.
    Dhcp = 0x05,
    /// The virtual router.
    Router = 0x06,
    /// To and from other hosts.
    Tunnel = 0x07,
}

/// Kind (8 bits), VNI (24 bits, 0 for flows of the host), then what the kind says (32 bits: the port number, where there is one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cookie(pub u64);

impl Cookie {
    /// The bits that hold the VNI.
    pub const VNI_MASK: u64 = 0x00ff_ffff_0000_0000;

    /// A cookie of a VPC's flow, or of the host's where `vni` is none.
    #[must_use]
    pub fn new(kind: Kind, vni: Option<Vni>, id: u32) -> Self {
        Self((kind as u64) << 56 | u64::from(vni.map_or(0, Vni::get)) << 32 | u64::from(id))
    }

    /// The VPC it belongs to; none: the host.
    #[must_use]
    pub fn vni(self) -> Option<Vni> {
        u32::try_from((self.0 & Self::VNI_MASK) >> 32).ok().and_then(|n| Vni::try_from(n).ok())
    }
}

/// One condition. All conditions of a rule hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of ovs-fields(7)
pub enum Field {
    Arp,
    Ip,
    Udp,
    Icmp,
    InPort(OfPort),
    /// No 802.1Q header.
    Untagged,
    Metadata(Vni),
    TunId(Vni),
    TunSrc(Ipv4Addr),
    EthSrc(MacAddr),
    EthDst(MacAddr),
    ArpOp(u8),
    ArpSha(MacAddr),
    ArpSpa(Ipv4Addr),
    ArpTpa(Ipv4Addr),
    IpSrc(Ipv4Addr),
    IpDst(Ipv4Addr),
    IpDstNet(Cidr),
    UdpSrc(u16),
    UdpDst(u16),
    IcmpType(u8),
    IcmpCode(u8),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arp => f.write_str("arp"),
            Self::Ip => f.write_str("ip"),
            Self::Udp => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::InPort(port) => write!(f, "in_port={port}"),
            Self::Untagged => f.write_str("vlan_tci=0x0000/0x1fff"),
            Self::Metadata(vni) => write!(f, "metadata={:#x}", vni.get()),
            Self::TunId(vni) => write!(f, "tun_id={:#x}", vni.get()),
            Self::TunSrc(ip) => write!(f, "tun_src={ip}"),
            Self::EthSrc(mac) => write!(f, "dl_src={mac}"),
            Self::EthDst(mac) => write!(f, "dl_dst={mac}"),
            Self::ArpOp(op) => write!(f, "arp_op={op}"),
            Self::ArpSha(mac) => write!(f, "arp_sha={mac}"),
            Self::ArpSpa(ip) => write!(f, "arp_spa={ip}"),
            Self::ArpTpa(ip) => write!(f, "arp_tpa={ip}"),
            Self::IpSrc(ip) => write!(f, "nw_src={ip}"),
            Self::IpDst(ip) => write!(f, "nw_dst={ip}"),
            Self::IpDstNet(net) => write!(f, "nw_dst={net}"),
            Self::UdpSrc(port) => write!(f, "tp_src={port}"),
            Self::UdpDst(port) => write!(f, "tp_dst={port}"),
            Self::IcmpType(n) => write!(f, "icmp_type={n}"),
            Self::IcmpCode(n) => write!(f, "icmp_code={n}"),
        }
    }
}

/// One step of what happens to a packet. A rule without steps drops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of ovs-actions(7)
pub enum Action {
    WriteMetadata(Vni),
    Goto(Table),
    SetEthSrc(MacAddr),
    SetEthDst(MacAddr),
    /// Back to where it came from.
    EthSrcToDst,
    /// The number of the port it came in by, into the last two bytes of the source.
    InPortToEthSrc,
    SetArpOp(u8),
    SetArpSha(MacAddr),
    SetArpSpa(Ipv4Addr),
    ArpSourceToTarget,
    SetIpSrc(Ipv4Addr),
    IpSrcToDst,
    SetIcmpType(u8),
    SetTtl(u8),
    DecTtl,
    /// The destination port, for the tables after this one.
    SetReg7(OfPort),
    SetTunId(Vni),
    SetTunDst(Ipv4Addr),
    Output(OfPort),
    /// To the port that register 7 names.
    OutputReg7,
    /// To the port it came in by, which plain `output` never does.
    OutputInPort,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteMetadata(vni) => write!(f, "write_metadata:{:#x}", vni.get()),
            Self::Goto(table) => write!(f, "goto_table:{}", *table as u8),
            Self::SetEthSrc(mac) => write!(f, "set_field:{mac}->eth_src"),
            Self::SetEthDst(mac) => write!(f, "set_field:{mac}->eth_dst"),
            Self::EthSrcToDst => f.write_str("move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]"),
            Self::InPortToEthSrc => f.write_str("move:NXM_OF_IN_PORT[]->NXM_OF_ETH_SRC[0..15]"),
            Self::SetArpOp(op) => write!(f, "set_field:{op}->arp_op"),
            Self::SetArpSha(mac) => write!(f, "set_field:{mac}->arp_sha"),
            Self::SetArpSpa(ip) => write!(f, "set_field:{ip}->arp_spa"),
            Self::ArpSourceToTarget => {
                f.write_str("move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[]")
            }
            Self::SetIpSrc(ip) => write!(f, "set_field:{ip}->ip_src"),
            Self::IpSrcToDst => f.write_str("move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[]"),
            Self::SetIcmpType(n) => write!(f, "set_field:{n}->icmp_type"),
            Self::SetTtl(n) => write!(f, "set_field:{n}->nw_ttl"),
            Self::DecTtl => f.write_str("dec_ttl"),
            Self::SetReg7(port) => write!(f, "set_field:{:#x}->reg7", port.get()),
            Self::SetTunId(vni) => write!(f, "set_field:{:#x}->tun_id", vni.get()),
            Self::SetTunDst(ip) => write!(f, "set_field:{ip}->tun_dst"),
            Self::Output(port) => write!(f, "output:{port}"),
            Self::OutputReg7 => f.write_str("output:NXM_NX_REG7[]"),
            Self::OutputInPort => f.write_str("IN_PORT"),
        }
    }
}

/// A flow as computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where.
    pub table: Table,
    /// The highest that matches wins.
    pub priority: u16,
    /// Whose and what for.
    pub cookie: Cookie,
    /// When.
    pub fields: Vec<Field>,
    /// What.
    pub actions: Vec<Action>,
}

/// What tells flows of a switch apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The table's number.
    pub table: u8,
    /// The priority.
    pub priority: u16,
    /// The match: fields as the switch prints them, sorted, joined by commas. Empty: everything.
    pub fields: String,
}

/// What a flow has besides its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowBody {
    /// Whose and what for.
    pub cookie: Cookie,
    /// As the switch prints them.
    pub actions: String,
}

/// A flow as the switch prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// What tells it apart.
    pub key: FlowKey,
    /// The rest.
    pub body: FlowBody,
}

impl FlowKey {
    /// A key from fields in any order.
    #[must_use]
    pub fn new(table: u8, priority: u16, fields: &mut [String]) -> Self {
        fields.sort_unstable();
        Self { table, priority, fields: fields.join(",") }
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table={},priority={}", self.table, self.priority)?;
        if self.fields.is_empty() { Ok(()) } else { write!(f, ",{}", self.fields) }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cookie={:#x},{} actions={}", self.body.cookie.0, self.key, self.body.actions)
    }
}

impl From<&Rule> for Flow {
    fn from(rule: &Rule) -> Self {
        let mut fields: Vec<String> = rule.fields.iter().map(ToString::to_string).collect();
        let actions: Vec<String> = rule.actions.iter().map(ToString::to_string).collect();
        Self {
            key: FlowKey::new(rule.table as u8, rule.priority, &mut fields),
            body: FlowBody {
                cookie: rule.cookie,
                actions: if actions.is_empty() { "drop".to_owned() } else { actions.join(",") },
            },
        }
    }
}
