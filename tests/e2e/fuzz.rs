//! The real agents' own servers, called with anything: they must refuse or do it, and go on. See `cloud_tests::fuzz`.

use anyhow::Context as _;
use cloud_testkit::Role;
use cloud_tests::{
    RealCloud,
    chaos::{Chaos, bugs},
    fuzz::{Fuzzer, message::Words, methods, wire::Target},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn agents_withstand_anything() -> anyhow::Result<()> {
    let mut cloud = RealCloud::start().await?;
    cloud.launch("web-01", json!({})).await?;
    cloud.becomes("web-01", "RUNNING").await?;
    for (role, service) in Role::ALL.into_iter().zip(["Compute", "Storage", "Network"]) {
        let chaos = Chaos::new(&format!("gRPC fuzz of the {role}-agent"), 6);
        let fuzzed = fuzz(&chaos, &mut cloud, role, service).await;
        fuzzed.map_err(|error| chaos.context(cloud.with_logs(error)))?;
    }
    // What the fuzzer had made is unknown to the database; the cloud itself works as before.
    cloud.is_up().await?;
    cloud.launch("web-02", json!({})).await?;
    cloud.becomes("web-02", "RUNNING").await?;
    Ok(())
}

async fn fuzz(chaos: &Chaos, cloud: &mut RealCloud, role: Role, service: &str) -> anyhow::Result<()> {
    let log = cloud.dir().join(format!("{role}.log"));
    let said = std::fs::read_to_string(&log)?;
    let session = said.split("session=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let session = session.context("an agent logs its session")?;
    let id = std::fs::read_to_string(cloud.dir().join("cloud-id"))?;
    let fuzzer = Fuzzer {
        target: Target(format!("unix:{}", cloud.dir().join(format!("{role}.sock")).display())),
        methods: methods(&[&format!("cloud.agent.v1.{service}")])?,
        words: Words::default()
            .with("session_id", &[session])
            .with("cloud_id", &[id.trim()])
            .with("", &["6a3cbd4e-7c39-44e0-9a58-d5b4ad7d9c11", "0b5f2bb0-9d3c-4e07-8f3d-0d4cf2a1f7aa", "f"])
            .with("mac", &["52:54:00:00:00:01", "02:63:6c:6f:75:64"])
            .with("ip", &["10.0.0.2", "10.0.0.1", "255.255.255.255"])
            .with("cidr", &["10.0.0.0/16"]),
        key: None,
    };
    fuzzer.run(chaos).await?;
    let ended = cloud.agent_mut(role).context("the agent was started")?.ended()?;
    anyhow::ensure!(ended.is_none(), "the {role}-agent ended: {ended:?}");
    let bugs = bugs(&std::fs::read_to_string(&log)?);
    anyhow::ensure!(bugs.is_empty(), "the {role}-agent panicked: {bugs:?}");
    Ok(())
}
