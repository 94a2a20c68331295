//! Filters, orders and retention over the whole gateway.

use cloud_testkit::{until, wait::PATIENCE};
use cloud_tests::{TestCloud, cloud::Setup};
use serde_json::json;

use crate::support::{names, refused, refused_field};

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_ordered() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 2, ..Setup::default() }).await?;
    for (name, tier) in [("web-2", "web"), ("web-1", "web"), ("db-1", "db")] {
        let body = json!({"name": name, "image": "tiny", "instance_type": "tiny", "labels": {"tier": tier}});
        cloud.launch_as(&body).await?;
    }
    for name in ["web-1", "web-2", "db-1"] {
        cloud.becomes(name, "RUNNING").await?;
    }
    cloud.rest.post("/instances/web-1/stop", &json!({})).await?.expect(200)?;
    let list = async |query: &str| -> anyhow::Result<Vec<String>> {
        Ok(names(&cloud.rest.get(&format!("/instances?{query}")).await?.expect(200)?, "instances"))
    };
    assert_eq!(list("order_by=name").await?, ["db-1", "web-1", "web-2"]);
    assert_eq!(list("order_by=created_at%20desc").await?, ["db-1", "web-1", "web-2"]);
    assert_eq!(list("").await?, ["web-2", "web-1", "db-1"]);
    assert_eq!(list("filter=status%3DRUNNING&order_by=name").await?, ["db-1", "web-2"]);
    assert_eq!(list("filter=labels.tier%3Dweb%20status!%3DRUNNING").await?, ["web-1"]);
    assert_eq!(list("filter=name~%22web-*%22&order_by=name%20desc").await?, ["web-2", "web-1"]);
    let on = async |host: &str| list(&format!("filter=host%3D{host}")).await;
    assert_eq!(on("h1").await?.len() + on("h2").await?.len(), 3);
    assert!(on("h3").await?.is_empty());
    assert_eq!(
        names(&cloud.rest.get("/volumes?filter=root%3Dtrue%20instance%3Ddb-1").await?.expect(200)?, "volumes").len(),
        1
    );

    let first = cloud.rest.get("/instances?order_by=name&page_size=2").await?.expect(200)?;
    let token = first["next_page_token"].as_str().unwrap();
    assert_eq!(list(&format!("order_by=name&page_token={token}")).await?, ["web-2"]);
    refused_field(&cloud.rest.get(&format!("/instances?page_token={token}")).await?, "page_token");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_long_enough_is_purged() -> anyhow::Result<()> {
    let args = ["--keep-deleted=1", "--purge-interval-ms=100"].map(str::to_owned).to_vec();
    let cloud = TestCloud::with(Setup { args, ..Setup::default() }).await?;
    let running = cloud.running("web-01").await?;
    let gone = cloud.delete("web-01").await?;
    let id = gone["id"].as_str().unwrap().to_owned();
    until("the instance to be purged", PATIENCE, || async {
        let answer = cloud.rest.get(&format!("/instances/{id}")).await?;
        Ok(if answer.status == 404 { Ok(()) } else { Err(answer.text()) })
    })
    .await?;
    let root = running["volumes"][0]["id"].as_str().unwrap().to_owned();
    until("its disk to be purged", PATIENCE, || async {
        let answer = cloud.rest.get(&format!("/volumes/{root}")).await?;
        Ok(if answer.status == 404 { Ok(()) } else { Err(answer.text()) })
    })
    .await?;
    let deleted = cloud.rest.get("/instances?show_deleted=true").await?.expect(200)?;
    assert_eq!(deleted["instances"], json!([]));
    let metrics = cloud.rest.get("/metrics").await?.text();
    let counted = metrics
        .lines()
        .any(|line| line.contains("purged_total") && line.contains("kind=\"instance\"") && line.ends_with(" 1"));
    assert!(counted, "{metrics}");
    // What happened is known longer than what it happened to.
    let events = cloud.rest.get(&format!("/events?resource_id={id}")).await?.expect(200)?;
    assert!(!events["events"].as_array().unwrap().is_empty());
    refused(&cloud.rest.get("/instances/web-01").await?, 404, "NOT_FOUND");
    cloud.is_clean().await
}
