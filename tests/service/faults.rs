//! Every call to an agent fails once before its work, once after it, and hangs once. After each: intended equals actual.

use cloud_testkit::{Effect, Method, sim::Rule};
use cloud_tests::{Setup, TestCloud};
use serde_json::json;
use tonic::Code;

use crate::support::text;

/// What the life of an instance takes.
const CALLS: [Method; 8] = [
    Method::GetImage,
    Method::PutImage,
    Method::EnsureVolume,
    Method::ApplyVpc,
    Method::EnsureInstance,
    Method::StopInstance,
    Method::RemoveInstance,
    Method::RemoveVolume,
];

/// Launch, stop, start, delete, with `effect` striking `method` once on the way.
async fn a_life(method: Method, effect: Effect) -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.host().faults().inject(Rule::on(method, effect.clone()).once());
    let what = format!("{method} {effect:?}");
    let context = |error: anyhow::Error| error.context(what.clone());
    cloud.running("web-01").await.map_err(context)?;
    cloud.settles(1, 1, 1).await.map_err(context)?;
    let stopped = cloud.rest.post("/instances/web-01/stop", &json!({})).await?.expect(200).map_err(context)?;
    assert_eq!(stopped["status"], "STOPPED");
    cloud.rest.post("/instances/web-01/start", &json!({})).await?.expect(200).map_err(context)?;
    cloud.becomes("web-01", "RUNNING").await.map_err(context)?;
    cloud.settles(1, 1, 1).await.map_err(context)?;
    cloud.delete("web-01").await.map_err(context)?;
    cloud.is_clean().await.map_err(context)?;
    assert_eq!(cloud.host().faults().struck(), 1, "{what}");
    Ok(())
}

async fn lives(effect: Effect) -> anyhow::Result<()> {
    let lives = CALLS.map(|method| tokio::spawn(a_life(method, effect.clone())));
    for life in lives {
        life.await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_before_its_work_is_made_again() -> anyhow::Result<()> {
    lives(Effect::FailBefore(Code::Unavailable)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_reply_is_lost_is_made_again() -> anyhow::Result<()> {
    lives(Effect::FailAfter(Code::Unavailable)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_internal_error_is_not_the_end() -> anyhow::Result<()> {
    lives(Effect::FailBefore(Code::Internal)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_is_given_up_and_made_again() -> anyhow::Result<()> {
    lives(Effect::Hang).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_after_its_work_is_made_again() -> anyhow::Result<()> {
    lives(Effect::HangAfter).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_faults_at_once_converge() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 2, ..Setup::default() }).await?;
    for host in &cloud.hosts {
        for effect in [Effect::FailBefore(Code::Unavailable), Effect::FailAfter(Code::Unavailable)] {
            host.faults().inject(Rule::on_all(CALLS, effect).with_probability(0.15));
        }
    }
    for number in 0..12 {
        cloud.launch(&format!("i-{number}")).await?;
    }
    for number in 0..12 {
        cloud.becomes_within(&format!("i-{number}"), "RUNNING", std::time::Duration::from_secs(60)).await?;
    }
    cloud.settles(12, 12, 12).await?;
    for number in 0..12 {
        cloud.delete_within(&format!("i-{number}"), std::time::Duration::from_secs(90)).await?;
    }
    cloud.is_clean().await?;
    assert!(cloud.hosts.iter().any(|h| h.faults().struck() > 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_provisioned_is_an_error_with_a_reason_and_nothing_left() -> anyhow::Result<()> {
    let args = vec!["--start-timeout=2".to_owned()];
    let cloud = TestCloud::with(Setup { args, ..Setup::default() }).await?;
    cloud.host().faults().inject(Rule::on(Method::EnsureInstance, Effect::FailBefore(Code::Internal)));
    cloud.launch("web-01").await?;
    let failed = cloud_testkit::until("the launch to fail", cloud_testkit::wait::PATIENCE, || async {
        let instance = cloud.instance("web-01").await?;
        Ok(if instance["status"] == "ERROR" { Ok(instance) } else { Err(instance.to_string()) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    assert!(text(&failed, "status_reason").contains("injected fault"), "{failed}");
    cloud.is_clean().await?;
    // Its claims are released after its objects are gone.
    cloud_testkit::until("its capacity to be free again", cloud_testkit::wait::PATIENCE, || async {
        let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
        Ok(if host["vcpus_used"] == 0 { Ok(()) } else { Err(host.to_string()) })
    })
    .await?;
    cloud.delete("web-01").await?;
    cloud.host().faults().clear();
    cloud.running("web-01").await?;
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_missing_is_an_error_and_never_made_anew() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    cloud.rest.post("/instances/web-01/stop", &json!({})).await?.expect(200)?;
    let volume = cloud.host().snapshot().volumes.keys().next().unwrap().clone();
    assert!(cloud.host().remove_volume(&volume));
    cloud.rest.post("/instances/web-01/start", &json!({})).await?.expect(200)?;
    let failed = cloud_testkit::until("the start to fail", cloud_testkit::wait::PATIENCE, || async {
        let instance = cloud.instance("web-01").await?;
        Ok(if instance["status"] == "ERROR" { Ok(instance) } else { Err(instance.to_string()) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    assert!(text(&failed, "status_reason").contains("missing"), "{failed}");
    assert!(cloud.host().snapshot().volumes.is_empty(), "no blank disk was made in its place");
    cloud.delete("web-01").await?;
    cloud.is_clean().await
}
