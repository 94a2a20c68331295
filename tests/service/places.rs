//! Hosts that come and go.

use std::time::Duration;

use cloud_contracts::agent::{AgentRole, RegisterRequest, host_service_client::HostServiceClient};
use cloud_testkit::{Role, SimHost, SimHostConfig, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use serde_json::{Value, json};

use crate::support::{names, refused, text};

pub fn impatient(hosts: usize, more: &[&str]) -> Setup {
    let args = ["--heartbeat-timeout-ms=2000", "--heartbeat-interval-ms=200"].iter().chain(more);
    Setup { hosts, args: args.map(|arg| (*arg).to_owned()).collect(), ..Setup::default() }
}

async fn say(cloud: &TestCloud, host: &str, verb: &str) -> anyhow::Result<Value> {
    cloud.rest.post(&format!("/hosts/{host}/{verb}"), &json!({})).await?.expect(200)
}

async fn host_is(cloud: &TestCloud, host: &str, state: &str) -> anyhow::Result<Value> {
    until(&format!("{host} to be {state}"), PATIENCE, || async {
        let answer = cloud.rest.get(&format!("/hosts/{host}")).await?;
        let is = answer.json();
        Ok(if answer.status == 200 && is["state"] == state { Ok(is) } else { Err(answer.text()) })
    })
    .await
    .map_err(|error| cloud.with_log(error))
}

/// Declares a host dead, once none of its agents is heard any more.
async fn fence(cloud: &TestCloud, host: &str) -> anyhow::Result<Value> {
    until(&format!("{host} to be silent"), PATIENCE, || async {
        let answer = cloud.rest.post(&format!("/hosts/{host}/fence"), &json!({})).await?;
        Ok(if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text()) })
    })
    .await
    .map_err(|error| cloud.with_log(error))
}

async fn of_state(cloud: &TestCloud, filter: &str) -> anyhow::Result<Vec<String>> {
    Ok(names(&cloud.rest.get(&format!("/hosts?filter={filter}")).await?.expect(200)?, "hosts"))
}

pub fn placed(name: &str, placement: &Value) -> Value {
    json!({"name": name, "image": IMAGE, "instance_type": "tiny", "placement": placement})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_host_gets_nothing_new_and_keeps_what_it_has() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 2, ..Setup::default() }).await?;
    cloud.rest.post("/instances", &placed("stays", &json!({"host": "h1"}))).await?.expect(201)?;
    cloud.becomes("stays", "RUNNING").await?;
    let before = cloud.rest.get("/hosts/h1").await?.expect(200)?;
    let cordoned = say(&cloud, "h1", "cordon").await?;
    assert_eq!((&cordoned["state"], &cordoned["answers"]), (&json!("CORDONED"), &json!(true)));
    assert_ne!(cordoned["etag"], before["etag"]);
    assert_eq!(say(&cloud, "h1", "cordon").await?["etag"], cordoned["etag"], "said twice is said once");
    let stale = cloud.rest.post("/hosts/h1/uncordon", &json!({"etag": before["etag"]})).await?;
    refused(&stale, 412, "ABORTED");
    for number in 0..6 {
        assert_eq!(cloud.launch(&format!("i-{number}")).await?["host"], "h2");
    }
    let there = cloud.rest.post("/instances", &placed("there", &json!({"host": "h1"}))).await?;
    refused(&there, 429, "RESOURCE_EXHAUSTED");
    assert!(there.at("/error/message").contains("h1: CORDONED"), "{}", there.text());
    assert_eq!(of_state(&cloud, "state=CORDONED").await?, ["h1"]);
    assert_eq!(of_state(&cloud, "state!=CORDONED").await?, ["h2"]);
    assert_eq!(of_state(&cloud, "state=FENCED").await?, Vec::<String>::new());
    assert_eq!(cloud.instance("stays").await?["status"], "RUNNING");
    assert_eq!(say(&cloud, "h1", "uncordon").await?["state"], "UP");
    cloud.rest.post("/instances", &placed("there", &json!({"host": "h1"}))).await?.expect(201)?;
    let events = cloud.rest.get("/events?kind=host").await?.expect(200)?.to_string();
    assert!(events.contains("host.cordon") && events.contains("host.uncordon"), "{events}");
    let metrics = cloud.rest.get("/metrics").await?.text();
    assert!(metrics.contains("hosts{state=\"UP\"") && metrics.contains("hosts{state=\"FENCED\""), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_drains_until_it_holds_no_instance() -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient(1, &[])).await?;
    cloud.running("web-01").await?;
    let draining = say(&cloud, "h1", "drain").await?;
    assert_eq!(draining["state"], "DRAINING");
    assert!(text(&draining, "state_reason").contains("1 instances and 1 volumes"), "{draining}");
    assert_eq!(cloud.instance("web-01").await?["status"], "RUNNING", "nothing is stopped by it");
    let launch = cloud.rest.post("/instances", &json!({"name": "web-02", "image": IMAGE})).await?;
    assert!(launch.at("/error/message").contains("h1: DRAINING"), "{}", launch.text());
    cloud.host().cut_network();
    host_is(&cloud, "h1", "UNREACHABLE").await?;
    cloud.host().mend_network();
    host_is(&cloud, "h1", "DRAINING").await?;
    cloud.delete("web-01").await?;
    let drained = host_is(&cloud, "h1", "CORDONED").await?;
    assert!(text(&drained, "state_reason").contains("drained"), "{drained}");
    say(&cloud, "h1", "uncordon").await?;
    cloud.running("web-02").await?;
    cloud.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_answers_is_not_declared_dead() -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient(1, &[])).await?;
    cloud.host().kill_agent(Role::Storage);
    host_is(&cloud, "h1", "UNREACHABLE").await?;
    let answers = cloud.rest.post("/hosts/h1/fence", &json!({})).await?;
    refused(&answers, 400, "FAILED_PRECONDITION");
    let message = answers.at("/error/message");
    assert!(message.contains("compute, network") && !message.contains("storage"), "{message}");
    assert_eq!(cloud.rest.get("/hosts/h1").await?.expect(200)?["state"], "UNREACHABLE");
    Ok(())
}

/// The host lost its power, or only its network: what was deleted meanwhile goes, what shall run runs.
async fn dies_and_returns(power: bool) -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient(2, &[])).await?;
    let on = |name: &str| placed(name, &json!({"host": "h1"}));
    for name in ["runs", "stopped", "goes"] {
        cloud.rest.post("/instances", &on(name)).await?.expect(201)?;
        cloud.becomes(name, "RUNNING").await?;
    }
    let runs = text(&cloud.instance("runs").await?, "id");
    let goes = text(&cloud.instance("goes").await?, "id");
    cloud.rest.post("/instances/stopped/stop", &json!({})).await?.expect(200)?;
    if power {
        cloud.host().power_off();
    } else {
        cloud.host().cut_network();
    }
    host_is(&cloud, "h1", "UNREACHABLE").await?;
    assert_eq!(cloud.instance("runs").await?["status"], "RUNNING", "silence changes nothing");
    let fenced = fence(&cloud, "h1").await?;
    assert_eq!(fenced["state"], "FENCED");
    assert!(text(&fenced, "state_reason").contains("declared dead by `admin`"), "{fenced}");

    let ended = cloud.becomes("runs", "STOPPED").await?;
    assert_eq!((&ended["desired_status"], &ended["host_reachable"]), (&json!("RUNNING"), &json!(false)));
    assert!(text(&ended, "status_reason").contains("declared dead"), "{ended}");
    let start = cloud.rest.post("/instances/stopped/start", &json!({})).await?;
    refused(&start, 400, "FAILED_PRECONDITION");
    let uncordon = cloud.rest.post("/hosts/h1/uncordon", &json!({})).await?;
    refused(&uncordon, 400, "FAILED_PRECONDITION");
    cloud.delete("goes").await?;
    assert!(cloud.rest.get("/volumes").await?.expect(200)?["volumes"].as_array().unwrap().len() == 2);

    if power {
        cloud.host().power_on()?;
    } else {
        cloud.host().mend_network();
    }
    let back = host_is(&cloud, "h1", "CORDONED").await?;
    assert!(text(&back, "state_reason").contains("is back"), "{back}");
    cloud.becomes("runs", "RUNNING").await?;
    until("what was deleted to be gone", PATIENCE, || async {
        let snapshot = cloud.host().snapshot();
        let left = (snapshot.domains.contains_key(&goes), snapshot.volumes.len(), snapshot.ports());
        Ok(if left == (false, 2, 2) { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    assert_eq!(cloud.host().snapshot().domains[&runs].starts, if power { 2 } else { 1 });
    assert_eq!(cloud.instance("stopped").await?["status"], "STOPPED");
    assert_eq!(cloud.launch("new").await?["host"], "h2", "it gets nothing new until somebody says so");
    assert_eq!(say(&cloud, "h1", "uncordon").await?["state"], "UP");
    cloud.becomes("new", "RUNNING").await?;
    if power {
        return cloud.check();
    }
    // Its guest ran on: its address is free, so its port went first.
    let expected = format!("a port was unplugged while instance {goes} runs on it");
    let wrong: Vec<String> = cloud.host().violations().into_iter().filter(|wrong| *wrong != expected).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_power_is_declared_dead_and_returns() -> anyhow::Result<()> {
    dies_and_returns(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_declared_dead_by_mistake_returns_with_its_guests() -> anyhow::Result<()> {
    dies_and_returns(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_under_way_on_a_dead_host_is_given_up() -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient(1, &[])).await?;
    let hang = cloud_testkit::sim::Rule::on(cloud_testkit::Method::EnsureInstance, cloud_testkit::Effect::Hang);
    cloud.host().faults().inject(hang);
    cloud.launch("web-01").await?;
    cloud.host().power_off();
    host_is(&cloud, "h1", "UNREACHABLE").await?;
    assert_eq!(cloud.instance("web-01").await?["status"], "STARTING");
    fence(&cloud, "h1").await?;
    until("the start to be given up", PATIENCE, || async {
        let is = cloud.instance("web-01").await?;
        let there = is["status"] == "ERROR" && text(&is, "status_reason").contains("declared dead");
        Ok(if there { Ok(()) } else { Err(is.to_string()) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    cloud.delete("web-01").await?;
    cloud.host().faults().clear();
    cloud.host().power_on()?;
    host_is(&cloud, "h1", "CORDONED").await?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fence_command_declares_silent_hosts_dead_where_it_confirms() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (allowed, asked) = (dir.path().join("allowed"), dir.path().join("asked"));
    let script = format!("echo $2 >> {}; test -e {} || exit 7; echo outlet $2 off", asked.display(), allowed.display());
    let command = format!("--fence-command=/bin/sh,-c,{script},fence");
    let cloud = TestCloud::with(impatient(2, &[&command, "--fence-after=0"])).await?;
    cloud.rest.post("/instances", &placed("web-01", &json!({"host": "h1"}))).await?.expect(201)?;
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.host().power_off();
    host_is(&cloud, "h1", "UNREACHABLE").await?;
    until("the command to be run", PATIENCE, || async {
        let times = std::fs::read_to_string(&asked).unwrap_or_default().lines().count();
        Ok(if times > 1 { Ok(()) } else { Err(format!("it ran {times} times")) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    assert_eq!(cloud.instance("web-01").await?["status"], "RUNNING", "nothing is confirmed");
    assert_eq!(cloud.rest.get("/hosts/h1").await?.expect(200)?["state"], "UNREACHABLE");
    std::fs::write(&allowed, "")?;
    let fenced = host_is(&cloud, "h1", "FENCED").await?;
    assert!(text(&fenced, "state_reason").contains("outlet h1 off"), "{fenced}");
    cloud.becomes("web-01", "STOPPED").await?;
    let of_others = std::fs::read_to_string(&asked)?.lines().filter(|line| *line != "h1").count();
    assert_eq!(of_others, 0, "hosts that answer are left alone");
    cloud.host().power_on()?;
    host_is(&cloud, "h1", "CORDONED").await?;
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_host_is_gone_for_good() -> anyhow::Result<()> {
    let cloud = TestCloud::with(impatient(2, &[])).await?;
    cloud.rest.post("/instances", &placed("web-01", &json!({"host": "h1"}))).await?.expect(201)?;
    cloud.becomes("web-01", "RUNNING").await?;
    let holds = cloud.rest.delete("/hosts/h1").await?;
    refused(&holds, 400, "FAILED_PRECONDITION");
    assert!(holds.at("/error/message").contains("instances `web-01`, and volumes `root-"), "{}", holds.text());
    cloud.delete("web-01").await?;
    let id = cloud.host().id().to_owned();
    let removed = cloud.rest.delete("/hosts/h1").await?.expect(200)?;
    assert_eq!(removed["state"], "REMOVED");
    assert_eq!(of_state(&cloud, "").await?, ["h2"]);
    assert_eq!(cloud.rest.get(&format!("/hosts/{id}")).await?.expect(200)?["state"], "REMOVED");

    // Its agents go on calling.
    let channel = tonic::transport::Endpoint::try_from(cloud.gateway.host_endpoint())?.connect_lazy();
    let mut gateway = HostServiceClient::new(channel);
    let register = |host_id: &str, name: &str| RegisterRequest {
        host_id: host_id.to_owned(),
        host_name: name.into(),
        role: AgentRole::Compute.into(),
        session_id: uuid::Uuid::new_v4().to_string(),
        endpoint: "unix:/nowhere".into(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        ..RegisterRequest::default()
    };
    for name in ["h1", "other"] {
        let refused = gateway.register(register(&id, name)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
        assert!(refused.message().contains("was removed"), "{refused:?}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(of_state(&cloud, "").await?, ["h2"]);
    assert_eq!(cloud.launch("web-02").await?["host"], "h2");

    // Its name is free.
    let new =
        SimHost::start(SimHostConfig::new("h1", cloud.dir.path().join("new"), Some(cloud.gateway.host_endpoint())));
    assert!(new.is_err(), "sockets need their directory");
    std::fs::create_dir(cloud.dir.path().join("new"))?;
    let _new =
        SimHost::start(SimHostConfig::new("h1", cloud.dir.path().join("new"), Some(cloud.gateway.host_endpoint())))?;
    let new = host_is(&cloud, "h1", "UP").await?;
    assert_ne!(text(&new, "id"), id);
    cloud.rest.post("/instances", &placed("web-01", &json!({"host": "h1"}))).await?.expect(201)?;
    cloud.becomes("web-01", "RUNNING").await?;
    Ok(())
}
