//! Guests' data on thin volumes.

use cloud_lab::Lab;
use cloud_tests::instances::{DATA_READER, DATA_WRITER};
use serde_json::{Value, json};

use crate::{BOOT, PATIENCE, lab, running, until};

async fn says(lab: &Lab, name: &str, text: &str) -> anyhow::Result<()> {
    until(&format!("{name} to say `{text}`"), BOOT, || async {
        let log = lab.instances().log(name).await?;
        Ok(if log.contains(text) { Ok(()) } else { Err(log) })
    })
    .await
    .map_err(|error| lab.with_logs(error))
}

async fn is(lab: &Lab, path: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    until(path, PATIENCE, || async {
        let seen = lab.rest.get(path).await?.expect(200)?;
        Ok(if done(&seen) { Ok(seen) } else { Err(seen.to_string()) })
    })
    .await
    .map_err(|error| lab.with_logs(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thin_volume_grows_and_has_a_snapshot_taken_while_its_guest_runs() -> anyhow::Result<()> {
    let lab = lab().await?;
    // There, now, in the pool of the host.
    let data = json!({"name": "data", "size_gib": 1, "host": "h2", "pool": "default"});
    let data = lab.rest.post("/volumes", &data).await?.expect(201)?;
    is(&lab, "/volumes/data", |seen| seen["status"] == "AVAILABLE").await?;
    let volume = format!("vg0/vol-{}", data["id"].as_str().unwrap());
    assert_eq!(lab.host("h2")?.sh(&format!("lvs --noheadings -o lv_size --units g {volume}")).await?, "1.00g");

    let volumes = json!([{"volume": "data"}]);
    lab.instances().launch("writer", json!({"volumes": volumes, "user_data": DATA_WRITER})).await?;
    assert_eq!(running(&lab, "writer").await?.0, "h2", "where its volume is");
    says(&lab, "writer", "wrote").await?;
    says(&lab, "writer", "blocks 2097152").await?;
    lab.rest.post("/volumes/data/resize", &json!({"size_gib": 2})).await?.expect(200)?;
    is(&lab, "/volumes/data", |seen| seen["size_gib"] == 2 && seen["growing_to_gib"] == 0).await?;
    says(&lab, "writer", "blocks 4194304").await?;

    lab.rest.post("/snapshots", &json!({"name": "before", "volume": "data"})).await?.expect(201)?;
    is(&lab, "/snapshots/before", |seen| seen["status"] == "AVAILABLE").await?;
    let restored = json!({"name": "data2", "size_gib": 2, "snapshot": "before"});
    lab.rest.post("/volumes", &restored).await?.expect(201)?;
    is(&lab, "/volumes/data2", |seen| seen["status"] == "AVAILABLE").await?;
    let volumes = json!([{"volume": "data2"}]);
    lab.instances().launch("reader", json!({"volumes": volumes, "user_data": DATA_READER})).await?;
    running(&lab, "reader").await?;
    says(&lab, "reader", "found kept-4711 in 4194304").await
}
