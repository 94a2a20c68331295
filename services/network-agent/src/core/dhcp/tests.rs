use super::*;
use crate::core::fixtures::sample;

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn request(ask: Ask, ciaddr: Ipv4Addr, wanted: Option<Ipv4Addr>, server: Option<Ipv4Addr>) -> Request {
    Request { ask, chaddr: [0x52, 0x54, 0, 0, 0, 1].into(), ciaddr, wanted, server }
}

#[test]
fn every_state_of_a_client_is_answered() {
    let (slice, plugged) = sample();
    let leases = leases(&slice, &plugged);
    assert_eq!(leases.len(), 2, "remote ports have leases elsewhere");
    let lease = leases.values().next().unwrap();
    let (mine, server, other) = (lease.ip, lease.gateway, Ipv4Addr::new(10, 0, 0, 99));
    let cases = [
        ("first", request(Ask::Discover, NONE, None, None), Verdict::Offer),
        ("selecting", request(Ask::Request, NONE, Some(mine), Some(server)), Verdict::Ack),
        ("selecting another server", request(Ask::Request, NONE, Some(mine), Some(other)), Verdict::Ignore),
        ("selecting another address", request(Ask::Request, NONE, Some(other), Some(server)), Verdict::Nak),
        ("after a reboot", request(Ask::Request, NONE, Some(mine), None), Verdict::Ack),
        ("after a move", request(Ask::Request, NONE, Some(other), None), Verdict::Nak),
        ("renewing", request(Ask::Request, mine, None, None), Verdict::Ack),
        ("renewing another's", request(Ask::Request, other, None, None), Verdict::Nak),
        ("without anything", request(Ask::Request, NONE, None, None), Verdict::Nak),
        ("informing", request(Ask::Inform, mine, None, None), Verdict::Informed),
        ("informing of another's", request(Ask::Inform, other, None, None), Verdict::Ignore),
        ("releasing", request(Ask::Other, mine, None, None), Verdict::Ignore),
    ];
    for (what, request, verdict) in cases {
        assert_eq!(decide(lease, &request), verdict, "{what}");
        let stranger = Request { chaddr: [0x52, 0x54, 0, 0, 0, 9].into(), ..request };
        assert_eq!(decide(lease, &stranger), Verdict::Ignore, "{what}, with another MAC address");
    }
}

#[test]
fn a_table_forgets_one_vpc_at_a_time() {
    let (slice, plugged) = sample();
    let table = LeaseTable::default();
    let other = VpcId::random();
    table.replace(slice.vpc, leases(&slice, &plugged));
    let foreign = leases(&slice, &plugged).into_values().next().unwrap();
    table.replace(other, BTreeMap::from([(OfPort::guest(9).unwrap(), foreign)]));
    table.replace(slice.vpc, BTreeMap::new());
    assert_eq!(table.get(1), None);
    assert!(table.get(9).is_some());
}
