//! A restored database, and a guest that is newer than the backup: it keeps its network, and becomes the instance that it was.

use cloud_testkit::until;
use cloud_tests::{
    RealCloud,
    backup::{back_up, restore},
    real::{BOOT, PATIENCE},
};
use serde_json::{Value, json};

use crate::network::{LOOK, last_view};

/// Waits until a guest's view, after what its log says now, is of these.
async fn sees(cloud: &RealCloud, name: &str, others: &[&str]) -> anyhow::Result<()> {
    let views = |log: &str| log.lines().filter(|line| line.trim().starts_with("sees ")).count();
    let before = views(&cloud.log(name).await?);
    until(&format!("{name} to see {others:?}"), BOOT, || async {
        let log = cloud.log(name).await?;
        let view = last_view(&log);
        // One that was begun before may have come since.
        Ok(if view == others && views(&log) > before + 1 { Ok(()) } else { Err(format!("{view:?}")) })
    })
    .await
    .map_err(|error| cloud.with_logs(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_newer_than_the_backup_keeps_its_network_and_is_adopted() -> anyhow::Result<()> {
    let cloud = RealCloud::start().await?;
    cloud.launch("early", json!({"user_data": LOOK})).await?;
    let early = cloud.becomes("early", "RUNNING").await?;
    let backup = back_up(&cloud.gateway).await?;
    cloud.launch("late", json!({"user_data": LOOK, "ssh_keys": ["ssh-ed25519 AAAA me@home"]})).await?;
    let late = cloud.becomes("late", "RUNNING").await?;
    sees(&cloud, "early", &["early", "late"]).await?;
    let word = |instance: &Value, key: &str| instance[key].as_str().unwrap().to_owned();
    let id = |instance: &Value| word(instance, "id");
    let orphans = format!("/hosts/{}/orphans", word(&early, "host"));
    let pids = || anyhow::Ok([cloud.guest_pid(&id(&early))?, cloud.guest_pid(&id(&late))?]);
    let before = pids()?;

    restore(&cloud.gateway, &backup).await?;
    until("the guest to be an orphan", PATIENCE, || async {
        let answer = cloud.rest.get(&orphans).await;
        let list = answer.map(|answer| answer.json()).unwrap_or_default();
        let all = list["orphans"].as_array().cloned().unwrap_or_default();
        let found = all.iter().any(|orphan| orphan["id"] == late["id"] && orphan["name"] == "late");
        anyhow::Ok(if found { Ok(()) } else { Err(list.to_string()) })
    })
    .await
    .map_err(|error| cloud.with_logs(error))?;
    cloud.is_up().await?;
    // The host is told of its VPC again: of one more that comes and goes.
    cloud.launch("other", json!({})).await?;
    let other = cloud.becomes("other", "RUNNING").await?;
    assert_ne!(other["ports"][0]["ip"], late["ports"][0]["ip"], "an address that a guest has");
    sees(&cloud, "early", &["early", "late"]).await?;
    cloud.delete("other").await?;
    sees(&cloud, "early", &["early", "late"]).await?;

    cloud.rest.post(&format!("{orphans}/{}/adopt", id(&late)), &json!({})).await?.expect(200)?;
    let adopted = cloud.becomes("late", "RUNNING").await?;
    for same in ["id", "ports", "volumes", "ssh_keys", "user_data", "started_at"] {
        assert_eq!(adopted[same], late[same], "{same}");
    }
    sees(&cloud, "early", &["early", "late"]).await?;
    assert_eq!(pids()?, before, "both run on");

    // It is an instance like any other.
    cloud.rest.post("/instances/late/stop", &json!({})).await?.expect(200)?;
    cloud.rest.post("/instances/late/start", &json!({})).await?.expect(200)?;
    cloud.becomes("late", "RUNNING").await?;
    sees(&cloud, "late", &["early", "late"]).await?;
    for name in ["early", "late"] {
        cloud.delete(name).await?;
    }
    cloud.has(0, 0, 0).await
}
