//! Volumes: made, attached at launch, kept when their instance goes; their snapshots and copies, and how they grow.

use cloud_testkit::{Effect, Method, RestClient, rest::Answer, sim::Rule, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{names, refused, refused_field, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_data_volume_outlives_its_instance() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let volume = cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 3})).await?.expect(201)?;
    assert_eq!(volume["status"], "AVAILABLE", "{volume}");
    cloud.launch_as(&json!({"name": "db-01", "image": IMAGE, "volumes": [{"volume": "data"}]})).await?;
    let running = cloud.becomes("db-01", "RUNNING").await?;
    assert_eq!((&running["volumes"][1]["name"], &running["volumes"][1]["root"]), (&json!("data"), &json!(false)));
    cloud.settles(1, 2, 1).await?;
    let snapshot = cloud.host().snapshot();
    let disks = &snapshot.domains[&text(&running, "id")].spec.disks;
    assert_eq!(disks[1].volume_id, text(&volume, "id"));
    assert_eq!(snapshot.volumes[&text(&volume, "id")].size_bytes, 3 << 30);

    let used = cloud.rest.get("/volumes/data").await?.expect(200)?;
    assert_eq!((&used["status"], &used["instance"]), (&json!("IN_USE"), &json!("db-01")));
    refused(&cloud.rest.delete("/volumes/data").await?, 400, "FAILED_PRECONDITION");
    let second = json!({"name": "db-02", "image": IMAGE, "volumes": [{"volume": "data"}]});
    refused(&cloud.rest.post("/instances", &second).await?, 400, "FAILED_PRECONDITION");

    cloud.delete("db-01").await?;
    cloud.settles(0, 1, 0).await?;
    assert_eq!(cloud.rest.get("/volumes/data").await?.expect(200)?["status"], "AVAILABLE");
    cloud.launch_as(&second).await?;
    cloud.becomes("db-02", "RUNNING").await?;
    cloud.delete("db-02").await?;
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_disk_is_its_instances() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let running = cloud.running("web-01").await?;
    let root = text(&running["volumes"][0], "id");
    refused(&cloud.rest.delete(&format!("/volumes/{root}")).await?, 400, "FAILED_PRECONDITION");
    cloud.settles(1, 1, 1).await
}

/// Waits until what is at a path is as `done` says.
async fn is(cloud: &TestCloud, path: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let seen = cloud.rest.get(path).await?.expect(200)?;
        if done(&seen) {
            return Ok(seen);
        }
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "{path} is still {seen}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn has_status(cloud: &TestCloud, path: &str, status: &str) -> anyhow::Result<Value> {
    is(cloud, path, |seen| seen["status"] == status).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_volume_in_use_is_restored_as_another_volume() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 3})).await?.expect(201)?;
    let before = json!({"name": "before", "volume": "data", "labels": {"tier": "db"}});
    refused(&cloud.rest.post("/snapshots", &before).await?, 400, "FAILED_PRECONDITION");
    cloud.launch_as(&json!({"name": "db-01", "image": IMAGE, "volumes": [{"volume": "data"}]})).await?;
    cloud.becomes("db-01", "RUNNING").await?;
    let made = cloud.rest.post("/snapshots", &before).await?.expect(201)?;
    assert_eq!((&made["status"], &made["volume"], &made["size_gib"]), (&json!("CREATING"), &json!("data"), &json!(3)));
    let taken = has_status(&cloud, "/snapshots/before", "AVAILABLE").await?;
    assert_eq!(taken["host"], cloud.rest.get("/volumes/data").await?.expect(200)?["host"]);
    refused(&cloud.rest.post("/snapshots", &before).await?, 409, "ALREADY_EXISTS");
    let listed =
        cloud.rest.get("/snapshots?filter=volume=data%20labels.tier=db%20status=AVAILABLE").await?.expect(200)?;
    assert_eq!(names(&listed, "snapshots"), ["before"]);
    assert_eq!(cloud.host().snapshot().snapshots[&text(&taken, "id")].taken, 1);

    let small = json!({"name": "data2", "size_gib": 2, "snapshot": "before"});
    refused_field(&cloud.rest.post("/volumes", &small).await?, "size_gib");
    let both = json!({"name": "data2", "size_gib": 3, "snapshot": "before", "volume": "data"});
    refused_field(&cloud.rest.post("/volumes", &both).await?, "volume");
    let restored = json!({"name": "data2", "size_gib": 5, "snapshot": "before"});
    let restored = cloud.rest.post("/volumes", &restored).await?.expect(201)?;
    assert_eq!((&restored["status"], &restored["snapshot"]), (&json!("CREATING"), &json!("before")));
    let restored = has_status(&cloud, "/volumes/data2", "AVAILABLE").await?;
    assert_eq!(cloud.host().snapshot().volumes[&text(&restored, "id")].size_bytes, 5 << 30);
    let copy =
        cloud.rest.post("/volumes", &json!({"name": "copy", "size_gib": 3, "volume": "data"})).await?.expect(201)?;
    assert_eq!(copy["source_volume"], "data");
    has_status(&cloud, "/volumes/copy", "AVAILABLE").await?;

    // What is made of it stays when it goes.
    assert_eq!(cloud.rest.delete("/snapshots/before").await?.expect(200)?["status"], "DELETING");
    let id = text(&taken, "id");
    has_status(&cloud, &format!("/snapshots/{id}"), "DELETED").await?;
    assert!(names(&cloud.rest.get("/snapshots").await?.expect(200)?, "snapshots").is_empty());
    assert!(cloud.host().snapshot().snapshots.is_empty());
    let second = json!({"name": "db-02", "image": IMAGE, "volumes": [{"volume": "data2"}, {"volume": "copy"}]});
    cloud.launch_as(&second).await?;
    cloud.becomes("db-02", "RUNNING").await?;
    for name in ["db-01", "db-02"] {
        cloud.delete(name).await?;
    }
    for name in ["data", "data2", "copy"] {
        cloud.rest.delete(&format!("/volumes/{name}")).await?.expect(200)?;
    }
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_grows_under_its_guest_and_within_its_quota() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let data = cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 2})).await?.expect(201)?;
    let resize = async |size: u32| cloud.rest.post("/volumes/data/resize", &json!({"size_gib": size})).await;
    assert_eq!(resize(3).await?.expect(200)?["size_gib"], 3, "it has no data yet");
    refused_field(&resize(2).await?, "size_gib");
    cloud.launch_as(&json!({"name": "db-01", "image": IMAGE, "volumes": [{"volume": "data"}]})).await?;
    let running = cloud.becomes("db-01", "RUNNING").await?;
    let asked = resize(7).await?.expect(200)?;
    assert_eq!((&asked["size_gib"], &asked["growing_to_gib"]), (&json!(3), &json!(7)));
    is(&cloud, "/volumes/data", |seen| seen["size_gib"] == 7 && seen["growing_to_gib"] == 0).await?;
    let host = cloud.host().snapshot();
    let id = text(&data, "id");
    assert_eq!(host.domains[&text(&running, "id")].grown[&id], 7 << 30, "the guest was told");
    assert_eq!(host.volumes[&id].size_bytes, 7 << 30);
    let quota = cloud.rest.get("/quotas/default").await?.expect(200)?;
    let root = running["volumes"][0]["size_gib"].as_u64().unwrap_or(0);
    assert_eq!(quota["used"]["volume_gib"].to_string().trim_matches('"'), (7 + root).to_string(), "{quota}");
    cloud.delete("db-01").await?;
    resize(8).await?.expect(200)?;
    is(&cloud, "/volumes/data", |seen| seen["size_gib"] == 8).await?;
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_from_an_image_takes_its_place_when_it_is_attached() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let made =
        cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 2, "image": IMAGE})).await?.expect(201)?;
    assert_eq!((&made["status"], &made["host"], &made["image"]), (&json!("AVAILABLE"), &json!(""), &json!(IMAGE)));
    cloud.launch_as(&json!({"name": "db-01", "image": IMAGE, "volumes": [{"volume": "data"}]})).await?;
    cloud.becomes("db-01", "RUNNING").await?;
    assert!(cloud.host().snapshot().volumes[&text(&made, "id")].image_id.is_some());
    cloud.delete("db-01").await?;
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_on_the_host_that_was_named() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 2, ..Setup::default() }).await?;
    let names = ["blank", "copy"];
    let asked = [
        json!({"name": "blank", "size_gib": 2, "host": "h2"}),
        json!({"name": "copy", "size_gib": 2, "host": "h2", "image": IMAGE}),
    ];
    for (name, asked) in names.into_iter().zip(&asked) {
        let made = cloud.rest.post("/volumes", asked).await?.expect(201)?;
        assert_eq!(
            (&made["status"], &made["host"], &made["pool"]),
            (&json!("CREATING"), &json!("h2"), &json!("default"))
        );
        let made = has_status(&cloud, &format!("/volumes/{name}"), "AVAILABLE").await?;
        assert_eq!(cloud.hosts[1].snapshot().volumes[&text(&made, "id")].size_bytes, 2 << 30);
    }
    // Its instance goes where it is.
    cloud.launch_as(&json!({"name": "db-01", "image": IMAGE, "volumes": [{"volume": "blank"}]})).await?;
    assert_eq!(cloud.becomes("db-01", "RUNNING").await?["host"], "h2");
    let elsewhere = json!({"name": "twin", "size_gib": 2, "host": "h1", "volume": "blank"});
    refused_field(&cloud.rest.post("/volumes", &elsewhere).await?, "host");
    let other_pool = json!({"name": "twin", "size_gib": 2, "pool": "ssd", "volume": "blank"});
    refused_field(&cloud.rest.post("/volumes", &other_pool).await?, "pool");

    let unknown = json!({"name": "more", "size_gib": 1, "host": "h9"});
    refused(&cloud.rest.post("/volumes", &unknown).await?, 404, "NOT_FOUND");
    cloud.rest.post("/hosts/h1/cordon", &json!({})).await?.expect(200)?;
    let cordoned = json!({"name": "more", "size_gib": 1, "host": "h1"});
    refused(&cloud.rest.post("/volumes", &cordoned).await?, 400, "FAILED_PRECONDITION");
    for (host, pool) in [("", "ssd"), ("h2", "ssd")] {
        let nowhere = json!({"name": "more", "size_gib": 1, "host": host, "pool": pool});
        refused_field(&cloud.rest.post("/volumes", &nowhere).await?, "pool");
    }
    assert_eq!(cloud.rest.get("/volumes/more").await?.status, 404, "what was refused is not there");

    cloud.delete("db-01").await?;
    for name in names {
        cloud.rest.delete(&format!("/volumes/{name}")).await?.expect(200)?;
    }
    cloud.is_clean().await
}

/// Asks for a volume to be attached.
async fn attach(cloud: &TestCloud, instance: &str, volume: &str) -> anyhow::Result<Answer> {
    attach_as(&cloud.rest, instance, volume).await
}

async fn attach_as(rest: &RestClient, instance: &str, volume: &str) -> anyhow::Result<Answer> {
    rest.post(&format!("/instances/{instance}/volumes"), &json!({"volume": volume})).await
}

async fn detach(cloud: &TestCloud, instance: &str, volume: &str) -> anyhow::Result<Answer> {
    cloud.rest.delete(&format!("/instances/{instance}/volumes/{volume}")).await
}

/// Waits until an instance has these volumes beside its root disk, with nothing under way.
async fn has_volumes(cloud: &TestCloud, instance: &str, wanted: &[&str]) -> anyhow::Result<Value> {
    let has = |seen: &Value| {
        let disks = seen["volumes"].as_array().cloned().unwrap_or_default();
        names(seen, "volumes").iter().skip(1).eq(wanted.iter()) && disks.iter().all(|disk| disk["state"] == "ATTACHED")
    };
    is(cloud, &format!("/instances/{instance}"), has).await
}

/// The volumes that the guest of an instance has on its host.
fn guest_disks(cloud: &TestCloud, instance: &Value) -> Vec<String> {
    let snapshot = cloud.host().snapshot();
    snapshot.domains[&text(instance, "id")].spec.disks.iter().map(|disk| disk.volume_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_comes_to_a_guest_that_runs_and_leaves_it() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let running = cloud.running("db-01").await?;
    let data = cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 3})).await?.expect(201)?;
    let asked = attach(&cloud, "db-01", "data").await?.expect(200)?;
    assert_eq!((&asked["volumes"][1]["name"], &asked["volumes"][1]["state"]), (&json!("data"), &json!("ATTACHING")));
    let has = has_volumes(&cloud, "db-01", &["data"]).await?;
    let root = text(&running["volumes"][0], "id");
    assert_eq!(guest_disks(&cloud, &has), [root.clone(), text(&data, "id")]);
    let used = has_status(&cloud, "/volumes/data", "IN_USE").await?;
    assert_eq!((&used["instance"], &used["host"], &used["status_reason"]), (&json!("db-01"), &json!("h1"), &json!("")));
    assert_eq!(cloud.host().snapshot().domains[&text(&running, "id")].starts, 1, "it ran on");

    let asked = detach(&cloud, "db-01", "data").await?.expect(200)?;
    assert_eq!(asked["volumes"][1]["state"], "DETACHING");
    let free = has_status(&cloud, "/volumes/data", "AVAILABLE").await?;
    assert_eq!((&free["instance"], &free["host"], &free["status_reason"]), (&json!(""), &json!("h1"), &json!("")));
    let has = has_volumes(&cloud, "db-01", &[]).await?;
    assert_eq!(guest_disks(&cloud, &has), [root]);

    let path = format!("/events?filter=resource_id={}", text(&running, "id"));
    let events = cloud.rest.get(&path).await?.expect(200)?;
    let actions: Vec<String> =
        events["events"].as_array().cloned().unwrap_or_default().iter().map(|event| text(event, "action")).collect();
    for action in
        ["instance.attach-volume", "instance.volume_attached", "instance.detach-volume", "instance.volume_detached"]
    {
        assert_eq!(actions.iter().filter(|a| *a == action).count(), 1, "{action}: {actions:?}");
    }
    cloud.delete("db-01").await?;
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_a_stopped_instance_is_there_when_it_starts() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("db-01").await?;
    cloud.rest.post("/instances/db-01/stop", &json!({})).await?.expect(200)?;
    for name in ["one", "two"] {
        cloud.rest.post("/volumes", &json!({"name": name, "size_gib": 1})).await?.expect(201)?;
        attach(&cloud, "db-01", name).await?.expect(200)?;
    }
    has_volumes(&cloud, "db-01", &["one", "two"]).await?;
    assert_eq!(cloud.calls(Method::AttachDisk), 0, "there was no guest to be given it");
    detach(&cloud, "db-01", "one").await?.expect(200)?;
    has_volumes(&cloud, "db-01", &["two"]).await?;
    has_status(&cloud, "/volumes/one", "AVAILABLE").await?;
    cloud.rest.post("/instances/db-01/start", &json!({})).await?.expect(200)?;
    let running = cloud.becomes("db-01", "RUNNING").await?;
    let wanted: Vec<String> =
        running["volumes"].as_array().cloned().unwrap_or_default().iter().map(|v| text(v, "id")).collect();
    assert_eq!(guest_disks(&cloud, &running), wanted);
    cloud.delete("db-01").await?;
    for name in ["one", "two"] {
        cloud.rest.delete(&format!("/volumes/{name}")).await?.expect(200)?;
    }
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_holds_stays_told_and_is_nobody_elses() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 1})).await?.expect(201)?;
    cloud.launch_as(&json!({"name": "db-01", "image": IMAGE, "volumes": [{"volume": "data"}]})).await?;
    cloud.becomes("db-01", "RUNNING").await?;
    cloud.running("db-02").await?;
    cloud.host().set_hold_disks(true);
    detach(&cloud, "db-01", "data").await?.expect(200)?;
    let held = is(&cloud, "/volumes/data", |seen| text(seen, "status_reason").contains("has not released it")).await?;
    assert_eq!((&held["status"], &held["instance"]), (&json!("IN_USE"), &json!("db-01")));
    for answer in [attach(&cloud, "db-02", "data").await?, cloud.rest.delete("/volumes/data").await?] {
        refused(&answer, 400, "FAILED_PRECONDITION");
    }
    let again = attach(&cloud, "db-01", "data").await?;
    refused(&again, 400, "FAILED_PRECONDITION");
    assert!(again.at("/error/message").contains("is being detached from instance `db-01`"), "{}", again.text());
    // To ask once more changes nothing, and what else is asked of the instance is done.
    detach(&cloud, "db-01", "data").await?.expect(200)?;
    cloud.rest.post("/instances/db-01/reboot", &json!({})).await?.expect(200)?;
    cloud.gateway.restart().await?;
    let before = cloud.calls(Method::DetachDisk);
    until("it is asked again", PATIENCE, || async {
        Ok(if cloud.calls(Method::DetachDisk) > before { Ok(()) } else { Err("not yet".to_owned()) })
    })
    .await?;
    assert_eq!(cloud.rest.get("/volumes/data").await?.expect(200)?["instance"], "db-01");
    cloud.host().set_hold_disks(false);
    has_status(&cloud, "/volumes/data", "AVAILABLE").await?;
    attach(&cloud, "db-02", "data").await?.expect(200)?;
    has_volumes(&cloud, "db-02", &["data"]).await?;

    // A guest that holds it is stopped: it has let it go.
    cloud.host().set_hold_disks(true);
    detach(&cloud, "db-02", "data").await?.expect(200)?;
    cloud.rest.post("/instances/db-02/stop", &json!({})).await?.expect(200)?;
    has_status(&cloud, "/volumes/data", "AVAILABLE").await?;
    has_volumes(&cloud, "db-02", &[]).await?;
    for name in ["db-01", "db-02"] {
        cloud.delete(name).await?;
    }
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_that_fails_is_tried_again_and_says_why() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("db-01").await?;
    cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 1})).await?.expect(201)?;
    cloud.host().faults().inject(Rule::on(Method::AttachDisk, Effect::FailBefore(Code::Internal)));
    attach(&cloud, "db-01", "data").await?.expect(200)?;
    let told = is(&cloud, "/volumes/data", |seen| text(seen, "status_reason").contains("trying again")).await?;
    assert!(text(&told, "status_reason").contains("AttachDisk failed"), "{told}");
    // It can be called off.
    detach(&cloud, "db-01", "data").await?.expect(200)?;
    has_status(&cloud, "/volumes/data", "AVAILABLE").await?;
    attach(&cloud, "db-01", "data").await?.expect(200)?;
    is(&cloud, "/volumes/data", |seen| text(seen, "status_reason").contains("trying again")).await?;
    cloud.host().faults().clear();
    has_volumes(&cloud, "db-01", &["data"]).await?;
    assert_eq!(cloud.rest.get("/volumes/data").await?.expect(200)?["status_reason"], "");
    cloud.delete("db-01").await?;
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_volume_that_is_being_made_is_taken_once_it_is() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("db-01").await?;
    let faults = cloud.host().faults();
    let breaks = || faults.inject(Rule::on(Method::EnsureVolume, Effect::FailBefore(Code::Unavailable)));
    for name in ["data", "never"] {
        breaks();
        cloud.rest.post("/volumes", &json!({"name": name, "size_gib": 1})).await?.expect(201)?;
        let before = json!({"name": format!("{name}-before"), "volume": name});
        refused(&cloud.rest.post("/snapshots", &before).await?, 400, "FAILED_PRECONDITION");
        attach(&cloud, "db-01", name).await?.expect(200)?;
        let asked = cloud.rest.post("/snapshots", &before).await?.expect(201)?;
        assert_eq!(asked["status"], "CREATING", "{asked}");
        let waits = format!("waits until volume `{name}` is made");
        let path = format!("/snapshots/{name}-before");
        is(&cloud, &path, |seen| seen["status_reason"] == *waits).await?;
        assert!(cloud.host().snapshot().snapshots.is_empty());
        if name == "never" {
            detach(&cloud, "db-01", name).await?.expect(200)?;
            let failed = has_status(&cloud, &path, "ERROR").await?;
            assert!(text(&failed, "status_reason").contains("has no data"), "{failed}");
        } else {
            faults.clear();
            let taken = has_status(&cloud, &path, "AVAILABLE").await?;
            assert_eq!(taken["status_reason"], "");
            assert_eq!(cloud.host().snapshot().snapshots[&text(&taken, "id")].taken, 1);
        }
        cloud.rest.delete(&path).await?.expect(200)?;
    }
    faults.clear();
    cloud.delete("db-01").await?;
    for name in ["data", "never"] {
        cloud.rest.delete(&format!("/volumes/{name}")).await?.expect(200)?;
    }
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_that_cannot_be_are_refused_with_the_reason() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 2, ..Setup::default() }).await?;
    let says = |answer: &Answer, words: &str| {
        refused(answer, 400, "FAILED_PRECONDITION");
        assert!(answer.at("/error/message").contains(words), "{}", answer.text());
    };
    let on = |name: &str, host: &str| json!({"name": name, "image": IMAGE, "placement": {"host": host}});
    let made = cloud.launch_as(&on("db-01", "h1")).await?;
    let running = cloud.becomes("db-01", "RUNNING").await?;
    for (name, host) in [("here", "h1"), ("there", "h2"), ("blank", "")] {
        let new = json!({"name": name, "size_gib": 1, "host": host});
        cloud.rest.post("/volumes", &new).await?.expect(201)?;
        has_status(&cloud, &format!("/volumes/{name}"), "AVAILABLE").await?;
    }
    refused(&attach(&cloud, "db-09", "here").await?, 404, "NOT_FOUND");
    refused(&attach(&cloud, "db-01", "nowhere").await?, 404, "NOT_FOUND");
    // Another project's does not exist.
    cloud.rest.post("/projects", &json!({"name": "blue"})).await?.expect(201)?;
    let blue = cloud.rest.clone().with_header(http::HeaderName::from_static("x-project"), "blue")?;
    let theirs = blue.post("/volumes", &json!({"name": "theirs", "size_gib": 1})).await?.expect(201)?;
    for theirs in ["theirs", &text(&theirs, "id")] {
        refused(&attach(&cloud, "db-01", theirs).await?, 404, "NOT_FOUND");
    }
    let ours = text(&running, "id");
    refused(&attach_as(&blue, &ours, "theirs").await?, 404, "NOT_FOUND");
    refused_field(&attach(&cloud, "db-01", "").await?, "volume");
    let stale = json!({"volume": "here", "etag": made["etag"]});
    refused(&cloud.rest.post("/instances/db-01/volumes", &stale).await?, 412, "ABORTED");
    says(&attach(&cloud, "db-01", "there").await?, "is on host h2 and instance `db-01` on host h1");
    says(&detach(&cloud, "db-01", "here").await?, "is not attached to instance `db-01`");
    let root = text(&running["volumes"][0], "id");
    says(&detach(&cloud, "db-01", &root).await?, "is the root disk of instance `db-01`");
    says(&attach(&cloud, "db-01", &root).await?, "is attached already to instance `db-01`");

    // One call is one attachment, however often it is sent.
    let once = json!({"volume": "here", "request_id": "attach-1"});
    for _ in 0..2 {
        cloud.rest.post("/instances/db-01/volumes", &once).await?.expect(200)?;
    }
    has_volumes(&cloud, "db-01", &["here"]).await?;
    says(&attach(&cloud, "db-01", "here").await?, "is attached already to instance `db-01`");
    cloud.launch_as(&on("db-02", "h1")).await?;
    cloud.becomes("db-02", "RUNNING").await?;
    says(&attach(&cloud, "db-02", "here").await?, "is attached to instance `db-01`: detach it first");
    says(&detach(&cloud, "db-02", "here").await?, "is not attached to instance `db-02`, but to `db-01`");

    // Not while it is being started, stopped or deleted.
    cloud.host().faults().inject(Rule::on(Method::EnsureInstance, Effect::Hang));
    cloud.launch_as(&on("db-03", "h1")).await?;
    says(&attach(&cloud, "db-03", "blank").await?, "it is STARTING");
    cloud.rest.delete("/instances/db-03").await?.expect(200)?;
    says(&attach(&cloud, "db-03", "blank").await?, "it is DELETING");
    cloud.host().faults().clear();

    // As many as it may have.
    for number in 0..14 {
        let name = format!("more-{number}");
        cloud.rest.post("/volumes", &json!({"name": name, "size_gib": 1})).await?.expect(201)?;
        attach(&cloud, "db-01", &name).await?.expect(200)?;
    }
    says(&attach(&cloud, "db-01", "blank").await?, "has 16 disks, and may have 16");
    let blank = cloud.rest.get("/volumes/blank").await?.expect(200)?;
    assert_eq!((&blank["status"], &blank["host"]), (&json!("AVAILABLE"), &json!("")), "what was refused is as it was");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_survive_the_gateway_being_killed() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    cloud.running("db-01").await?;
    cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 1})).await?.expect(201)?;
    let slow = [Method::EnsureVolume, Method::AttachDisk, Method::DetachDisk, Method::GetInstance];
    cloud.host().faults().inject(Rule::on_all(slow, Effect::Delay(std::time::Duration::from_millis(25))));
    for round in 0..6_u64 {
        let pause = std::time::Duration::from_millis(round * 20);
        attach(&cloud, "db-01", "data").await?.expect(200)?;
        tokio::time::sleep(pause).await;
        cloud.gateway.restart().await?;
        has_volumes(&cloud, "db-01", &["data"]).await?;
        detach(&cloud, "db-01", "data").await?.expect(200)?;
        tokio::time::sleep(pause).await;
        cloud.gateway.restart().await?;
        has_status(&cloud, "/volumes/data", "AVAILABLE").await?;
    }
    let made = cloud.host().snapshot().volumes.values().map(|volume| volume.created).max();
    assert_eq!(made, Some(1), "no data were made anew");
    cloud.delete("db-01").await?;
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.is_clean().await
}
