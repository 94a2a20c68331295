//! Data volumes in real guests: written, grown while the guest runs, kept as a snapshot, restored, limited.

use std::time::Duration;

use cloud_testkit::{Role, until};
use cloud_tests::{
    RealCloud,
    instances::{DATA_READER, DATA_TIMER, DATA_WRITER, data_watcher},
    real::PATIENCE,
};
use http::Method as Http;
use serde_json::{Value, json};

/// Waits until what is at a path is as `done` says.
async fn is(cloud: &RealCloud, path: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    until(path, PATIENCE, || async {
        let seen = cloud.rest.get(path).await?.expect(200)?;
        Ok(if done(&seen) { Ok(seen) } else { Err(seen.to_string()) })
    })
    .await
    .map_err(|error| cloud.with_logs(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_grows_under_its_guest_and_a_snapshot_of_it_is_restored() -> anyhow::Result<()> {
    let cloud = RealCloud::start().await?;
    cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 1})).await?.expect(201)?;
    cloud.launch("writer", json!({"volumes": [{"volume": "data"}], "user_data": DATA_WRITER})).await?;
    cloud.becomes("writer", "RUNNING").await?;
    cloud.says("writer", "wrote").await?;
    cloud.says("writer", "blocks 2097152").await?;

    cloud.rest.post("/volumes/data/resize", &json!({"size_gib": 2})).await?.expect(200)?;
    is(&cloud, "/volumes/data", |seen| seen["size_gib"] == 2 && seen["growing_to_gib"] == 0).await?;
    cloud.says("writer", "blocks 4194304").await?;
    assert!(!cloud.log("writer").await?.contains("blocks 0"), "the guest kept its disk");

    // A directory takes no snapshot of what a guest has open, and says so.
    cloud.rest.post("/snapshots", &json!({"name": "early", "volume": "data"})).await?.expect(201)?;
    let refused = is(&cloud, "/snapshots/early", |seen| seen["status"] == "ERROR").await?;
    assert!(refused["status_reason"].as_str().unwrap().contains("stop"), "{refused}");
    cloud.rest.post("/instances/writer/stop", &json!({})).await?.expect(200)?;
    cloud.rest.post("/snapshots", &json!({"name": "before", "volume": "data"})).await?.expect(201)?;
    is(&cloud, "/snapshots/before", |seen| seen["status"] == "AVAILABLE").await?;
    // The snapshot outlives its volume.
    cloud.delete("writer").await?;
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    let restored = json!({"name": "data2", "size_gib": 3, "snapshot": "before"});
    cloud.rest.post("/volumes", &restored).await?.expect(201)?;
    is(&cloud, "/volumes/data2", |seen| seen["status"] == "AVAILABLE").await?;
    cloud.launch("reader", json!({"volumes": [{"volume": "data2"}], "user_data": DATA_READER})).await?;
    cloud.becomes("reader", "RUNNING").await?;
    cloud.says("reader", "found kept-4711 in 6291456").await?;

    cloud.delete("reader").await?;
    cloud.rest.delete("/volumes/data2").await?.expect(200)?;
    for snapshot in ["early", "before"] {
        cloud.rest.delete(&format!("/snapshots/{snapshot}")).await?.expect(200)?;
    }
    cloud.has(0, 0, 0).await
}

/// The instance has these volumes beside its root disk, with nothing under way.
async fn has_volumes(cloud: &RealCloud, instance: &str, wanted: &[&str]) -> anyhow::Result<Value> {
    is(cloud, &format!("/instances/{instance}"), |seen| {
        let disks = seen["volumes"].as_array().cloned().unwrap_or_default();
        let own =
            disks.iter().filter(|disk| disk["root"] == false).map(|disk| disk["name"].as_str().unwrap_or_default());
        own.eq(wanted.iter().copied()) && disks.iter().all(|disk| disk["state"] == "ATTACHED")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_goes_from_one_running_guest_to_another_with_what_was_written() -> anyhow::Result<()> {
    let cloud = RealCloud::start().await?;
    let data = cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 1})).await?.expect(201)?;
    let serial: String = data["id"].as_str().unwrap().chars().take(20).collect();
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let made = cloud.launch(name, json!({"user_data": data_watcher(&serial)})).await?;
        cloud.becomes(name, "RUNNING").await?;
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    for name in ["one", "two"] {
        cloud.says(name, "watching").await?;
    }
    let processes = || anyhow::Ok([cloud.guest_pid(&ids[0])?, cloud.guest_pid(&ids[1])?]);
    let before = processes()?;
    let attach =
        async |name: &str| cloud.rest.post(&format!("/instances/{name}/volumes"), &json!({"volume": "data"})).await;
    attach("one").await?.expect(200)?;
    has_volumes(&cloud, "one", &["data"]).await?;
    cloud.says("one", "data came with nothing").await?;
    cloud.says("one", "data written").await?;
    let refused = attach("two").await?;
    assert_eq!((refused.status.as_u16(), refused.at("/error/status").as_str()), (400, "FAILED_PRECONDITION"));

    cloud.rest.delete("/instances/one/volumes/data").await?.expect(200)?;
    is(&cloud, "/volumes/data", |seen| seen["status"] == "AVAILABLE").await?;
    cloud.says("one", "data went").await?;
    has_volumes(&cloud, "one", &[]).await?;

    attach("two").await?.expect(200)?;
    has_volumes(&cloud, "two", &["data"]).await?;
    cloud.says("two", "data came with kept-4711").await?;
    assert_eq!(processes()?, before, "neither was started again");

    // Cold, and there again at the next start.
    cloud.rest.post("/instances/two/stop", &json!({})).await?.expect(200)?;
    cloud.rest.delete("/instances/two/volumes/data").await?.expect(200)?;
    is(&cloud, "/volumes/data", |seen| seen["status"] == "AVAILABLE").await?;
    cloud.rest.post("/instances/one/stop", &json!({})).await?.expect(200)?;
    attach("one").await?.expect(200)?;
    has_volumes(&cloud, "one", &["data"]).await?;
    cloud.rest.post("/instances/one/start", &json!({})).await?.expect(200)?;
    cloud.becomes("one", "RUNNING").await?;
    cloud.says("one", "data came with kept-4711").await?;

    for name in ["one", "two"] {
        cloud.delete(name).await?;
    }
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.has(0, 0, 0).await
}

/// How long the guest took to write 6 MiB and to read them, in hundredths of a second, each time it did.
async fn runs(cloud: &RealCloud) -> anyhow::Result<Vec<(u32, u32)>> {
    let log = cloud.log("timer").await?;
    let took = |line: &str| {
        let (wrote, read) = line.split_once(": wrote in ")?.1.split_once(", read in ")?;
        Some((wrote.parse().ok()?, read.split_once('.')?.0.parse().ok()?))
    };
    Ok(log.lines().filter(|line| line.contains("run ")).filter_map(took).collect())
}

/// Waits for a run that begins after this and is as `wanted` says; it is the first, where not even one may be otherwise.
async fn next_run(cloud: &RealCloud, first: bool, wanted: impl Fn(u32) -> bool) -> anyhow::Result<()> {
    // One may be under way.
    let before = runs(cloud).await?.len() + 1;
    until("the guest to write and read", PATIENCE, || async {
        let all = runs(cloud).await?;
        let since = all.get(before..).unwrap_or_default();
        let good = since.iter().any(|(wrote, read)| wanted(*wrote) && wanted(*read));
        anyhow::ensure!(good || !first || since.is_empty(), "{all:?}, of which {before} were before");
        Ok(if good { Ok(()) } else { Err(format!("{all:?}")) })
    })
    .await
    .map_err(|error| cloud.with_logs(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_writes_and_reads_as_fast_as_its_volume_may() -> anyhow::Result<()> {
    // 6 MiB take 6.3 s at 1 MB/s, and a fraction of a second where nothing holds them.
    let (slow, fast) = (|took: u32| took >= 500, |took: u32| took <= 300);
    let mut cloud = RealCloud::start().await?;
    let data = json!({"name": "data", "size_gib": 1, "mb_per_second": 1});
    cloud.rest.post("/volumes", &data).await?.expect(201)?;
    cloud.launch("timer", json!({"volumes": [{"volume": "data"}], "user_data": DATA_TIMER})).await?;
    cloud.becomes("timer", "RUNNING").await?;
    cloud.says("timer", "run 1: ").await?;
    let first = runs(&cloud).await?[0];
    assert!(slow(first.0) && slow(first.1), "{first:?}");

    let limit = async |cloud: &RealCloud, mb_per_second: u32| {
        let body = json!({"volume": {"mb_per_second": mb_per_second}, "update_mask": "mb_per_second"});
        let asked = cloud.rest.send(Http::PATCH, "/volumes/data", Some("application/json"), body.to_string());
        asked.await?.expect(200)?;
        let has = |seen: &Value| seen["mb_per_second"] == mb_per_second && seen["limits_pending"] == false;
        is(cloud, "/volumes/data", has).await
    };
    limit(&cloud, 0).await?;
    // The machine may be busy for a while.
    next_run(&cloud, false, fast).await?;
    limit(&cloud, 1).await?;
    next_run(&cloud, true, slow).await?;
    // It is the hypervisor that holds them.
    let before = runs(&cloud).await?.len();
    cloud.kill_agent(Role::Compute);
    tokio::time::sleep(Duration::from_secs(20)).await;
    cloud.start_agent(Role::Compute)?;
    cloud.is_up().await?;
    let meanwhile = runs(&cloud).await?.split_off(before);
    let held = meanwhile.iter().all(|(wrote, read)| slow(*wrote) && slow(*read));
    assert!(!meanwhile.is_empty() && held, "{meanwhile:?}");
    limit(&cloud, 0).await?;
    next_run(&cloud, false, fast).await?;

    cloud.delete("timer").await?;
    cloud.rest.delete("/volumes/data").await?.expect(200)?;
    cloud.has(0, 0, 0).await
}
