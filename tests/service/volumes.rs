//! Volumes: made, attached at launch, kept when their instance goes.

use cloud_tests::{TestCloud, cloud::IMAGE};
use serde_json::json;

use crate::support::{refused, text};

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
