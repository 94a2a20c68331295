//! What a guest may not send, and whom else it must not reach: the host.

use crate::support::{
    agent::Host,
    cloud::{Cloud, Vpc},
    eventually,
    frame::ping,
    guest::Guest,
};

const EVIL: (&str, &str) = ("52:54:00:00:00:01", "10.0.0.2");
const PEER: (&str, &str) = ("52:54:00:00:00:02", "10.0.0.3");

struct Stage {
    host: Host,
    evil: Guest,
    peer: Guest,
    _agent: crate::support::agent::Agent,
    _cloud: Cloud,
}

async fn stage() -> Stage {
    let cloud = Cloud::new();
    let host = Host::new(&cloud).await;
    let mut agent = host.agent(&cloud).await;
    let mut vpc = Vpc::new(5, &["10.0.0.0/24"]);
    let (evil, peer) = (vpc.port("evil", EVIL.0, EVIL.1), vpc.port("peer", PEER.0, PEER.1));
    agent.apply(&vpc).await;
    let evil = Guest::with_address(&host, evil, EVIL.0, EVIL.1);
    let peer = Guest::with_address(&host, peer, PEER.0, PEER.1);
    // So that no packet waits for ARP, and that the peer could answer whoever it hears.
    evil.ip(&["neigh", "replace", PEER.1, "lladdr", PEER.0, "dev", "eth0"]);
    Stage { host, evil, peer, _agent: agent, _cloud: cloud }
}

impl Stage {
    /// Does something bad; nothing must reach the peer, and the table must have dropped at least `dropped` packets on the way.
    async fn nothing_passes(&self, what: &str, table: u8, dropped: u64, act: impl FnOnce()) {
        let (heard, before) = (self.peer.received(), self.host.ovs.packets(table, &["priority=0"]));
        act();
        // The switch counts with a delay.
        eventually(&format!("{what}: table {table} dropped {dropped}"), async || {
            self.host.ovs.packets(table, &["priority=0"]) >= before + dropped
        })
        .await;
        assert_eq!(self.peer.received(), heard, "{what}: a packet passed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_speaks_as_itself_only() {
    let stage = stage().await;
    let Stage { evil, peer, host, .. } = &stage;
    assert_eq!(evil.pings(PEER.1), 5, "as itself");

    evil.ip(&["addr", "add", "10.0.0.77/24", "dev", "eth0"]);
    stage
        .nothing_passes("another IP address", 10, 5, || {
            assert_eq!(evil.pings_with(PEER.1, &["-I", "10.0.0.77"]), 0);
        })
        .await;
    // It says that it has the peer's address, to all, as a man in the middle does.
    evil.ip(&["addr", "add", &format!("{}/32", PEER.1), "dev", "eth0"]);
    stage
        .nothing_passes("ARP of another address", 10, 3, || {
            evil.ok(&["busybox", "arping", "-U", "-c", "3", "-I", "eth0", "-s", PEER.1, PEER.1]);
        })
        .await;
    evil.ip(&["addr", "del", &format!("{}/32", PEER.1), "dev", "eth0"]);
    evil.ip(&["addr", "del", "10.0.0.77/24", "dev", "eth0"]);

    evil.ip(&["link", "set", "dev", "eth0", "address", "52:54:00:00:00:aa"]);
    evil.ip(&["neigh", "replace", PEER.1, "lladdr", PEER.0, "dev", "eth0"]);
    stage.nothing_passes("another MAC address", 10, 5, || assert_eq!(evil.pings(PEER.1), 0)).await;
    evil.ip(&["link", "set", "dev", "eth0", "address", EVIL.0]);
    evil.ip(&["neigh", "replace", PEER.1, "lladdr", PEER.0, "dev", "eth0"]);
    assert_eq!(evil.pings(PEER.1), 5, "as itself again");

    // A VLAN tag in front of a packet that is right otherwise.
    let heard = peer.received();
    evil.send(&ping(EVIL, PEER, None));
    eventually("a frame made by hand passes", async || peer.received() >= heard + 5).await;
    assert_eq!(peer.received(), heard + 5);
    stage.nothing_passes("a VLAN tag", 0, 5, || evil.send(&ping(EVIL, PEER, Some(7)))).await;
    // As the DHCP responder.
    stage
        .nothing_passes("the responder's address", 10, 5, || {
            evil.send(&ping(("02:64:68:63:00:01", EVIL.1), PEER, None));
        })
        .await;

    // IPv6, which nothing speaks here yet.
    evil.ok(&["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0"]);
    evil.ip(&["addr", "add", "fd00::2/64", "dev", "eth0", "nodad"]);
    evil.ip(&["neigh", "replace", "fd00::3", "lladdr", PEER.0, "dev", "eth0"]);
    stage.nothing_passes("IPv6", 10, 5, || assert_eq!(evil.pings("fd00::3"), 0)).await;

    // Broadcasts and multicasts other than DHCP and ARP.
    stage.nothing_passes("a broadcast", 60, 5, || assert_eq!(evil.pings_with("10.0.0.255", &["-b"]), 0)).await;
    stage.nothing_passes("a multicast", 60, 5, || assert_eq!(evil.pings_with("224.0.0.1", &["-I", "eth0"]), 0)).await;

    assert_eq!((evil.pings(PEER.1), peer.pings(EVIL.1)), (5, 5), "after all that");
    assert!(host.ovs.packets(20, &["arp_op=1"]) > 0, "ARP was answered by the switch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_does_not_reach_the_host() {
    let stage = stage().await;
    let Stage { evil, host, .. } = &stage;
    // An address of the host, as its own network has one.
    host.netns.ip(&["link", "add", "uplink", "type", "veth", "peer", "name", "upstream"]);
    host.netns.ip(&["addr", "add", "198.51.100.1/24", "dev", "uplink"]);
    host.netns.ip(&["link", "set", "dev", "uplink", "up"]);
    let mac = host.netns.ok(&["cat", &format!("/sys/class/net/{}/address", evil.device)]);
    evil.ip(&["route", "add", "198.51.100.0/24", "dev", "eth0"]);

    let before = evil.received();
    assert_eq!(evil.pings("198.51.100.1"), 0, "by ARP");
    assert_eq!(evil.received(), before, "the host answered an ARP request");
    evil.ip(&["neigh", "replace", "198.51.100.1", "lladdr", mac.trim(), "dev", "eth0"]);
    assert_eq!(evil.pings("198.51.100.1"), 0, "by the MAC address of its device");
    assert_eq!(evil.received(), before, "the host answered");

    // The control: it is the shield of the device that kept the host out of reach.
    let device = &evil.device;
    host.netns.ok(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", &format!("net.ipv4.conf.{device}.rp_filter=0")]);
    host.netns.ip(&["route", "add", "10.0.0.2/32", "dev", device]);
    host.netns.ip(&["neigh", "replace", "10.0.0.2", "lladdr", EVIL.0, "dev", device]);
    assert_eq!(evil.pings("198.51.100.1"), 5, "without the shield");
}
