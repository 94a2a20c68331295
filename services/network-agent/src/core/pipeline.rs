//! From the model of a VPC to the flows of this host.
//!
//! # Theory of operation
//!
//! A packet enters at table 0 and only ever moves to higher tables; each table ends in a drop that is counted on its own.
//!
//! ```text
//!                          +- 20 ARP ----> answered to the port it came from
//! guest -> 0 -> 10 --------+
//!   (VNI)  (may it        +- 25 DHCP ---> responder
//!          send this?)    |
//!                         +- 40 --------> ping to the gateway: answered
//!                            |    \
//!                            |     50 -> 55   routed: other subnet of the VPC
//!                            |          /
//! other host -> 0 ---------> 60 forward by (VNI, MAC) --> 90 a local port, or a tunnel
//!   (VNI, sender)
//! responder -> 0 -> 25 by the port number in the destination address -> 90
//! ```
//!
//! **Isolation.** Table 0 writes the VNI of the port a packet came in by into `metadata`; nothing a guest sends can change it, no later
//! table rewrites it, and every flow that chooses a destination matches it. So equal MAC and IP addresses in two VPCs never meet. The one
//! flow that chooses a guest's port without matching a VNI is the responder's answer, whose destination names exactly one port.
//!
//! **No broadcast.** ARP is answered here from the model, DHCP goes to the responder, and table 60 knows unicast addresses only.
//!
//! **DHCP.** The responder serves every VPC by one device, and MAC addresses may be equal in two of them. So a request reaches it with
//! the number of the port it came in by in its Ethernet source (`02:64:68:63:HI:LO`), and the answer goes back to that address, which
//! table 25 turns into the guest's port and MAC. The destination of a request is `02:64:68:63:ff:ff`, which is no one's address, so that
//! the host's own network stack does not look at it.
//!
//! **Routing.** The virtual router is on every host and has the same MAC address everywhere: what is sent to it is matched against the
//! VPC's subnets, then against its ports, and leaves by table 60 like any other packet, already with the right MAC address.
//!
//! **Not here yet**: IPv6 (dropped at table 10), conntrack and security-group rules (30 to 32, 70 to 72): ports have none yet, and guests
//! of one VPC reach each other.

use std::{collections::BTreeMap, net::Ipv4Addr};

use cloud_domain::{MacAddr, PortId, Vni};

use super::{
    flow::{Action, Cookie, Field, Kind, OfPort, Rule, Table},
    model::{DHCP_MAC_PREFIX, GATEWAY_MAC, Place, Port, Subnet, VpcSlice},
};

const DHCP_SERVER_PORT: u16 = 67;
const DHCP_CLIENT_PORT: u16 = 68;

/// The switch ports of local NICs.
pub type Plugged = BTreeMap<PortId, OfPort>;

/// The virtual router's MAC address.
#[must_use]
pub fn gateway_mac() -> MacAddr {
    GATEWAY_MAC.into()
}

/// What a guest's port is called in Ethernet addresses between the switch and the DHCP responder.
#[must_use]
pub fn dhcp_mac(port: u16) -> MacAddr {
    let ([a, b, c, d], [hi, lo]) = (DHCP_MAC_PREFIX, port.to_be_bytes());
    [a, b, c, d, hi, lo].into()
}

/// The flows that a host has whatever its VPCs are.
#[must_use]
pub fn host_rules() -> Vec<Rule> {
    use {Action as A, Field as F};
    let rule = |table, priority, kind, fields: &[Field], actions: &[Action]| Rule {
        table,
        priority,
        cookie: Cookie::new(kind, None, 0),
        fields: fields.to_vec(),
        actions: actions.to_vec(),
    };
    let mut rules = vec![
        rule(Table::Classify, 100, Kind::Dhcp, &[F::InPort(OfPort::DHCP)], &[A::Goto(Table::Dhcp)]),
        rule(
            Table::Dhcp,
            100,
            Kind::Dhcp,
            &[F::Udp, F::IpDst(Ipv4Addr::BROADCAST), F::UdpSrc(DHCP_CLIENT_PORT), F::UdpDst(DHCP_SERVER_PORT)],
            &to_responder(),
        ),
        // What the responder's device sends on its own account (the host's network stack does) goes nowhere.
        rule(Table::Dhcp, 50, Kind::DefaultDrop, &[F::InPort(OfPort::DHCP)], &[]),
        rule(Table::Dhcp, 10, Kind::Forward, &[F::Ip], &[A::Goto(Table::Services)]),
        rule(Table::Services, 20, Kind::Forward, &[F::Ip, F::EthDst(gateway_mac())], &[A::Goto(Table::Routing)]),
        rule(Table::Services, 10, Kind::Forward, &[F::Ip], &[A::Goto(Table::Forward)]),
        rule(Table::Output, 100, Kind::Forward, &[], &[A::OutputReg7]),
    ];
    let ends = Table::ALL.into_iter().filter(|table| *table != Table::Output);
    rules.extend(ends.map(|table| rule(table, 0, Kind::DefaultDrop, &[], &[])));
    rules
}

/// The flows of one VPC on this host. A local NIC that is not in `plugged` has none, and nothing reaches it.
#[must_use]
pub fn vpc_rules(slice: &VpcSlice, plugged: &Plugged) -> Vec<Rule> {
    let vpc = Vpc { vni: slice.vni, rules: Vec::new() };
    vpc.build(slice, plugged)
}

fn to_responder() -> [Action; 4] {
    [
        Action::SetEthSrc(dhcp_mac(0)),
        Action::InPortToEthSrc,
        Action::SetEthDst(dhcp_mac(u16::MAX)),
        Action::Output(OfPort::DHCP),
    ]
}

struct Vpc {
    vni: Vni,
    rules: Vec<Rule>,
}

impl Vpc {
    fn build(mut self, slice: &VpcSlice, plugged: &Plugged) -> Vec<Rule> {
        for end in slice.tunnel_ends() {
            self.tunnel(end);
        }
        for subnet in slice.subnets.values() {
            self.subnet(subnet);
        }
        for port in slice.ports.values() {
            self.reachable(port);
            match (port.place, plugged.get(&port.id)) {
                (Place::Local, Some(ofport)) => self.local(port, *ofport),
                (Place::Local, None) => {}
                (Place::Remote(end), _) => self.remote(port, end),
            }
        }
        self.rules
    }

    fn add(&mut self, table: Table, priority: u16, kind: Kind, id: u32, fields: &[Field], actions: &[Action]) {
        self.rules.push(Rule {
            table,
            priority,
            cookie: Cookie::new(kind, Some(self.vni), id),
            fields: fields.to_vec(),
            actions: actions.to_vec(),
        });
    }

    /// Packets from another host: already checked and routed there, and for this VPC only.
    fn tunnel(&mut self, end: Ipv4Addr) {
        use {Action as A, Field as F};
        self.add(
            Table::Classify,
            100,
            Kind::Tunnel,
            end.into(),
            &[F::InPort(OfPort::TUNNEL), F::TunId(self.vni), F::TunSrc(end), F::Untagged],
            &[A::WriteMetadata(self.vni), A::Goto(Table::Forward)],
        );
    }

    /// The virtual router in one subnet.
    fn subnet(&mut self, subnet: &Subnet) {
        use {Action as A, Field as F};
        let (metadata, gateway) = (F::Metadata(self.vni), subnet.gateway);
        self.answer_arp(gateway, gateway_mac());
        // A guest that renews its lease asks the server by name, and the server calls itself by the gateway's address.
        self.add(
            Table::Dhcp,
            100,
            Kind::Dhcp,
            0,
            &[F::Udp, metadata, F::IpDst(gateway), F::UdpSrc(DHCP_CLIENT_PORT), F::UdpDst(DHCP_SERVER_PORT)],
            &to_responder(),
        );
        self.add(
            Table::Services,
            100,
            Kind::Router,
            0,
            &[F::Icmp, metadata, F::EthDst(gateway_mac()), F::IpDst(gateway), F::IcmpType(8), F::IcmpCode(0)],
            &[
                A::EthSrcToDst,
                A::SetEthSrc(gateway_mac()),
                A::IpSrcToDst,
                A::SetIpSrc(gateway),
                A::SetIcmpType(0),
                A::SetTtl(64),
                A::OutputInPort,
            ],
        );
        // Longest prefix first.
        let priority = 1000 + 10 * u16::from(subnet.cidr.net().prefix_len());
        self.add(
            Table::Routing,
            priority,
            Kind::Router,
            0,
            &[F::Ip, metadata, F::IpDstNet(subnet.cidr)],
            &[A::DecTtl, A::SetEthSrc(gateway_mac()), A::Goto(Table::Neighbour)],
        );
    }

    /// What makes a NIC known to the others of its VPC, wherever it is.
    fn reachable(&mut self, port: &Port) {
        use {Action as A, Field as F};
        self.answer_arp(port.ip, port.mac);
        self.add(
            Table::Neighbour,
            100,
            Kind::Router,
            0,
            &[F::Ip, F::Metadata(self.vni), F::IpDst(port.ip)],
            &[A::SetEthDst(port.mac), A::Goto(Table::Forward)],
        );
    }

    fn local(&mut self, port: &Port, ofport: OfPort) {
        use {Action as A, Field as F};
        let (id, from) = (u32::from(ofport.get()), F::InPort(ofport));
        self.add(
            Table::Classify,
            100,
            Kind::Forward,
            id,
            &[from, F::Untagged],
            &[A::WriteMetadata(self.vni), A::Goto(Table::PortSecurity)],
        );
        self.port_security(port, from, id);
        // A guest that announces or probes its own address must not hear that someone has it (RFC 5227).
        self.add(Table::Arp, 110, Kind::Arp, id, &[F::Arp, from, F::ArpTpa(port.ip)], &[]);
        self.add(
            Table::Dhcp,
            100,
            Kind::Dhcp,
            id,
            &[
                F::Udp,
                F::InPort(OfPort::DHCP),
                F::EthDst(dhcp_mac(ofport.get())),
                F::UdpSrc(DHCP_SERVER_PORT),
                F::UdpDst(DHCP_CLIENT_PORT),
            ],
            &[A::SetEthDst(port.mac), A::SetReg7(ofport), A::Goto(Table::Output)],
        );
        self.add(
            Table::Forward,
            100,
            Kind::Forward,
            id,
            &[F::Metadata(self.vni), F::EthDst(port.mac)],
            &[A::SetReg7(ofport), A::Goto(Table::Output)],
        );
    }

    /// What a guest may send: as itself, and DHCP before it has an address.
    fn port_security(&mut self, port: &Port, from: Field, id: u32) {
        use {Action as A, Field as F};
        let (table, kind, own_mac) = (Table::PortSecurity, Kind::PortSecurity, F::EthSrc(port.mac));
        self.add(
            table,
            210,
            kind,
            id,
            &[
                F::Udp,
                from,
                own_mac,
                F::IpSrc(Ipv4Addr::UNSPECIFIED),
                F::IpDst(Ipv4Addr::BROADCAST),
                F::UdpSrc(DHCP_CLIENT_PORT),
                F::UdpDst(DHCP_SERVER_PORT),
            ],
            &[A::Goto(Table::Dhcp)],
        );
        self.add(
            table,
            200,
            kind,
            id,
            &[F::Arp, from, own_mac, F::ArpSpa(port.ip), F::ArpSha(port.mac)],
            &[A::Goto(Table::Arp)],
        );
        self.add(table, 200, kind, id, &[F::Ip, from, own_mac, F::IpSrc(port.ip)], &[A::Goto(Table::Dhcp)]);
    }

    fn remote(&mut self, port: &Port, end: Ipv4Addr) {
        use {Action as A, Field as F};
        // A packet that came out of the tunnel never goes back into it: the switch does not output to the port a packet came in by.
        self.add(
            Table::Forward,
            100,
            Kind::Tunnel,
            end.into(),
            &[F::Metadata(self.vni), F::EthDst(port.mac)],
            &[A::SetTunId(self.vni), A::SetTunDst(end), A::Output(OfPort::TUNNEL)],
        );
    }

    fn answer_arp(&mut self, ip: Ipv4Addr, mac: MacAddr) {
        use {Action as A, Field as F};
        self.add(
            Table::Arp,
            100,
            Kind::Arp,
            0,
            &[F::Arp, F::Metadata(self.vni), F::ArpTpa(ip), F::ArpOp(1)],
            &[
                A::EthSrcToDst,
                A::SetEthSrc(mac),
                A::SetArpOp(2),
                A::ArpSourceToTarget,
                A::SetArpSha(mac),
                A::SetArpSpa(ip),
                A::OutputInPort,
            ],
        );
    }
}

#[cfg(test)]
mod tests;
