//! Addresses by DHCP, asked for by a real client.

use crate::support::{
    agent::Host,
    cloud::{Cloud, Vpc},
    guest::Guest,
};

fn variable<'a>(lease: &'a str, name: &str) -> Option<&'a str> {
    lease.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_guest_gets_its_own_lease_even_with_a_mac_that_two_vpcs_have() {
    let cloud = Cloud::new();
    let host = Host::new(&cloud).await;
    let mut agent = host.agent(&cloud).await;
    let mac = "52:54:00:00:00:01";
    let (mut a, mut b) = (Vpc::new(5, &["10.0.0.0/24"]), Vpc::new(6, &["10.7.0.0/16"]));
    b.mtu = 1400;
    b.subnets[0].dns_servers.clear();
    let (a1, b1) = (a.port("a1", mac, "10.0.0.2"), b.port("b1", mac, "10.7.9.9"));
    agent.apply(&a).await;
    agent.apply(&b).await;
    let directory = tempfile::tempdir().unwrap();
    let (a1, b1) = (Guest::new(&host, a1, mac), Guest::new(&host, b1, mac));

    let lease = a1.dhcp(directory.path(), &[]).expect("a lease for a1");
    let expected = [
        ("ip", Some("10.0.0.2")),
        ("subnet", Some("255.255.255.0")),
        ("router", Some("10.0.0.1")),
        ("serverid", Some("10.0.0.1")),
        ("dns", Some("9.9.9.9 1.1.1.1")),
        ("mtu", Some("1450")),
        ("hostname", Some("a1")),
        ("lease", Some("3600")),
    ];
    for (name, value) in expected {
        assert_eq!(variable(&lease, name), value, "{name} in {lease}");
    }
    let lease = b1.dhcp(directory.path(), &[]).expect("a lease for b1");
    for (name, value) in
        [("ip", Some("10.7.9.9")), ("subnet", Some("255.255.0.0")), ("mtu", Some("1400")), ("dns", None)]
    {
        assert_eq!(variable(&lease, name), value, "{name} in {lease}");
    }

    // A client that wants another address is told no, and then takes its own.
    let lease = a1.dhcp(directory.path(), &["-r", "10.0.0.99"]).expect("a lease after all");
    assert_eq!(variable(&lease, "ip"), Some("10.0.0.2"));

    // A client that calls itself by another MAC address than its port's is not heard.
    a1.ip(&["link", "set", "dev", "eth0", "address", "52:54:00:00:00:99"]);
    assert_eq!(a1.dhcp(directory.path(), &[]), None);
    // The control: with its own it is.
    a1.ip(&["link", "set", "dev", "eth0", "address", mac]);
    assert!(a1.dhcp(directory.path(), &[]).is_some());

    // Another's request and answer are never seen by a neighbour.
    let before = b1.received();
    assert!(a1.dhcp(directory.path(), &[]).is_some());
    assert_eq!(b1.received(), before);
    agent.stop().await;
}
