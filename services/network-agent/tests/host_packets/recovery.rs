//! What dies, and what must go on.

use std::time::{Duration, Instant};

use crate::support::{
    agent::{Agent, Host},
    cloud::{Cloud, Vpc},
    eventually,
    guest::{Guest, received},
    switch::BRIDGE,
};

const ONE: (&str, &str) = ("52:54:00:00:00:01", "10.0.0.2");
const TWO: (&str, &str) = ("52:54:00:00:00:02", "10.0.0.3");

struct Stage {
    cloud: Cloud,
    host: Host,
    agent: Agent,
    vpc: Vpc,
    one: Guest,
    two: Guest,
}

async fn stage() -> Stage {
    let cloud = Cloud::new();
    let host = Host::new(&cloud).await;
    let mut agent = host.agent(&cloud).await;
    let mut vpc = Vpc::new(5, &["10.0.0.0/24"]);
    let (one, two) = (vpc.port("one", ONE.0, ONE.1), vpc.port("two", TWO.0, TWO.1));
    agent.apply(&vpc).await;
    let one = Guest::with_address(&host, one, ONE.0, ONE.1);
    let two = Guest::with_address(&host, two, TWO.0, TWO.1);
    assert_eq!(one.pings(TWO.1), 5);
    Stage { cloud, host, agent, vpc, one, two }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_dies_and_comes_back_and_no_packet_is_lost() {
    let Stage { cloud, host, agent, vpc, one, two } = stage().await;
    let (flows, since) = (host.ovs.flows(), Instant::now());
    let pinging = one.spawn("ping", &["-n", "-q", "-i", "0.01", "-W", "1", TWO.1]);

    agent.kill();
    assert_eq!(host.ovs.flows(), flows, "nothing goes with the agent");
    let mut agent = host.agent(&cloud).await;
    assert_eq!(host.ovs.flows(), flows, "nothing changes by adopting");
    let adopted = agent.list().await;
    assert_eq!((adopted[0].vni, adopted[0].epoch, adopted[0].generation), (5, 0, 0));
    assert_eq!(adopted[0].ports.len(), 2);
    agent.apply(&vpc).await;
    assert_eq!(host.ovs.flows(), flows, "the same slice is the same flows");
    assert_eq!(agent.list().await[0].generation, 1);
    // As `systemctl restart` would.
    agent.stop().await;
    let agent = host.agent(&cloud).await;
    assert_eq!(host.ovs.flows(), flows);
    assert!(host.ovs.youngest_flow() >= since.elapsed().as_secs_f64() - 0.2, "a flow was made anew");

    crate::support::ok("kill", &["-INT", &pinging.id().to_string()]);
    let summary = pinging.wait_with_output().unwrap();
    let summary = String::from_utf8_lossy(&summary.stdout).into_owned();
    let sent: u32 =
        summary.lines().find(|l| l.contains("transmitted")).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(sent > 20, "{summary}");
    // The last one may have been on its way.
    assert!(received(&summary) + 1 >= sent, "{summary}");
    assert!(two.received() > 0);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_switch_dies_and_its_flows_come_back() {
    let Stage { cloud, mut host, mut agent, mut vpc, one, two } = stage().await;
    let flows = host.ovs.flows();
    host.ovs.kill_daemon();
    eventually("the gateway hears of it", async || host.heard(&cloud).unwrap().healthy == Some(false)).await;
    assert_eq!(one.pings(TWO.1), 0, "no switch, no packets: the control");
    let started = Instant::now();
    host.ovs.kill_and_restart_daemon(&host.netns);
    eventually("guests reach each other again", async || one.pings(TWO.1) == 5).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(host.ovs.flows(), flows);
    eventually("the gateway hears of it", async || host.heard(&cloud).unwrap().healthy == Some(true)).await;
    assert_eq!(two.pings("10.0.0.1"), 5);
    // The responder's device was made anew with the switch.
    let directory = tempfile::tempdir().unwrap();
    eventually("DHCP works again", async || one.dhcp(directory.path(), &[]).is_some()).await;
    // And changes go on.
    vpc.generation = 2;
    vpc.ports.truncate(1);
    agent.apply(&vpc).await;
    assert_eq!(one.pings(TWO.1), 0);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_and_ports_that_someone_removed_are_mended() {
    let Stage { cloud, host, mut agent, mut vpc, one, two } = stage().await;
    let flows = host.ovs.flows();
    let mended = async || host.ovs.flows() == flows;
    let wiped = Instant::now();
    host.ovs.ofctl("del-flows", &[]);
    eventually("all flows are back", mended).await;
    // Looked at every second here; by default every two.
    assert!(wiped.elapsed() < Duration::from_secs(2), "{:?}", wiped.elapsed());
    assert_eq!(one.pings(TWO.1), 5);
    host.ovs.ofctl("del-flows", &["table=60"]);
    eventually("one table's flows are back", mended).await;
    host.ovs.ofctl("add-flow", &["table=0,priority=200,actions=NORMAL"]);
    eventually("a foreign flow is gone", mended).await;
    // The number of flows stays: only a thorough look finds this one.
    host.ovs.ofctl("mod-flows", &["table=60,dl_dst=52:54:00:00:00:02,metadata=5,actions=drop"]);
    assert_eq!(one.pings(TWO.1), 0, "the flow was spoilt");
    eventually("a changed flow is as it was", mended).await;
    assert_eq!(one.pings(TWO.1), 5);

    // A port that is unplugged leaves its flows: their number says nothing.
    let device = vpc.ports[1].id.parse::<cloud_domain::PortId>().unwrap().tap_device();
    let unplugged = Instant::now();
    host.ovs.vsctl(&["del-port", BRIDGE, &device]);
    eventually("the port is plugged again", async || one.pings(TWO.1) == 5).await;
    assert!(unplugged.elapsed() < Duration::from_secs(8), "{:?}", unplugged.elapsed());

    // A whole bridge: ports, flows and all.
    host.ovs.vsctl(&["del-br", BRIDGE]);
    eventually("guests reach each other again", async || one.pings(TWO.1) == 5).await;
    assert_eq!(two.pings("10.0.0.1"), 5);
    eventually("the gateway hears that all is well", async || host.heard(&cloud).unwrap().healthy == Some(true)).await;

    // After a new start, flows of VPCs that nothing names are not kept: their port numbers are used again.
    agent.kill();
    host.ovs.ofctl("add-flow", &["table=10,priority=200,cookie=0x0300004200000009,in_port=9,ip,actions=goto_table:25"]);
    agent = host.agent(&cloud).await;
    assert!(!host.ovs.flows().iter().any(|flow| flow.contains("0x300004200000009")));
    vpc.generation = 2;
    agent.apply(&vpc).await;
    assert_eq!(one.pings(TWO.1), 5);
    let resident = agent.resident() >> 20;
    assert!(resident < 60, "{resident} MiB in a debug build");
    agent.stop().await;
}
