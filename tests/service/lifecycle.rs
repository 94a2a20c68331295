//! Stop, start, reboot, delete.

use std::time::{Duration, Instant};

use cloud_testkit::{Effect, Method, sim::Rule};
use cloud_tests::{Setup, TestCloud};
use serde_json::json;

use crate::support::{names, refused, text};

#[tokio::test(flavor = "multi_thread")]
async fn stop_answers_when_it_is_stopped_and_start_runs_it_again() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let id = text(&cloud.running("web-01").await?, "id");
    let first = cloud.host().snapshot().domains[&id].owner.incarnation.clone();
    let stopped = cloud.rest.post(&format!("/instances/{id}/stop"), &json!({})).await?.expect(200)?;
    assert_eq!(stopped["status"], "STOPPED");
    assert_eq!(stopped["console_available"], json!(false));
    let again = cloud.rest.post("/instances/web-01/stop", &json!({})).await?.expect(200)?;
    assert_eq!(again["status"], "STOPPED", "stopping what is stopped is success");
    assert_eq!(cloud.host().snapshot().running(), 0);

    let starting = cloud.rest.post("/instances/web-01/start", &json!({})).await?.expect(200)?;
    assert_eq!(starting["status"], "STARTING");
    cloud.becomes("web-01", "RUNNING").await?;
    let snapshot = cloud.host().snapshot();
    assert_ne!(snapshot.domains[&id].owner.incarnation, first, "each start has an incarnation of its own");
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_without_a_body_is_what_curl_sends() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    let answer = cloud.rest.send(http::Method::POST, "/instances/web-01/stop", None, "").await?;
    assert_eq!(answer.expect(200)?["status"], "STOPPED");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_guest_is_powered_off_after_the_grace() -> anyhow::Result<()> {
    let args = vec!["--stop-grace=1".to_owned()];
    let cloud = TestCloud::with(Setup { guest_shutdown: None, args, ..Setup::default() }).await?;
    cloud.running("web-01").await?;
    let begun = Instant::now();
    let stopped = cloud.rest.post("/instances/web-01/stop", &json!({})).await?.expect(200)?;
    assert_eq!(stopped["status"], "STOPPED");
    assert!(begun.elapsed() >= Duration::from_secs(1), "the guest had its grace");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_starting_instance_cancels_its_launch() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.host().faults().inject(Rule::on(Method::EnsureInstance, Effect::FailBefore(tonic::Code::Unavailable)));
    cloud.launch("web-01").await?;
    let stopped = cloud.rest.post("/instances/web-01/stop", &json!({})).await?.expect(200)?;
    assert_eq!(stopped["status"], "STOPPED");
    cloud.host().faults().clear();
    assert_eq!(cloud.host().snapshot().running(), 0);
    cloud.rest.post("/instances/web-01/start", &json!({})).await?.expect(200)?;
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_restarts_the_guest_once() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let id = text(&cloud.running("web-01").await?, "id");
    cloud.rest.post("/instances/web-01/reboot", &json!({})).await?.expect(200)?;
    let rebooted = || cloud.host().snapshot().domains[&id].reboots == 1;
    cloud_testkit::wait::until_true("the reboot", cloud_testkit::wait::PATIENCE, rebooted).await?;
    assert_eq!(cloud.becomes("web-01", "RUNNING").await?["id"], id);
    assert_eq!(cloud.host().snapshot().domains[&id].starts, 1);
    cloud.rest.post("/instances/web-01/stop", &json!({})).await?.expect(200)?;
    let stopped = cloud.rest.post("/instances/web-01/reboot", &json!({})).await?;
    refused(&stopped, 400, "FAILED_PRECONDITION");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_instance_stays_readable_by_id_and_its_name_is_free() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let id = text(&cloud.running("web-01").await?, "id");
    let deleting = cloud.rest.delete("/instances/web-01").await?.expect(200)?;
    assert_eq!(deleting["status"], "DELETING");
    cloud.becomes(&id, "DELETED").await?;
    assert!(!text(&cloud.instance(&id).await?, "deleted_at").is_empty());
    refused(&cloud.rest.get("/instances/web-01").await?, 404, "NOT_FOUND");
    assert_eq!(names(&cloud.rest.get("/instances").await?.expect(200)?, "instances"), Vec::<String>::new());
    let all = cloud.rest.get("/instances?show_deleted=true").await?.expect(200)?;
    assert_eq!(names(&all, "instances"), ["web-01"]);
    cloud.is_clean().await?;

    let again = cloud.running("web-01").await?;
    assert_ne!(again["id"], id);
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_works_in_every_status() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.launch("starting").await?;
    cloud.delete("starting").await?;
    cloud.running("running").await?;
    cloud.delete("running").await?;
    cloud.running("stopped").await?;
    cloud.rest.post("/instances/stopped/stop", &json!({})).await?.expect(200)?;
    cloud.delete("stopped").await?;
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_etag_changes_nothing() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let etag = text(&cloud.running("web-01").await?, "etag");
    cloud.rest.post("/instances/web-01/stop", &json!({"etag": etag})).await?.expect(200)?;
    let stale = cloud.rest.delete(&format!("/instances/web-01?etag={etag}")).await?;
    refused(&stale, 412, "ABORTED");
    assert_eq!(cloud.instance("web-01").await?["status"], "STOPPED");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_shuts_itself_down_is_stopped() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let id = text(&cloud.running("web-01").await?, "id");
    let begun = Instant::now();
    assert!(cloud.host().shut_guest_down(&id));
    cloud.becomes("web-01", "STOPPED").await?;
    assert!(begun.elapsed() < Duration::from_secs(5), "seen by the watch, not by a sweep");
    Ok(())
}
