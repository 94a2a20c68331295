//! Volumes: made, attached at launch, kept when their instance goes; their snapshots and copies, and how they grow.

use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use serde_json::{Value, json};

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
