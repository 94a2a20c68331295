//! Watching a gateway that is killed, hosts that go away, and consumers that do not keep up.

use std::{
    collections::{BTreeMap, HashMap},
    process::Stdio,
    time::{Duration, Instant},
};

use cloud_contracts::v1::{
    CreateVolumeRequest, WatchEventsRequest, WatchVolumesRequest, event_service_client::EventServiceClient,
    volume_service_client::VolumeServiceClient, watch_volumes_response::Change,
};
use cloud_testkit::{GrpcClient, RestClient, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Code, Request, transport::Endpoint};

use crate::support::text;

/// How often the gateway is killed.
const ROUNDS: u32 = 4;

/// A resource as it was told last: its version, and what was told of it in all.
type Seen = BTreeMap<String, (u64, Vec<String>)>;

/// Watches instances by Server-Sent Events for ever, resuming whenever it breaks.
fn watch_instances(rest: RestClient) -> (watch::Receiver<Seen>, JoinHandle<()>) {
    let (tell, told) = watch::channel(Seen::new());
    let task = tokio::spawn(async move {
        let mut last = String::new();
        loop {
            let Ok(Ok(mut stream)) = rest.events("/instances:watch", &last).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while let Ok(Some(event)) = stream.next().await {
                if event.kind == "error" {
                    break;
                }
                if !event.id.is_empty() {
                    last.clone_from(&event.id);
                }
                let instance = &event.data["instance"];
                if instance.is_null() {
                    continue;
                }
                let version: u64 = text(instance, "etag").parse().unwrap();
                tell.send_modify(|seen| {
                    let row = seen.entry(text(instance, "id")).or_default();
                    assert!(version >= row.0, "{event:?} after version {}: from before", row.0);
                    row.0 = version;
                    row.1.push(event.kind.clone());
                });
            }
        }
    });
    (told, task)
}

/// Watches events by gRPC for ever: every revision that was told, and how often. The receiver changes first when the watch has begun.
fn watch_events(grpc: GrpcClient) -> (watch::Receiver<BTreeMap<u64, u32>>, JoinHandle<()>) {
    let (tell, told) = watch::channel(BTreeMap::new());
    let task = tokio::spawn(async move {
        let mut client = EventServiceClient::new(grpc.service());
        let mut token = String::new();
        loop {
            let request = WatchEventsRequest { resume_token: token.clone(), ..Default::default() };
            let Ok(stream) = client.watch_events(request).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let mut stream = stream.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                token = message.resume_token;
                tell.send_modify(|seen| {
                    if let Some(event) = message.event {
                        *seen.entry(event.revision).or_default() += 1;
                    }
                });
            }
        }
    });
    (told, task)
}

/// Every event of the project, by the list.
async fn all_events(rest: &RestClient) -> anyhow::Result<Vec<u64>> {
    let (mut revisions, mut token) = (Vec::new(), String::new());
    loop {
        let page = rest.get(&format!("/events?page_size=500&page_token={token}")).await?.expect(200)?;
        let events = page["events"].as_array().cloned().unwrap_or_default();
        revisions.extend(events.iter().map(|e| text(e, "revision").parse::<u64>().unwrap()));
        token = text(&page, "next_page_token");
        if token.is_empty() {
            return Ok(revisions);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resumes_misses_nothing_while_the_gateway_is_killed() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    let (instances, instances_task) = watch_instances(cloud.rest.clone());
    let (mut events, events_task) = watch_events(cloud.gateway.grpc()?);
    events.changed().await?;
    // What is later than this is later than the beginning of the watch, too.
    let first = all_events(&cloud.rest).await?.into_iter().max().unwrap_or(0);
    cloud.running("first").await?;
    let mut told = instances.clone();
    told.wait_for(|seen| !seen.is_empty()).await?;
    for round in 0..ROUNDS {
        let launches = (0..4).map(|number| {
            let (rest, name) = (cloud.rest.clone(), format!("i-{round}-{number}"));
            // Some are acknowledged, some are lost: what is told is what the database has.
            tokio::spawn(async move { rest.post("/instances", &json!({"name": name, "image": IMAGE})).await })
        });
        let launches: Vec<_> = launches.collect();
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 60 + 20)).await;
        cloud.gateway.kill();
        for launch in launches {
            let _lost_or_not = launch.await?;
        }
        cloud.gateway.restart().await?;
        if round == 1 {
            cloud.delete("first").await?;
        }
    }
    let same = |list: &Value| {
        let rows = list["instances"].as_array().cloned().unwrap_or_default();
        let truth: HashMap<_, _> = rows.iter().map(|i| (text(i, "id"), text(i, "etag"))).collect();
        let seen: HashMap<_, _> =
            instances.borrow().iter().map(|(id, (version, _))| (id.clone(), version.to_string())).collect();
        if truth == seen { Ok(()) } else { Err(format!("{truth:#?}\n{seen:#?}")) }
    };
    until("the watcher to know what is true", PATIENCE, || async {
        let list = cloud.rest.get("/instances?show_deleted=true&page_size=500").await?.expect(200)?;
        let busy = list["instances"].as_array().is_some_and(|all| all.iter().any(|i| i["status"] == "STARTING"));
        Ok(if busy { Err(list.to_string()) } else { same(&list) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    until("every event to be told", PATIENCE, || async {
        let all = all_events(&cloud.rest).await?;
        let told = events.borrow();
        let missed: Vec<_> = all.iter().filter(|r| **r > first && !told.contains_key(r)).collect();
        Ok(if missed.is_empty() { Ok(()) } else { Err(format!("{missed:?}")) })
    })
    .await?;
    for (id, (_, kinds)) in instances.borrow().iter() {
        assert!(kinds[0] == "CREATED" || kinds[0] == "CURRENT" || kinds[0] == "UPDATED", "{id}: {kinds:?}");
    }
    let deleted = instances.borrow().values().filter(|(_, kinds)| kinds.iter().any(|k| k == "DELETED")).count();
    assert_eq!(deleted, 1, "the one that was deleted");
    assert!(!instances_task.is_finished() && !events_task.is_finished(), "the watchers go on");
    instances_task.abort();
    events_task.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_hosts_is_told() -> anyhow::Result<()> {
    let args = vec!["--heartbeat-timeout-ms=2000".into(), "--heartbeat-interval-ms=200".into()];
    let cloud = TestCloud::with(Setup { args, ..Setup::default() }).await?;
    let stream = cloud.rest.events("/hosts:watch?id=h1", "").await?;
    let mut stream = stream.map_err(|answer| anyhow::anyhow!(answer.text()))?;
    assert_eq!(stream.next().await?.unwrap().data["host"]["state"], "UP");
    let mut becomes = async |state: &str| -> anyhow::Result<Duration> {
        let begun = Instant::now();
        while let Some(event) = stream.next().await? {
            anyhow::ensure!(event.kind != "error", "{event:?}");
            if event.data["host"]["state"] == state {
                return Ok(begun.elapsed());
            }
        }
        anyhow::bail!("the watch ended")
    };
    cloud.host().cut_network();
    becomes("UNREACHABLE").await?;
    cloud.host().mend_network();
    becomes("UP").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_keep_up_is_told_to_resume() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 0, args: vec!["--watch-buffer=2".into()], ..Setup::default() }).await?;
    // A connection that takes 64 KiB before it is read from.
    let channel = Endpoint::from_shared(cloud.gateway.url())?.initial_stream_window_size(65_535).connect().await?;
    let mut slow = VolumeServiceClient::new(GrpcClient::new(channel, &cloud.gateway.key()?)?.service());
    let mut watch = slow.watch_volumes(WatchVolumesRequest::default()).await?.into_inner();
    let synced = watch.message().await?.unwrap();
    assert_eq!(synced.change(), Change::Synced);
    let mut volumes = VolumeServiceClient::new(cloud.gateway.grpc()?.service());
    let labels: BTreeMap<_, _> = (0..60).map(|n| (format!("label-{n}"), "x".repeat(250))).collect();
    let name = |n: u32| format!("v-{n}");
    for n in 0..60 {
        let request = CreateVolumeRequest { name: name(n), size_gib: 1, labels: labels.clone(), ..Default::default() };
        volumes.create_volume(Request::new(request)).await?;
    }
    let (mut told, mut token) = (Vec::new(), synced.resume_token);
    let status = loop {
        match watch.message().await {
            Ok(message) => {
                let message = message.unwrap();
                told.push(message.volume.unwrap().name);
                token = message.resume_token;
            }
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert!(status.message().contains("resume token"), "{status}");
    assert!(told.len() < 60, "it did keep up");
    let request = WatchVolumesRequest { resume_token: token, ..Default::default() };
    let mut watch = slow.watch_volumes(request).await?.into_inner();
    while told.len() < 60 {
        told.push(watch.message().await?.unwrap().volume.unwrap().name);
    }
    assert_eq!(told, (0..60).map(name).collect::<Vec<_>>(), "each once, in order");
    let metrics = cloud.rest.get("/metrics").await?.text();
    assert!(metrics.lines().any(|l| l.starts_with("watches_too_slow_total{") && l.ends_with(" 1")), "{metrics}");
    Ok(())
}

/// Runs the commands of `docs/watching.md`: each prints what stands below it.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_documentation_do_what_it_says() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/watching.md");
    let page = std::fs::read_to_string(page)?;
    let token = {
        let stream = cloud.rest.events("/instances:watch", "").await?;
        let mut stream = stream.map_err(|answer| anyhow::anyhow!(answer.text()))?;
        loop {
            let event = stream.next().await?.unwrap();
            if event.kind == "SYNCED" {
                break event.id;
            }
        }
    };
    for line in page.lines().filter_map(|line| line.strip_prefix("    grpcurl ")) {
        let (_, rest) = line.split_once("-d '").unwrap();
        let (body, rest) = rest.split_once('\'').unwrap();
        let (service, method) = rest.rsplit(' ').next().unwrap().split_once('/').unwrap();
        let pool = prost_reflect::DescriptorPool::decode(cloud_contracts::DESCRIPTORS)?;
        let input = pool.get_service_by_name(service).and_then(|s| s.methods().find(|m| m.name() == method));
        let input = input.unwrap_or_else(|| panic!("{service}/{method}")).input();
        let body: serde_json::Map<String, Value> = serde_json::from_str(body)?;
        assert!(body.keys().all(|key| input.get_field_by_name(key).is_some()), "{line}");
    }
    let mut run = 0;
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("    $ ") else { continue };
        // Each is a stream that does not end by itself.
        let mut child = tokio::process::Command::new("timeout")
            .args(["3", "sh", "-c", command])
            .env("CLOUD_ENDPOINT", cloud.gateway.url())
            .env("CLOUD_API_KEY", cloud.gateway.key()?)
            .env("TOKEN", &token)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let name = format!("doc-{run}");
        cloud.launch(&name).await?;
        let mut out = String::new();
        let mut stdout = child.stdout.take().unwrap();
        tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut out).await?;
        child.wait().await?;
        while let Some(expected) = lines.next_if(|line| line.starts_with("    ") && !line.starts_with("    $ ")) {
            let expected = expected.trim().trim_end_matches('…');
            assert!(out.contains(expected), "`{command}` does not print `{expected}`:\n{out}");
        }
        run += 1;
    }
    assert!(run >= 3, "{run} commands");
    Ok(())
}
