use std::net::Ipv4Addr;

use super::*;
use crate::core::fixtures::{port, port_id, sample, subnet, try_slice};

#[test]
fn a_slice_knows_its_local_ports_and_the_other_hosts() {
    let (slice, _) = sample();
    assert_eq!(slice.local_ports().map(|p| p.id).collect::<Vec<_>>(), [port_id(1), port_id(2)]);
    assert_eq!(slice.tunnel_ends(), BTreeSet::from([Ipv4Addr::new(192, 0, 2, 9)]));
}

#[test]
fn what_cannot_be_true_is_refused_with_the_reason() {
    let a = subnet(1, "10.0.0.0/24");
    let one = port(1, &a, 0);
    let with = |change: &dyn Fn(&mut Port)| {
        let mut port = port(2, &a, 1);
        change(&mut port);
        try_slice(5, 1, vec![a.clone()], vec![one.clone(), port]).unwrap_err().to_string()
    };
    assert!(with(&|p| p.ip = one.ip).contains("have the same address 10.0.0.2"));
    assert!(with(&|p| p.mac = one.mac).contains("have the same MAC address"));
    assert!(with(&|p| p.id = one.id).contains("twice"));
    assert!(with(&|p| p.ip = a.gateway).contains("10.0.0.1 is not an address for guests"));
    assert!(with(&|p| p.ip = Ipv4Addr::new(10, 0, 0, 255)).contains("not an address for guests"));
    assert!(with(&|p| p.ip = Ipv4Addr::new(10, 0, 1, 2)).contains("not an address for guests"));
    assert!(with(&|p| p.mac = GATEWAY_MAC.into()).contains("reserved"));
    assert!(with(&|p| p.mac = [2, 0x64, 0x68, 0x63, 9, 9].into()).contains("reserved"));
    assert!(with(&|p| p.hostname = "a b".to_owned()).contains("`a b`"));
    assert!(with(&|p| p.subnet = SubnetId::random()).contains("is not in the slice"));

    let overlapping = try_slice(5, 1, vec![a.clone(), subnet(2, "10.0.0.128/25")], vec![]);
    assert!(overlapping.unwrap_err().to_string().contains("overlap"));
    let mut outside = a.clone();
    outside.gateway = Ipv4Addr::new(10, 0, 1, 1);
    assert!(try_slice(5, 1, vec![outside], vec![]).unwrap_err().to_string().contains("gateway 10.0.1.1"));
    let mtu = VpcSlice::new(VpcId::random(), 5.try_into().unwrap(), Order::default(), 70_000, vec![], vec![]);
    assert_eq!(mtu.unwrap_err(), ModelError::Mtu(70_000));
}

#[test]
fn ports_that_would_share_a_device_are_refused() {
    let a = subnet(1, "10.0.0.0/24");
    let (one, mut two) = (port(1, &a, 0), port(2, &a, 1));
    let mut bytes = *one.id.as_uuid().as_bytes();
    bytes[15] ^= 1;
    two.id = uuid::Uuid::from_bytes(bytes).into();
    let error = try_slice(5, 1, vec![a.clone()], vec![one.clone(), two.clone()]).unwrap_err();
    assert!(matches!(error, ModelError::SameDevice(..)), "{error}");
    two.place = Place::Remote(Ipv4Addr::LOCALHOST);
    assert!(try_slice(5, 1, vec![a], vec![one, two]).is_ok());
}
