//! A switch in miniature: what OpenFlow says happens to a packet, for the matches and actions that the pipeline uses.

use std::{collections::BTreeMap, net::Ipv4Addr};

use cloud_domain::{MacAddr, Vni};
use proptest::prelude::*;

use crate::core::{
    flow::{Action, Field, OfPort, Rule, Table},
    pipeline::{dhcp_mac, gateway_mac},
};

/// What is in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Arp { op: u8, sha: MacAddr, spa: Ipv4Addr, tpa: Ipv4Addr },
    Udp { from: u16, to: u16 },
    Icmp { kind: u8 },
    Other,
}

/// A packet and its metadata.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    pub in_port: OfPort,
    pub tagged: bool,
    pub tun_id: Option<Vni>,
    pub tun_src: Option<Ipv4Addr>,
    pub tun_dst: Option<Ipv4Addr>,
    pub eth_src: MacAddr,
    pub eth_dst: MacAddr,
    pub ip_src: Ipv4Addr,
    pub ip_dst: Ipv4Addr,
    pub payload: Payload,
    pub metadata: Option<Vni>,
    pub reg7: Option<OfPort>,
}

impl Packet {
    pub fn ip(in_port: OfPort, from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr)) -> Self {
        Self {
            in_port,
            tagged: false,
            tun_id: None,
            tun_src: None,
            tun_dst: None,
            eth_src: from.0,
            eth_dst: to.0,
            ip_src: from.1,
            ip_dst: to.1,
            payload: Payload::Other,
            metadata: None,
            reg7: None,
        }
    }

    fn is_arp(&self) -> bool {
        matches!(self.payload, Payload::Arp { .. })
    }

    fn matches(&self, field: &Field) -> bool {
        match (*field, self.payload) {
            (Field::Arp, _) => self.is_arp(),
            (Field::Ip, _) => !self.is_arp(),
            (Field::Udp, payload) => matches!(payload, Payload::Udp { .. }),
            (Field::Icmp, payload) => matches!(payload, Payload::Icmp { .. }),
            (Field::InPort(port), _) => self.in_port == port,
            (Field::Untagged, _) => !self.tagged,
            (Field::Metadata(vni), _) => self.metadata == Some(vni),
            (Field::TunId(vni), _) => self.tun_id == Some(vni),
            (Field::TunSrc(ip), _) => self.tun_src == Some(ip),
            (Field::EthSrc(mac), _) => self.eth_src == mac,
            (Field::EthDst(mac), _) => self.eth_dst == mac,
            (Field::ArpOp(wanted), Payload::Arp { op, .. }) => op == wanted,
            (Field::ArpSha(mac), Payload::Arp { sha, .. }) => sha == mac,
            (Field::ArpSpa(ip), Payload::Arp { spa, .. }) => spa == ip,
            (Field::ArpTpa(ip), Payload::Arp { tpa, .. }) => tpa == ip,
            (Field::IpSrc(ip), _) => self.ip_src == ip,
            (Field::IpDst(ip), _) => self.ip_dst == ip,
            (Field::IpDstNet(net), _) => net.net().contains(&self.ip_dst),
            (Field::UdpSrc(port), Payload::Udp { from, .. }) => from == port,
            (Field::UdpDst(port), Payload::Udp { to, .. }) => to == port,
            (Field::IcmpType(wanted), Payload::Icmp { kind }) => kind == wanted,
            (Field::IcmpCode(_), Payload::Icmp { .. }) => true,
            _ => false,
        }
    }
}

/// Flows by table, the highest priority first.
pub struct Switch(BTreeMap<Table, Vec<Rule>>);

impl Switch {
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut tables: BTreeMap<Table, Vec<Rule>> = BTreeMap::new();
        for rule in rules {
            tables.entry(rule.table).or_default().push(rule);
        }
        tables.values_mut().for_each(|rules| rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority)));
        Self(tables)
    }

    /// Where a packet comes out, and as what.
    pub fn forward(&self, packet: &Packet) -> Vec<(OfPort, Packet)> {
        let (mut packet, mut table, mut out) = (*packet, Table::Classify, Vec::new());
        loop {
            let rules = self.0.get(&table).map(Vec::as_slice).unwrap_or_default();
            let Some(rule) = rules.iter().find(|rule| rule.fields.iter().all(|field| packet.matches(field))) else {
                return out;
            };
            let mut next = None;
            for action in &rule.actions {
                next = next.or(step(action, &mut packet, &mut out));
            }
            match next {
                Some(next) => {
                    assert!(next > table, "{rule:?} goes back");
                    table = next;
                }
                None => return out,
            }
        }
    }
}

fn step(action: &Action, packet: &mut Packet, out: &mut Vec<(OfPort, Packet)>) -> Option<Table> {
    // A switch never sends a packet back to where it came from, unless it is told so by that name.
    let mut emit = |port: OfPort, packet: &Packet| {
        if port != packet.in_port {
            out.push((port, *packet));
        }
    };
    match *action {
        Action::WriteMetadata(vni) => packet.metadata = Some(vni),
        Action::Goto(table) => return Some(table),
        Action::SetEthSrc(mac) => packet.eth_src = mac,
        Action::SetEthDst(mac) => packet.eth_dst = mac,
        Action::EthSrcToDst => packet.eth_dst = packet.eth_src,
        Action::InPortToEthSrc => {
            let mut octets = packet.eth_src.octets();
            octets[4..].copy_from_slice(&packet.in_port.get().to_be_bytes());
            packet.eth_src = octets.into();
        }
        Action::SetIpSrc(ip) => packet.ip_src = ip,
        Action::IpSrcToDst => packet.ip_dst = packet.ip_src,
        Action::SetReg7(port) => packet.reg7 = Some(port),
        Action::SetTunId(vni) => packet.tun_id = Some(vni),
        Action::SetTunDst(ip) => packet.tun_dst = Some(ip),
        Action::Output(port) => emit(port, packet),
        Action::OutputReg7 => {
            if let Some(port) = packet.reg7 {
                emit(port, packet);
            }
        }
        Action::OutputInPort => out.push((packet.in_port, *packet)),
        Action::SetArpOp(_)
        | Action::SetArpSha(_)
        | Action::SetArpSpa(_)
        | Action::ArpSourceToTarget
        | Action::SetIcmpType(_)
        | Action::SetTtl(_)
        | Action::DecTtl => {}
    }
    None
}

/// Packets that guests and hosts of [`crate::core::fixtures::two_vpcs`] might send, most of them from addresses that exist there.
pub fn packets() -> impl Strategy<Value = Packet> {
    let mac = || {
        prop_oneof![
            4 => (0_u8..6).prop_map(|n| MacAddr::from([0x52, 0x54, 0, 0, 0xff, n])),
            1 => Just(gateway_mac()),
            1 => Just(MacAddr::from([0xff; 6])),
            1 => (0_u16..110).prop_map(dhcp_mac),
        ]
    };
    let ip = || {
        prop_oneof![
            6 => (0_u8..2, 0_u8..9).prop_map(|(net, n)| Ipv4Addr::new(10, 0, net, n)),
            1 => Just(Ipv4Addr::UNSPECIFIED),
            1 => Just(Ipv4Addr::BROADCAST),
        ]
    };
    let in_port = prop_oneof![(1_u16..6), (100_u16..106)].prop_map(|n| OfPort::guest(n).unwrap());
    let payload = prop_oneof![
        (1_u8..3, mac(), ip(), ip()).prop_map(|(op, sha, spa, tpa)| Payload::Arp { op, sha, spa, tpa }),
        prop_oneof![Just((68, 67)), Just((67, 68)), Just((9, 9))].prop_map(|(from, to)| Payload::Udp { from, to }),
        (0_u8..9).prop_map(|kind| Payload::Icmp { kind }),
        Just(Payload::Other),
    ];
    let tunnel = (prop::option::of(5_u32..8), prop::option::of(0_u8..4));
    (in_port, any::<bool>(), mac(), mac(), ip(), ip(), payload, tunnel).prop_map(
        |(in_port, tagged, eth_src, eth_dst, ip_src, ip_dst, payload, (vni, end))| Packet {
            tagged,
            tun_id: vni.map(|vni| vni.try_into().unwrap()),
            tun_src: end.map(|end| Ipv4Addr::new(192, 0, 2, end)),
            payload,
            ..Packet::ip(in_port, (eth_src, ip_src), (eth_dst, ip_dst))
        },
    )
}
