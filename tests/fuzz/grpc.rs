//! Every method over gRPC, with anything.

use cloud_contracts::agent::host_service_server;
use cloud_testkit::Role;
use cloud_tests::{
    TestCloud,
    chaos::{Chaos, daemon_is_sound},
    cloud::IMAGE,
    fuzz::{Fuzzer, message::Words, methods, methods_of, wire::Target},
};

use crate::hasty_cloud;

/// What the strings of calls are made of, so that many of them find something.
fn words() -> Words {
    let names = ["web-01", "data-01", IMAGE, "default", "h1", "h2", "f", "f0"];
    Words::default()
        .with("", &names)
        .with("name", &[])
        .with("image", &[IMAGE])
        .with("vpc", &["", "default"])
        .with("subnet", &["", "default"])
        .with("instance_type", &["", "tiny"])
        .with("host", &["h1", "h2"])
        .with("etag", &["", "1", "2"])
        .with("cidr", &["10.0.0.0/16", "10.1.0.0/24", "0.0.0.0/0", "10.0.0.0/33", "::/0"])
        // This machine only: the discard port, where nobody listens.
        .with("url", &["http://127.0.0.1:9/x", "http://[::1]:9/x", "file:///etc/passwd", "http://"])
        .with("file", &["x.qcow2", "../x"])
        .with("service", &["", "cloud.v1.InstanceService", "nonsense"])
        .with("file_containing_symbol", &["cloud.v1.Instance", "cloud.v1.InstanceService.GetInstance"])
        .with("file_by_filename", &["cloud/v1/instances.proto", "../../etc/passwd"])
        .with("page_token", &["", "f"])
        .with("ssh_keys", &["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVl me"])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_contract_withstands_anything() -> anyhow::Result<()> {
    let chaos = Chaos::new("gRPC fuzz of cloud.v1", 20);
    let mut cloud = hasty_cloud().await?;
    cloud.running("web-01").await?;
    let mut methods = methods(&["cloud.v1."])?;
    assert!(methods.len() > 80, "{} methods", methods.len());
    // What every gRPC server of this cloud has beside them.
    for descriptors in [
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
    ] {
        methods.extend(methods_of(descriptors, &["grpc."])?);
    }
    let fuzzer = Fuzzer {
        target: Target(format!("127.0.0.1:{}", cloud.gateway.port())),
        methods,
        words: words(),
        key: Some(cloud.gateway.key()?),
    };
    fuzzer.run(&chaos).await.map_err(|error| cloud.with_log(error))?;
    still_works(&mut cloud).await.map_err(|error| chaos.context(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_call_withstands_anything() -> anyhow::Result<()> {
    let chaos = Chaos::new("gRPC fuzz of HostService", 8);
    let mut cloud = hasty_cloud().await?;
    let host = cloud.host();
    let fuzzer = Fuzzer {
        target: Target(cloud.gateway.host_endpoint()),
        methods: methods(&[host_service_server::SERVICE_NAME])?,
        words: Words::default()
            .with("host_id", &[host.id(), "0b5f2bb0-9d3c-4e07-8f3d-0d4cf2a1f7aa"])
            .with("host_name", &["h1", "h3"])
            .with("session_id", &[&host.session(Role::Compute), "6a3cbd4e-7c39-44e0-9a58-d5b4ad7d9c11"])
            .with("boot_id", &["3b0f8a52-8a7c-4f6e-9f56-7f4e2f9d2c11"])
            .with("agent_version", &["0.1.0"])
            .with("endpoint", &["unix:/nonesuch/compute.sock", "127.0.0.1:9", "", "unix:"]),
        key: None,
    };
    fuzzer.run(&chaos).await.map_err(|error| cloud.with_log(error))?;
    // Its hosts are what the fuzzer made of them, so only the gateway itself is asked.
    daemon_is_sound(&mut cloud.gateway).await.map_err(|error| chaos.context(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_simulated_agents_serve_withstands_anything() -> anyhow::Result<()> {
    for (number, (role, service)) in Role::ALL.into_iter().zip(["Compute", "Storage", "Network"]).enumerate() {
        let chaos = Chaos::new(&format!("gRPC fuzz of a simulated {role}-agent"), 3);
        let mut cloud = hasty_cloud().await?;
        let host = cloud.host();
        let fuzzer = Fuzzer {
            target: Target(host.endpoint(role)),
            methods: methods(&[&format!("cloud.agent.v1.{service}")])?,
            words: Words::default()
                .with("session_id", &[&host.session(role)])
                .with("cloud_id", &["0b5f2bb0-9d3c-4e07-8f3d-0d4cf2a1f7aa"])
                .with("", &["6a3cbd4e-7c39-44e0-9a58-d5b4ad7d9c11", "0b5f2bb0-9d3c-4e07-8f3d-0d4cf2a1f7aa", "f"]),
            key: None,
        };
        fuzzer.run(&chaos).await?;
        assert_eq!(number, role as usize);
        // Its gateway sees what the fuzzer left there, and must bear it.
        daemon_is_sound(&mut cloud.gateway).await.map_err(|error| chaos.context(error))?;
    }
    Ok(())
}

/// The gateway is sound, did nothing wrong on its hosts, and launches.
async fn still_works(cloud: &mut TestCloud) -> anyhow::Result<()> {
    daemon_is_sound(&mut cloud.gateway).await?;
    cloud.check()?;
    cloud.launches_something_new().await?;
    daemon_is_sound(&mut cloud.gateway).await
}
