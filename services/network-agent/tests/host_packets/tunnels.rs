//! Two hosts: the same VPC on both sides of a Geneve tunnel.

use cloud_domain::PortId;

use crate::support::{
    agent::{Agent, Host},
    cloud::{Cloud, Vpc},
    eventually,
    guest::Guest,
    ok,
};

const HERE: &str = "192.0.2.1";
const THERE: &str = "192.0.2.2";
const ONE: (&str, &str) = ("52:54:00:00:00:01", "10.0.0.2");
const TWO: (&str, &str) = ("52:54:00:00:00:02", "10.0.0.3");
const FAR: (&str, &str) = ("52:54:00:00:00:03", "10.0.1.2");

/// Gives a host an uplink: with the userspace datapath a bridge owns it and carries the tunnel's address.
fn connect(host: &Host, address: &str) {
    host.netns.ok(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
    host.netns.ok(&["ethtool", "-K", "uplink", "tx", "off"]);
    host.netns.ip(&["link", "set", "dev", "uplink", "up"]);
    host.ovs.vsctl(&["add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev"]);
    host.ovs.vsctl(&["add-port", "br-phy", "uplink"]);
    host.netns.ip(&["addr", "add", &format!("{address}/24"), "dev", "br-phy"]);
    host.netns.ip(&["link", "set", "dev", "br-phy", "up"]);
}

async fn hosts(cloud: &Cloud) -> [(Host, Agent); 2] {
    let here = Host::with(cloud, &["--tunnel-address", HERE]).await;
    let there = Host::with(cloud, &["--tunnel-address", THERE]).await;
    let (a, b) = (&here.netns.0, &there.netns.0);
    let pair = ["link", "add", "uplink", "netns", a, "type", "veth", "peer", "name", "uplink", "netns", b];
    ok("ip", &pair);
    connect(&here, HERE);
    connect(&there, THERE);
    assert!(here.netns.run(&["ping", "-c", "3", "-i", "0.2", "-W", "1", THERE]).status.success(), "the underlay");
    let (agent, other) = (here.agent(cloud).await, there.agent(cloud).await);
    [(here, agent), (there, other)]
}

/// The same VPC as the other host is told of it.
fn seen_from(vpc: &Vpc, local: &[PortId], end: &str) -> Vpc {
    let mut vpc = vpc.clone();
    for port in &mut vpc.ports {
        port.local = local.iter().any(|id| id.to_string() == port.id);
        port.tunnel_address = if port.local { String::new() } else { end.to_owned() };
    }
    vpc
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_reach_each_other_across_hosts_and_vpcs_stay_apart() {
    let cloud = Cloud::new();
    let [(here, mut agent), (there, mut other)] = hosts(&cloud).await;
    let mut a = Vpc::new(0x00ff_0005, &["10.0.0.0/24", "10.0.1.0/24"]);
    let (a1, a2, a3) = (a.port("a1", ONE.0, ONE.1), a.port("a2", TWO.0, TWO.1), a.port("a3", FAR.0, FAR.1));
    // Equal addresses in another VPC, also on both hosts.
    let mut b = Vpc::new(6, &["10.0.0.0/24"]);
    let (b1, b2) = (b.port("b1", ONE.0, ONE.1), b.port("b2", TWO.0, TWO.1));
    agent.apply(&seen_from(&a, &[a1], THERE)).await;
    agent.apply(&seen_from(&b, &[b1], THERE)).await;
    other.apply(&seen_from(&a, &[a2, a3], HERE)).await;
    let (ga1, gb1) = (Guest::with_address(&here, a1, ONE.0, ONE.1), Guest::with_address(&here, b1, ONE.0, ONE.1));
    let (ga2, ga3) = (Guest::with_address(&there, a2, TWO.0, TWO.1), Guest::with_address(&there, a3, FAR.0, FAR.1));

    eventually("the tunnel carries packets", async || ga1.pings(TWO.1) == 5).await;
    assert_eq!(ga2.pings(ONE.1), 5, "and back");
    assert_eq!(ga1.pings(FAR.1), 5, "into another subnet");
    assert_eq!(ga3.pings(ONE.1), 5, "and back");
    assert_eq!(ga1.pings_with(TWO.1, &["-s", "1422", "-M", "do"]), 5, "the largest packet of MTU 1450");

    // The other host does not take part in b yet: what b1 sends arrives there and ends there.
    let (heard, dropped) = (ga2.received(), there.ovs.packets(0, &["priority=0"]));
    assert_eq!(gb1.pings(TWO.1), 0);
    eventually("b's packets are dropped by the other host", async || {
        there.ovs.packets(0, &["priority=0"]) >= dropped + 5
    })
    .await;
    assert_eq!(ga2.received(), heard, "a packet of b came out in a");

    other.apply(&seen_from(&b, &[b2], HERE)).await;
    let gb2 = Guest::with_address(&there, b2, TWO.0, TWO.1);
    let heard = ga2.received();
    assert_eq!((gb1.pings(TWO.1), gb2.pings(ONE.1)), (5, 5), "within b");
    assert_eq!(ga2.received(), heard, "a packet of b came out in a");

    // a1 leaves: its host is no member of a any more, and nothing that it labels as a's is taken.
    a.generation = 2;
    a.ports.retain(|port| port.id != a1.to_string());
    other.apply(&seen_from(&a, &[a2, a3], HERE)).await;
    let heard = ga2.received();
    assert_eq!(ga1.pings(TWO.1), 0);
    assert_eq!(ga2.received(), heard);
    assert_eq!(ga2.pings(FAR.1), 5, "the control");
    agent.stop().await;
    other.stop().await;
}
