//! Hosts that are cut off, restarted, broken or without power.

use std::time::Duration;

use cloud_contracts::agent::{AgentRole, RegisterRequest, host_service_client::HostServiceClient};
use cloud_testkit::{Effect, Method, Role, sim::Rule, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use serde_json::json;

use crate::support::{refused, text};

fn impatient() -> Setup {
    Setup { args: vec!["--heartbeat-timeout-ms=2000".into(), "--heartbeat-interval-ms=200".into()], ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_what_its_agents_say() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
    assert_eq!(text(&host, "id"), cloud.host().id());
    assert_eq!(host["vcpus"], 64);
    assert_eq!(host["agents"].as_array().unwrap().len(), 3);
    assert!(host["agents"].as_array().unwrap().iter().all(|a| a["reachable"] == true), "{host}");
    assert_eq!(host["pools"][0]["name"], "default");
    assert_eq!(host["accelerator"], "tcg");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_cut_off_keeps_its_instances_as_they_were() -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient()).await?;
    let id = text(&cloud.running("web-01").await?, "id");
    cloud.host().cut_network();
    cloud.hosts_are("UNREACHABLE").await?;
    let instance = cloud.instance("web-01").await?;
    assert_eq!((&instance["status"], &instance["host_reachable"]), (&json!("RUNNING"), &json!(false)));
    let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
    assert!(!text(&host, "state_reason").is_empty(), "{host}");
    let launch = cloud.rest.post("/instances", &json!({"name": "web-02", "image": IMAGE})).await?;
    refused(&launch, 429, "RESOURCE_EXHAUSTED");
    assert!(launch.at("/error/message").contains("UNREACHABLE"), "{}", launch.text());

    cloud.host().mend_network();
    cloud.hosts_are("UP").await?;
    assert_eq!(cloud.instance("web-01").await?["host_reachable"], true);
    assert_eq!(cloud.host().snapshot().domains[&id].starts, 1);
    cloud.running("web-02").await?;
    cloud.settles(2, 2, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_while_a_host_is_away_happens_when_it_is_back() -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient()).await?;
    let id = text(&cloud.running("web-01").await?, "id");
    cloud.host().cut_network();
    cloud.hosts_are("UNREACHABLE").await?;
    assert_eq!(cloud.rest.delete("/instances/web-01").await?.expect(200)?["status"], "DELETING");
    cloud.host().mend_network();
    cloud.becomes(&id, "DELETED").await?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_gateway_blames_no_host_when_it_wakes() -> anyhow::Result<()> {
    let mut cloud = TestCloud::with(impatient()).await?;
    cloud.running("web-01").await?;
    let process = cloud.gateway.process().unwrap();
    process.freeze()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    process.thaw()?;
    cloud.hosts_are("UP").await?;
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_agent_restarts_while_instances_are_launched() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let slow = Rule::on_all(Method::ALL.iter().copied(), Effect::Delay(Duration::from_millis(20)));
    cloud.host().faults().inject(slow);
    for (number, role) in Role::ALL.into_iter().enumerate() {
        cloud.launch(&format!("i-{number}")).await?;
        cloud.host().restart_agent(role)?;
    }
    for number in 0..3 {
        cloud.becomes(&format!("i-{number}"), "RUNNING").await?;
    }
    cloud.settles(3, 3, 3).await?;
    assert!(cloud.host().snapshot().domains.values().all(|d| d.starts == 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_agent_makes_its_host_unreachable_and_names_itself() -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient()).await?;
    cloud.host().kill_agent(Role::Storage);
    cloud.hosts_are("UNREACHABLE").await?;
    let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
    assert!(text(&host, "state_reason").contains("storage"), "{host}");
    cloud.host().start_agent(Role::Storage)?;
    cloud.hosts_are("UP").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_backend_is_told_to_operators() -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient()).await?;
    cloud.host().set_backend_error(Role::Compute, Some("libvirtd does not answer"));
    cloud.hosts_are("UNREACHABLE").await?;
    let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
    assert!(host.to_string().contains("libvirtd does not answer"), "{host}");
    cloud.host().set_backend_error(Role::Compute, None);
    cloud.hosts_are("UP").await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_failure_what_should_run_runs() -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient()).await?;
    let runs = text(&cloud.running("runs").await?, "id");
    let stopped = text(&cloud.running("stopped").await?, "id");
    cloud.rest.post("/instances/stopped/stop", &json!({})).await?.expect(200)?;
    cloud.host().power_off();
    cloud.hosts_are("UNREACHABLE").await?;
    assert_eq!(cloud.instance("runs").await?["status"], "RUNNING", "its status is what was last known");
    cloud.host().power_on()?;
    cloud.hosts_are("UP").await?;
    until("the guest to run again", PATIENCE, || async {
        let snapshot = cloud.host().snapshot();
        let starts = snapshot.domains.get(&runs).map(|d| d.starts);
        Ok(if starts == Some(2) && snapshot.running() == 1 { Ok(()) } else { Err(format!("{starts:?}")) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    cloud.becomes("runs", "RUNNING").await?;
    assert_eq!(cloud.instance(&stopped).await?["status"], "STOPPED");
    cloud.settles(1, 2, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_host_does_not_starve_the_others() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 2, ..Setup::default() }).await?;
    cloud.hosts[0].faults().inject(Rule::on(Method::EnsureVolume, Effect::Hang));
    let mut there = Vec::new();
    for number in 0..20 {
        let launched = cloud.launch(&format!("i-{number}")).await?;
        if launched["host"] == "h2" {
            there.push(text(&launched, "id"));
        }
    }
    assert!(!there.is_empty(), "placement uses both hosts");
    for id in there {
        cloud.becomes_within(&id, "RUNNING", Duration::from_secs(5)).await?;
    }
    cloud.hosts[0].faults().clear();
    for number in 0..20 {
        cloud.becomes(&format!("i-{number}"), "RUNNING").await?;
    }
    cloud.settles(20, 20, 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hosts_name_that_another_has_is_refused() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 2, ..Setup::default() }).await?;
    let channel = tonic::transport::Endpoint::try_from(cloud.gateway.host_endpoint())?.connect_lazy();
    let mut gateway = HostServiceClient::new(channel);
    // A host that is known and is renamed, and one that is new.
    for host_id in [cloud.hosts[1].id().to_owned(), uuid::Uuid::new_v4().to_string()] {
        let request = RegisterRequest {
            host_id,
            host_name: "h1".into(),
            role: AgentRole::Compute.into(),
            session_id: uuid::Uuid::new_v4().to_string(),
            endpoint: cloud.hosts[1].endpoint(Role::Compute),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            ..RegisterRequest::default()
        };
        let refused = gateway.register(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused:?}");
        assert!(refused.message().contains("h1"), "{refused:?}");
    }
    cloud.hosts_are("UP").await
}
