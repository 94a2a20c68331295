//! Who reaches whom.

use crate::support::{
    agent::Host,
    cloud::{Cloud, Vpc},
    eventually,
    guest::Guest,
};

const A1: (&str, &str) = ("52:54:00:00:00:01", "10.0.0.2");
const A2: (&str, &str) = ("52:54:00:00:00:02", "10.0.0.3");
const B2: (&str, &str) = ("52:54:00:00:00:04", "10.0.0.4");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_reach_their_own_vpc_and_no_other_even_with_equal_addresses() {
    let cloud = Cloud::new();
    let host = Host::new(&cloud).await;
    let mut agent = host.agent(&cloud).await;
    let (mut a, mut b) = (Vpc::new(5, &["10.0.0.0/24"]), Vpc::new(6, &["10.0.0.0/24"]));
    let (a1, a2) = (a.port("a1", A1.0, A1.1), a.port("a2", A2.0, A2.1));
    // The same MAC and IP addresses as a1.
    let (b1, b2) = (b.port("b1", A1.0, A1.1), b.port("b2", B2.0, B2.1));
    agent.apply(&a).await;
    agent.apply(&b).await;
    let (a1, a2) = (Guest::with_address(&host, a1, A1.0, A1.1), Guest::with_address(&host, a2, A2.0, A2.1));
    let (b1, b2) = (Guest::with_address(&host, b1, A1.0, A1.1), Guest::with_address(&host, b2, B2.0, B2.1));

    assert_eq!(a1.pings(A2.1), 5, "within a");
    assert_eq!(b1.pings(B2.1), 5, "within b");
    let mut server = a2.spawn("busybox", &["nc", "-l", "-p", "7777", "-e", "/bin/busybox", "echo", "hello"]);
    eventually("TCP passes", async || a1.run(&["busybox", "nc", "-w", "2", A2.1, "7777"]).stdout == b"hello\n").await;
    server.wait().unwrap();
    assert_eq!(a1.pings("10.0.0.1"), 5, "the gateway of a");
    assert_eq!(b2.pings("10.0.0.1"), 5, "the gateway of b");

    // b1 knows a2's MAC address, so that its packets leave; they must arrive nowhere.
    b1.ip(&["neigh", "replace", A2.1, "lladdr", A2.0, "dev", "eth0"]);
    a1.ip(&["neigh", "replace", B2.1, "lladdr", B2.0, "dev", "eth0"]);
    let before = [a1.received(), a2.received(), b2.received()];
    let dropped = host.ovs.packets(60, &["priority=0"]);
    assert_eq!(b1.pings(A2.1), 0, "from b to a");
    assert_eq!(a1.pings(B2.1), 0, "from a to b");
    assert_eq!([a1.received(), a2.received(), b2.received()], before, "a packet crossed");
    eventually("all ten came to the table that knows no such neighbour, and were dropped", async || {
        host.ovs.packets(60, &["priority=0"]) - dropped == 10
    })
    .await;

    // By ARP alone there is no answer either.
    b1.ip(&["neigh", "flush", "all"]);
    a1.ip(&["neigh", "flush", "all"]);
    assert_eq!(b1.pings(A2.1), 0);
    // The control: the same guests still see their own.
    assert_eq!((a1.pings(A2.1), b1.pings(B2.1)), (5, 5));
    assert!(a2.received() >= before[1] + 5);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subnets_of_a_vpc_are_routed_and_large_packets_pass() {
    let cloud = Cloud::new();
    let host = Host::new(&cloud).await;
    let mut agent = host.agent(&cloud).await;
    let mut vpc = Vpc::new(0x00ab_cdef, &["10.1.0.0/24", "10.2.0.0/24"]);
    let (mac1, mac2, mac3) = ("52:54:00:00:01:01", "52:54:00:00:02:01", "52:54:00:00:01:02");
    let (p1, p2) = (vpc.port("p1", mac1, "10.1.0.2"), vpc.port("p2", mac2, "10.2.0.2"));
    let p3 = vpc.port("p3", mac3, "10.1.0.9");
    let mut other = Vpc::new(7, &["10.2.0.0/24"]);
    let q = other.port("q", mac2, "10.2.0.2");
    agent.apply(&vpc).await;
    agent.apply(&other).await;
    let (g1, g2) = (Guest::with_address(&host, p1, mac1, "10.1.0.2"), Guest::with_address(&host, p2, mac2, "10.2.0.2"));
    let (g3, q) = (Guest::with_address(&host, p3, mac3, "10.1.0.9"), Guest::with_address(&host, q, mac2, "10.2.0.2"));

    assert_eq!(g1.pings("10.2.0.2"), 5, "across subnets");
    assert_eq!(g2.pings("10.1.0.2"), 5, "and back");
    let ttl = String::from_utf8_lossy(&g1.run(&["ping", "-n", "-c", "1", "-W", "1", "10.2.0.2"]).stdout).into_owned();
    assert!(ttl.contains("ttl=63"), "one hop each way: {ttl}");
    assert_eq!(g1.pings("10.2.0.1"), 5, "the gateway of the other subnet");
    assert_eq!(g1.pings_with("10.1.0.9", &["-s", "3000"]), 5, "fragments");
    assert_eq!(g1.pings_with("10.2.0.2", &["-s", "1422", "-M", "do"]), 5, "the largest packet of MTU 1450");
    assert_eq!(g1.pings_with("10.1.0.9", &["-s", "1423", "-M", "do"]), 0, "one byte more");
    assert_eq!(g1.pings("10.2.0.77"), 0, "nobody's address");
    assert_eq!(g1.pings("10.9.0.1"), 0, "nobody's network");
    let before = q.received();
    assert_eq!(q.pings("10.1.0.2"), 0, "another VPC's router leads nowhere");
    assert_eq!(g1.pings("10.2.0.2"), 5);
    assert_eq!(q.received(), before + 1, "q has heard its gateway's ARP answer and nothing else");
    drop(g3);
    agent.stop().await;
}
