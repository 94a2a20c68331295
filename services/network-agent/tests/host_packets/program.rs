//! The program itself, with real taps.

use crate::support::{
    agent::Host,
    cloud::{Cloud, Vpc},
    switch::BRIDGE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_makes_taps_survives_and_cleans_up() {
    let cloud = Cloud::new();
    let host = Host::new(&cloud).await;
    let bare = host.devices();
    let mut agent = host.program(&cloud).await;
    let mut vpc = Vpc::new(5, &["10.0.0.0/24"]);
    let ports = [vpc.port("one", "52:54:00:00:00:01", "10.0.0.2"), vpc.port("two", "52:54:00:00:00:02", "10.0.0.3")];
    let answer = agent.apply(&vpc).await;
    for port in ports {
        let device = host.netns.ip(&["-d", "link", "show", "dev", &port.tap_device()]);
        for word in
            ["tun type tap", "vnet_hdr on", "persist on", "mtu 1450", ",UP", &format!("alias thecloud/{}", cloud.id)]
        {
            assert!(device.contains(word), "{word} in {device}");
        }
    }
    println!("resident: {} KiB", agent.resident() >> 10);
    let flows = host.ovs.flows();
    agent.kill();
    let mut agent = host.program(&cloud).await;
    assert_eq!(host.ovs.flows(), flows);
    assert_eq!(agent.apply(&vpc).await, answer);
    agent.stop().await;
    assert_eq!(host.ovs.flows(), flows);

    // Another cloud's cleanup, and one that does not know whose the things are, take nothing.
    host.netns.ip(&["tuntap", "add", "dev", "tapforeign", "mode", "tap"]);
    let before = host.devices();
    let other = host.cleanup(&["--cloud-id", "7d9f3a52-3c5e-4a55-9d3e-0d3f6f2f2b11"]);
    assert!(!other.status.success());
    assert!(String::from_utf8_lossy(&other.stderr).contains("not touched"), "{other:?}");
    assert_eq!((host.devices(), host.ovs.flows()), (before, flows));

    let cleaned = host.cleanup(&[]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert!(host.ovs.vsctl(&["list-br"]).trim().is_empty(), "{BRIDGE} is still there");
    let mut left = host.devices();
    left.retain(|device| !bare.contains(device));
    // The switch's own datapath device goes when it has no bridge to serve.
    left.retain(|device| device != "ovs-netdev");
    assert_eq!(left, ["tapforeign"]);
    assert!(host.cleanup(&["--cloud-id", &cloud.id.to_string()]).status.success(), "gone is success");
}
