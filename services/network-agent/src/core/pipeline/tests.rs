use proptest::prelude::*;

use super::*;
use crate::core::{
    fixtures::{sample, two_vpcs},
    flow::Flow,
};

mod interpreter;

use interpreter::{Packet, Switch};

fn text(rules: &[Rule]) -> String {
    let mut flows: Vec<Flow> = rules.iter().map(Flow::from).collect();
    flows.sort_by(|a, b| (a.key.table, b.key.priority, &a.key).cmp(&(b.key.table, a.key.priority, &b.key)));
    flows.iter().map(|flow| format!("{flow}\n")).collect()
}

#[test]
fn flows_of_a_host() {
    insta::assert_snapshot!(text(&host_rules()));
}

#[test]
fn flows_of_a_vpc() {
    let (slice, plugged) = sample();
    insta::assert_snapshot!(text(&vpc_rules(&slice, &plugged)));
}

#[test]
fn a_port_that_is_not_plugged_has_no_flows_of_its_own() {
    let (slice, _) = sample();
    let rules = vpc_rules(&slice, &Plugged::new());
    assert!(
        rules.iter().all(|rule| rule.table != Table::Classify || rule.fields.contains(&Field::InPort(OfPort::TUNNEL)))
    );
    assert!(!rules.iter().flat_map(|rule| &rule.actions).any(|action| matches!(action, Action::SetReg7(_))));
}

#[test]
fn costs_per_port_are_as_documented() {
    let (slice, plugged) = sample();
    let count = |wanted: &dyn Fn(&Port) -> bool| {
        let ports = slice.ports.values().filter(|p| wanted(p)).cloned().collect();
        let slice =
            VpcSlice::new(slice.vpc, slice.vni, slice.order, 1450, slice.subnets.values().cloned().collect(), ports);
        vpc_rules(&slice.unwrap(), &plugged).len()
    };
    let none = count(&|_| false);
    assert_eq!(count(&|p| p.place == Place::Local) - none, 2 * 9);
    // One more for the tunnel to its host.
    assert_eq!(count(&|p| p.place != Place::Local) - none, 3 + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a guest sends, it comes out at ports and tunnels of its own VPC only, and as itself.
    #[test]
    fn nothing_crosses(vpcs in two_vpcs(), packets in prop::collection::vec(interpreter::packets(), 40)) {
        let rules = vpcs.iter().flat_map(|(slice, plugged)| vpc_rules(slice, plugged));
        let switch = Switch::new(host_rules().into_iter().chain(rules).collect());
        for packet in packets {
            let Some((slice, plugged)) = vpcs.iter().find(|(_, plugged)| plugged.values().any(|p| *p == packet.in_port))
            else {
                continue;
            };
            let own: Vec<OfPort> = plugged.values().copied().collect();
            let sender = plugged.iter().find(|(_, p)| **p == packet.in_port).and_then(|(id, _)| slice.ports.get(id)).unwrap();
            for (port, out) in switch.forward(&packet) {
                match port {
                    OfPort::TUNNEL => {
                        prop_assert_eq!(out.tun_id, Some(slice.vni));
                        prop_assert!(out.tun_dst.is_some_and(|end| slice.tunnel_ends().contains(&end)));
                        prop_assert_eq!(out.ip_src, sender.ip);
                    }
                    OfPort::DHCP => prop_assert_eq!(out.eth_src, dhcp_mac(packet.in_port.get())),
                    port if port == packet.in_port => {
                        prop_assert_eq!(out.eth_dst, sender.mac, "an answer by the switch");
                    }
                    port => {
                        prop_assert!(own.contains(&port), "{:?} came out at {}", packet, port);
                        prop_assert_eq!(out.ip_src, sender.ip);
                    }
                }
            }
        }
    }

    /// Whatever comes out of a tunnel reaches ports of the VPC it is labelled with only, and no other host.
    #[test]
    fn tunnels_do_not_cross_either(vpcs in two_vpcs(), packets in prop::collection::vec(interpreter::packets(), 40)) {
        let rules = vpcs.iter().flat_map(|(slice, plugged)| vpc_rules(slice, plugged));
        let switch = Switch::new(host_rules().into_iter().chain(rules).collect());
        for packet in packets {
            let packet = Packet { in_port: OfPort::TUNNEL, ..packet };
            for (port, _) in switch.forward(&packet) {
                let (slice, plugged) = vpcs.iter().find(|(slice, _)| Some(slice.vni) == packet.tun_id).unwrap();
                prop_assert!(plugged.values().any(|p| *p == port), "{:?} came out at {}", packet, port);
                prop_assert!(packet.tun_src.is_some_and(|end| slice.tunnel_ends().contains(&end)));
            }
        }
    }

    /// Guests of one VPC do reach each other: by the peer's MAC address, or by the router where it is elsewhere.
    #[test]
    fn neighbours_are_reached(vpcs in two_vpcs()) {
        let rules = vpcs.iter().flat_map(|(slice, plugged)| vpc_rules(slice, plugged));
        let switch = Switch::new(host_rules().into_iter().chain(rules).collect());
        for (slice, plugged) in &vpcs {
            for (from, to) in slice.local_ports().flat_map(|a| slice.local_ports().map(move |b| (a, b))) {
                if from.id == to.id {
                    continue;
                }
                let next = if from.subnet == to.subnet { to.mac } else { gateway_mac() };
                let packet = Packet::ip(plugged[&from.id], (from.mac, from.ip), (next, to.ip));
                let out = switch.forward(&packet);
                prop_assert_eq!(out.len(), 1);
                prop_assert_eq!((out[0].0, out[0].1.eth_dst), (plugged[&to.id], to.mac));
            }
        }
    }
}
