//! Slices for tests.

use std::net::Ipv4Addr;

use cloud_domain::{Cidr, InstanceId, MacAddr, PortId, SubnetId, VpcId};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    flow::OfPort,
    model::{ModelError, Order, Place, Port, Subnet, VpcSlice},
    pipeline::Plugged,
};

/// An id that starts with its number, so that devices differ.
pub fn port_id(number: u32) -> PortId {
    PortId::from(Uuid::from_u128(u128::from(number) << 88 | u128::from(number)))
}

pub fn vpc_id(number: u32) -> VpcId {
    VpcId::from(Uuid::from_u128(number.into()))
}

pub fn subnet(number: u32, cidr: &str) -> Subnet {
    let cidr: Cidr = cidr.parse().unwrap();
    Subnet {
        id: SubnetId::from(Uuid::from_u128(number.into())),
        cidr,
        gateway: cidr.gateway(),
        dns: vec![Ipv4Addr::new(9, 9, 9, 9)],
    }
}

/// A local port of a subnet, with the subnet's guest address of that number.
pub fn port(number: u32, subnet: &Subnet, guest: u32) -> Port {
    let [.., c, d] = number.to_be_bytes();
    Port {
        id: port_id(number),
        subnet: subnet.id,
        instance: InstanceId::from(Uuid::from_u128(number.into())),
        mac: MacAddr::from([0x52, 0x54, 0, 0, c, d]),
        ip: subnet.cidr.guest(guest).unwrap(),
        hostname: format!("guest-{number}"),
        place: Place::Local,
    }
}

pub fn remote(number: u32, subnet: &Subnet, guest: u32, end: Ipv4Addr) -> Port {
    Port { place: Place::Remote(end), ..port(number, subnet, guest) }
}

pub fn slice(number: u32, generation: u64, subnets: Vec<Subnet>, ports: Vec<Port>) -> VpcSlice {
    try_slice(number, generation, subnets, ports).unwrap()
}

pub fn try_slice(number: u32, generation: u64, subnets: Vec<Subnet>, ports: Vec<Port>) -> Result<VpcSlice, ModelError> {
    let order = Order { epoch: 1, generation };
    VpcSlice::new(vpc_id(number), number.try_into().unwrap(), order, 1450, subnets, ports)
}

/// A VPC with two subnets, two local ports and a remote one.
pub fn sample() -> (VpcSlice, Plugged) {
    let (a, b) = (subnet(1, "10.0.0.0/24"), subnet(2, "10.0.1.0/28"));
    let ports = vec![port(1, &a, 0), port(2, &b, 0), remote(3, &a, 1, Ipv4Addr::new(192, 0, 2, 9))];
    let plugged = Plugged::from([(port_id(1), OfPort::guest(1).unwrap()), (port_id(2), OfPort::guest(2).unwrap())]);
    (slice(5, 1, vec![a, b], ports), plugged)
}

/// Two VPCs on one host that may share addresses, MAC addresses and tunnels, and never share switch ports.
pub fn two_vpcs() -> impl Strategy<Value = [(VpcSlice, Plugged); 2]> {
    let nic = (0_u32..6, 0_u32..6, 0_usize..2, prop::option::of(0_u8..3));
    let nics = || prop::collection::vec(nic.clone(), 0..5);
    (nics(), nics()).prop_map(|(first, second)| [build(5, 1, first), build(6, 100, second)])
}

/// A VPC whose local ports have switch port numbers from `base` on. NICs that clash with earlier ones are left out.
fn build(number: u32, base: u16, nics: Vec<(u32, u32, usize, Option<u8>)>) -> (VpcSlice, Plugged) {
    let subnets = vec![subnet(1, "10.0.0.0/24"), subnet(2, "10.0.1.0/28")];
    let mut ports: Vec<Port> = Vec::new();
    let mut plugged = Plugged::new();
    for (index, (mac, guest, which, end)) in (0_u16..).zip(nics) {
        let mut port = port(u32::from(base + index), &subnets[which], guest);
        port.mac = MacAddr::from([0x52, 0x54, 0, 0, 0xff, u8::try_from(mac).unwrap()]);
        if ports.iter().any(|p| p.mac == port.mac || p.ip == port.ip) {
            continue;
        }
        match end {
            Some(end) => port.place = Place::Remote(Ipv4Addr::new(192, 0, 2, end + 1)),
            None => _ = plugged.insert(port.id, OfPort::guest(base + index).unwrap()),
        }
        ports.push(port);
    }
    (slice(number, 1, subnets, ports), plugged)
}
