//! Slices: newer, equal, older; removal; what belongs to others.

use tonic::Code;

use crate::support::{
    agent::Host,
    cloud::{Cloud, Vpc},
    eventually,
    guest::Guest,
    switch::BRIDGE,
};

const ONE: (&str, &str) = ("52:54:00:00:00:01", "10.0.0.2");
const TWO: (&str, &str) = ("52:54:00:00:00:02", "10.0.0.3");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_are_ordered_and_removal_leaves_nothing() {
    let cloud = Cloud::new();
    let host = Host::new(&cloud).await;
    let mut agent = host.agent(&cloud).await;
    let (bare_flows, bare_devices) = (host.ovs.flows(), host.devices());
    let bare_ports = host.ovs.vsctl(&["list-ports", BRIDGE]);

    let mut vpc = Vpc::new(5, &["10.0.0.0/24"]);
    let first = vpc.port("one", ONE.0, ONE.1);
    let answer = agent.apply(&vpc).await;
    assert_eq!(answer.ports.len(), 1);
    assert_eq!(answer.ports[0].device, first.tap_device());
    assert!((1..32768).contains(&answer.ports[0].ofport));
    let interface = |column: &str| host.ovs.vsctl(&["get", "interface", &first.tap_device(), column]);
    assert_eq!(interface("ofport").trim(), answer.ports[0].ofport.to_string());
    let tags = interface("external_ids");
    for tag in [cloud.id.to_string(), vpc.id.to_string(), first.to_string(), vpc.ports[0].instance_id.clone()] {
        assert!(tags.contains(&tag), "{tag} in {tags}");
    }

    // Equal: nothing is touched, not even a counter.
    let guest = Guest::with_address(&host, first, ONE.0, ONE.1);
    assert_eq!(guest.pings("10.0.0.1"), 5);
    let counted = async || host.ovs.packets(40, &["icmp"]) == 5;
    eventually("five pings are counted", counted).await;
    assert_eq!(agent.apply(&vpc).await, answer);
    assert!(counted().await);

    // Newer: one port more, and the first is as it was.
    let older = vpc.clone();
    vpc.generation = 2;
    let second = vpc.port("two", TWO.0, TWO.1);
    let both = agent.apply(&vpc).await;
    assert_eq!(both.ports.len(), 2);
    assert!(both.ports.contains(&answer.ports[0]));
    assert!(counted().await);
    let peer = Guest::with_address(&host, second, TWO.0, TWO.1);
    assert_eq!(guest.pings(TWO.1), 5);

    // Older: refused, nothing changes.
    let flows = host.ovs.flows();
    let refused = agent.try_apply(&older).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(String::from_utf8_lossy(refused.details()).contains("STALE_CALL"), "{refused:?}");
    assert_eq!(host.ovs.flows(), flows);

    let listed = agent.list().await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].vni, listed[0].epoch, listed[0].generation, listed[0].ports.len()), (5, 1, 2, 2));

    // One port less: it goes with its device and its flows.
    vpc.generation = 3;
    vpc.ports.truncate(1);
    drop(peer);
    agent.apply(&vpc).await;
    assert!(!host.devices().contains(&second.tap_device()));
    assert!(!host.ovs.flows().iter().any(|flow| flow.contains(TWO.0) || flow.contains(TWO.1)));
    assert_eq!(guest.pings(TWO.1), 0);
    assert_eq!(guest.pings("10.0.0.1"), 5);

    // All of it.
    let last = vpc.clone();
    vpc.generation = 4;
    drop(guest);
    agent.try_remove(&vpc).await.unwrap();
    agent.try_remove(&vpc).await.expect("gone is success");
    assert_eq!(host.ovs.flows(), bare_flows);
    assert_eq!(host.ovs.vsctl(&["list-ports", BRIDGE]), bare_ports);
    assert_eq!(host.devices(), bare_devices);
    assert!(agent.list().await.is_empty());
    // A late slice does not bring it back.
    assert_eq!(agent.try_apply(&last).await.unwrap_err().code(), Code::FailedPrecondition);
    vpc.generation = 5;
    agent.apply(&vpc).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_slices_are_refused_by_name_and_change_nothing() {
    let cloud = Cloud::new();
    let host = Host::new(&cloud).await;
    let mut agent = host.agent(&cloud).await;
    let mut good = Vpc::new(5, &["10.0.0.0/24"]);
    let port = good.port("one", ONE.0, ONE.1);
    agent.apply(&good).await;
    let flows = host.ovs.flows();

    let mut same_vni = Vpc::new(5, &["10.0.0.0/24"]);
    same_vni.port("x", TWO.0, TWO.1);
    let mut same_port = Vpc::new(6, &["10.0.0.0/24"]);
    same_port.port("x", TWO.0, TWO.1);
    same_port.ports[0].id = port.to_string();
    let mut remote = Vpc::new(7, &["10.0.0.0/24"]);
    remote.port("x", TWO.0, TWO.1);
    remote.ports[0].local = false;
    remote.ports[0].tunnel_address = "192.0.2.9".to_owned();
    let mut unreachable = Vpc::new(10, &["10.0.0.0/24"]);
    unreachable.port("x", TWO.0, TWO.1);
    unreachable.ports[0].local = false;
    for (vpc, word) in [
        (&same_vni, "VNI_CONFLICT"),
        (&same_port, "PORT_CONFLICT"),
        (&remote, "NO_TUNNEL_ADDRESS"),
        (&unreachable, "NO_TUNNEL_ADDRESS"),
    ] {
        let refused = agent.try_apply(vpc).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert!(String::from_utf8_lossy(refused.details()).contains(word), "{word}: {refused:?}");
    }
    let mut reserved = Vpc::new(8, &["10.0.0.0/24"]);
    reserved.port("x", "02:63:6c:6f:75:64", TWO.1);
    let mut outside = Vpc::new(9, &["10.0.0.0/24"]);
    outside.port("x", TWO.0, TWO.1);
    outside.ports[0].ip = "10.0.1.5".to_owned();
    for vpc in [&reserved, &outside] {
        let refused = agent.try_apply(vpc).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    assert_eq!(host.ovs.flows(), flows);
    assert_eq!(agent.list().await.len(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_others_is_not_touched() {
    let cloud = Cloud::new();
    let host = Host::new(&cloud).await;
    host.ovs.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"]);
    host.ovs.ofctl("add-flow", &["table=7,actions=drop"]);
    let (flows, bridge) = (host.ovs.flows(), host.ovs.vsctl(&["list", "bridge", BRIDGE]));
    let mut agent = host.start_agent(&cloud);
    eventually("the agent says why it does not work", async || {
        host.heard(&cloud).is_some_and(|h| h.healthy == Some(false) && h.error.contains("nobody's tag"))
    })
    .await;
    agent.session = host.heard(&cloud).unwrap().session;
    let mut vpc = Vpc::new(5, &["10.0.0.0/24"]);
    vpc.port("one", ONE.0, ONE.1);
    let refused = agent.try_apply(&vpc).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("--bridge"), "{refused:?}");
    assert_eq!((host.ovs.flows(), host.ovs.vsctl(&["list", "bridge", BRIDGE])), (flows, bridge));
    assert_eq!(host.devices().iter().filter(|d| d.starts_with("tap")).count(), 0);
    agent.stop().await;
}
