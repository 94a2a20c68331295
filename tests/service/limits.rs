//! Limits of volumes: set, changed under a guest, kept, and enforced by the host whatever happens.

use std::time::Duration;

use cloud_testkit::{Effect, Method, RestClient, Role, rest::Answer, sim::Rule, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use http::{HeaderName, Method as Http};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{names, refused, refused_field, text};

async fn patch(rest: &RestClient, id: &str, body: &Value) -> anyhow::Result<Answer> {
    rest.send(Http::PATCH, &format!("/volumes/{id}"), Some("application/json"), body.to_string()).await
}

/// Changes both limits.
async fn limit(cloud: &TestCloud, id: &str, iops: u32, mb_per_second: u32) -> anyhow::Result<Value> {
    let values = json!({"iops": iops, "mb_per_second": mb_per_second});
    patch(&cloud.rest, id, &json!({"volume": values, "update_mask": "iops,mb_per_second"})).await?.expect(200)
}

/// Waits until what is at a path is as `done` says.
async fn is(cloud: &TestCloud, path: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    until(path, PATIENCE, || async {
        let seen = cloud.rest.get(path).await?.expect(200)?;
        Ok(if done(&seen) { Ok(seen) } else { Err(seen.to_string()) })
    })
    .await
    .map_err(|error| cloud.with_log(error))
}

/// Waits until a volume says that its guest has these limits.
async fn limited(cloud: &TestCloud, id: &str, iops: u32, mb_per_second: u32) -> anyhow::Result<Value> {
    is(cloud, &format!("/volumes/{id}"), |seen| {
        seen["iops"] == iops && seen["mb_per_second"] == mb_per_second && seen["limits_pending"] == false
    })
    .await
}

/// What the guest of an instance may do with a volume: operations, and bytes.
fn guests(cloud: &TestCloud, instance: &Value, volume: &str) -> Option<(u64, u64)> {
    let snapshot = cloud.host().snapshot();
    let disks = &snapshot.domains.get(&text(instance, "id"))?.spec.disks;
    let disk = disks.iter().find(|disk| disk.volume_id == volume)?;
    Some((disk.total_iops_sec, disk.total_bytes_sec))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_keeps_its_limits_wherever_it_goes() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let new = json!({"name": "data", "size_gib": 1, "iops": 100, "mb_per_second": 2});
    let data = cloud.rest.post("/volumes", &new).await?.expect(201)?;
    assert_eq!(
        (&data["iops"], &data["mb_per_second"], &data["limits_pending"]),
        (&json!(100), &json!(2), &json!(false))
    );
    let id = text(&data, "id");
    cloud.launch_as(&json!({"name": "one", "image": IMAGE, "volumes": [{"volume": "data"}]})).await?;
    let one = cloud.becomes("one", "RUNNING").await?;
    let two = cloud.running("two").await?;
    assert_eq!(guests(&cloud, &one, &id), Some((100, 2_000_000)), "from its first byte");

    // Under the guest that has it, each alone.
    let only = json!({"volume": {"iops": 300, "mb_per_second": 9}, "update_mask": "iops"});
    let asked = patch(&cloud.rest, "data", &only).await?.expect(200)?;
    assert_eq!(
        (&asked["iops"], &asked["mb_per_second"], &asked["limits_pending"]),
        (&json!(300), &json!(2), &json!(true))
    );
    let has = limited(&cloud, "data", 300, 2).await?;
    assert_eq!((&has["status"], &has["status_reason"]), (&json!("IN_USE"), &json!("")));
    assert_eq!(guests(&cloud, &one, &id), Some((300, 2_000_000)));
    limit(&cloud, "data", 0, 0).await?;
    limited(&cloud, "data", 0, 0).await?;
    assert_eq!(guests(&cloud, &one, &id), Some((0, 0)), "lifted");
    limit(&cloud, "data", 50, 4).await?;
    limited(&cloud, "data", 50, 4).await?;
    // A root disk too.
    let root = text(&one["volumes"][0], "id");
    limit(&cloud, &root, 0, 7).await?;
    limited(&cloud, &root, 0, 7).await?;
    assert_eq!(guests(&cloud, &one, &root), Some((0, 7_000_000)));
    assert_eq!(cloud.host().snapshot().domains[&text(&one, "id")].starts, 1, "it ran on");

    // Stopped, and started again.
    cloud.rest.post("/instances/one/stop", &json!({})).await?.expect(200)?;
    let asked = limit(&cloud, "data", 60, 4).await?;
    assert_eq!(asked["limits_pending"], false, "no guest runs");
    cloud.rest.post("/instances/one/start", &json!({})).await?.expect(200)?;
    cloud.becomes("one", "RUNNING").await?;
    assert_eq!(guests(&cloud, &one, &id), Some((60, 4_000_000)));
    assert_eq!(guests(&cloud, &one, &root), Some((0, 7_000_000)));

    // To another guest that runs.
    cloud.rest.delete("/instances/one/volumes/data").await?.expect(200)?;
    is(&cloud, "/volumes/data", |seen| seen["status"] == "AVAILABLE").await?;
    limited(&cloud, "data", 60, 4).await?;
    cloud.rest.post("/instances/two/volumes", &json!({"volume": "data"})).await?.expect(200)?;
    is(&cloud, "/instances/two", |seen| seen["volumes"][1]["state"] == "ATTACHED").await?;
    assert_eq!(guests(&cloud, &two, &id), Some((60, 4_000_000)));

    let listed =
        cloud.rest.get("/volumes?filter=iops=60%20mb_per_second=4%20limits_pending=false").await?.expect(200)?;
    assert_eq!(names(&listed, "volumes"), ["data"]);
    // A copy has its own.
    let copy =
        cloud.rest.post("/volumes", &json!({"name": "copy", "size_gib": 1, "volume": "data"})).await?.expect(201)?;
    assert_eq!((&copy["iops"], &copy["mb_per_second"]), (&json!(0), &json!(0)));
    let path = format!("/events?filter=resource_id={id}");
    let events = cloud.rest.get(&path).await?.expect(200)?;
    let updates = events["events"].as_array().cloned().unwrap_or_default();
    assert_eq!(updates.iter().filter(|event| event["action"] == "volume.update").count(), 4, "{events}");
    for name in ["one", "two"] {
        cloud.delete(name).await?;
    }
    is(&cloud, "/volumes/copy", |seen| seen["status"] == "AVAILABLE").await?;
    for name in ["data", "copy"] {
        cloud.rest.delete(&format!("/volumes/{name}")).await?.expect(200)?;
    }
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_that_cannot_be_are_refused_and_change_nothing() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    for (field, value) in [("iops", 9), ("iops", 1_000_001), ("mb_per_second", 100_001)] {
        let mut new = json!({"name": "more", "size_gib": 1});
        new[field] = json!(value);
        refused_field(&cloud.rest.post("/volumes", &new).await?, field);
    }
    let new = json!({"name": "data", "size_gib": 1, "iops": 100, "labels": {"tier": "db"}});
    let made = cloud.rest.post("/volumes", &new).await?.expect(201)?;
    for (field, value) in [("iops", 9), ("iops", 1_000_001), ("mb_per_second", 100_001)] {
        let body = json!({"volume": {field: value}, "update_mask": field});
        refused_field(&patch(&cloud.rest, "data", &body).await?, field);
    }
    for mask in ["", "size_gib", "name"] {
        let body = json!({"volume": {"iops": 50}, "update_mask": mask});
        refused_field(&patch(&cloud.rest, "data", &body).await?, "update_mask");
    }
    let long = json!({"volume": {"labels": {"": "x"}}, "update_mask": "labels"});
    refused_field(&patch(&cloud.rest, "data", &long).await?, "labels");
    let limits = json!({"volume": {"iops": 50}, "update_mask": "iops"});
    refused(&patch(&cloud.rest, "nowhere", &limits).await?, 404, "NOT_FOUND");
    let mut stale = limits.clone();
    stale["etag"] = json!("77");
    refused(&patch(&cloud.rest, "data", &stale).await?, 412, "ABORTED");
    // Another project's does not exist.
    cloud.rest.post("/projects", &json!({"name": "blue"})).await?.expect(201)?;
    let blue = cloud.rest.clone().with_header(HeaderName::from_static("x-project"), "blue")?;
    for id in ["data", &text(&made, "id")] {
        refused(&patch(&blue, id, &limits).await?, 404, "NOT_FOUND");
    }
    assert_eq!(cloud.rest.get("/volumes/data").await?.expect(200)?, made, "it is as it was");

    // By its etag, and once, however often it is sent.
    let mut once = json!({"volume": {"labels": {"tier": "web"}, "iops": 50}, "update_mask": "labels,iops"});
    (once["etag"], once["request_id"]) = (made["etag"].clone(), json!("update-1"));
    let updated = patch(&cloud.rest, "data", &once).await?.expect(200)?;
    assert_eq!((&updated["labels"], &updated["iops"]), (&json!({"tier": "web"}), &json!(50)));
    assert_ne!(updated["etag"], made["etag"]);
    assert_eq!(patch(&cloud.rest, "data", &once).await?.expect(200)?, updated);
    let none = json!({"volume": {}, "update_mask": "labels"});
    let bare = patch(&cloud.rest, "data", &none).await?.expect(200)?;
    assert_eq!((&bare["labels"], &bare["iops"]), (&json!({}), &json!(50)));
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_does_not_have_yet_is_said_with_the_reason() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 1})).await?.expect(201)?;
    cloud.launch_as(&json!({"name": "db-01", "image": IMAGE, "volumes": [{"volume": "data"}]})).await?;
    let running = cloud.becomes("db-01", "RUNNING").await?;
    let id = text(&running["volumes"][1], "id");
    cloud.host().faults().inject(Rule::on(Method::AttachDisk, Effect::FailBefore(Code::Internal)));
    limit(&cloud, "data", 100, 1).await?;
    let told = is(&cloud, "/volumes/data", |seen| text(seen, "status_reason").contains("trying again")).await?;
    assert!(text(&told, "status_reason").contains("is being given its limits"), "{told}");
    assert_eq!((&told["iops"], &told["limits_pending"]), (&json!(100), &json!(true)));
    assert_eq!(guests(&cloud, &running, &id), Some((0, 0)));
    // Whatever becomes of gateway and agent meanwhile, and of what was asked.
    cloud.gateway.restart().await?;
    cloud.host().restart_agent(Role::Compute)?;
    limit(&cloud, "data", 200, 1).await?;
    cloud.host().faults().clear();
    let has = limited(&cloud, "data", 200, 1).await?;
    assert_eq!(has["status_reason"], "");
    assert_eq!(guests(&cloud, &running, &id), Some((200, 1_000_000)));
    cloud.delete("db-01").await?;
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_somebody_changed_on_the_host_are_put_back() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { args: vec!["--sweep-interval-ms=300".into()], ..Setup::default() }).await?;
    let running = cloud.running("db-01").await?;
    let root = text(&running["volumes"][0], "id");
    for (wanted, drifted) in [((0, 0), (7, 7)), ((100, 1_000_000), (0, 0))] {
        limit(&cloud, &root, u32::try_from(wanted.0)?, u32::try_from(wanted.1 / 1_000_000)?).await?;
        is(&cloud, &format!("/volumes/{root}"), |seen| seen["limits_pending"] == false).await?;
        cloud.host().limit_disk(&text(&running, "id"), &root, drifted.0, drifted.1);
        until("they are as they were", PATIENCE, || async {
            let seen = guests(&cloud, &running, &root);
            anyhow::Ok(if seen == Some(wanted) { Ok(()) } else { Err(format!("{seen:?}")) })
        })
        .await?;
    }
    cloud.delete("db-01").await?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_limits_survive_the_gateway_being_killed() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    let running = cloud.running("db-01").await?;
    let root = text(&running["volumes"][0], "id");
    let slow = [Method::EnsureVolume, Method::AttachDisk, Method::GetInstance];
    cloud.host().faults().inject(Rule::on_all(slow, Effect::Delay(Duration::from_millis(25))));
    for round in 0..8_u32 {
        limit(&cloud, &root, 100 + round, 1).await?;
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 15)).await;
        cloud.gateway.restart().await?;
        limited(&cloud, &root, 100 + round, 1).await?;
        assert_eq!(guests(&cloud, &running, &root), Some((u64::from(100 + round), 1_000_000)));
    }
    assert_eq!(cloud.host().snapshot().domains[&text(&running, "id")].starts, 1, "it ran on");
    cloud.delete("db-01").await?;
    cloud.is_clean().await
}
