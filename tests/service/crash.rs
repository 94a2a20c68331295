//! The gateway is killed at random moments, and started again. What it acknowledged comes true, once.

use std::time::Duration;

use cloud_testkit::{Effect, Method, sim::Rule, until, wait::PATIENCE};
use cloud_tests::{TestCloud, chaos::Chaos, cloud::IMAGE};
use rand::Rng as _;
use serde_json::json;

use crate::support::text;

/// How often the gateway is killed in each test.
const ROUNDS: u32 = 6;

/// Every call takes a few milliseconds, so that there are moments to be killed at.
fn slow_hosts(cloud: &TestCloud) {
    for host in &cloud.hosts {
        let all = Method::ALL.iter().copied();
        host.faults().inject(Rule::on_all(all, Effect::Delay(Duration::from_millis(15))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn launches_survive_the_gateway_being_killed() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    slow_hosts(&cloud);
    let chaos = Chaos::in_rounds("launches and kills of the gateway", ROUNDS);
    let mut random = chaos.random(0);
    let mut acknowledged = Vec::new();
    for round in 0..chaos.rounds() {
        let launches = (0..4).map(|number| {
            let (rest, name) = (cloud.rest.clone(), format!("i-{round}-{number}"));
            tokio::spawn(async move { (rest.post("/instances", &json!({"name": name, "image": IMAGE})).await, name) })
        });
        let launches: Vec<_> = launches.collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
        cloud.gateway.kill();
        let mut unanswered = Vec::new();
        for launch in launches {
            match launch.await? {
                (Ok(answer), name) if answer.status == 201 => acknowledged.push((answer.at("/id"), name)),
                (_, name) => unanswered.push(name),
            }
        }
        cloud.gateway.restart().await?;
        for name in unanswered {
            // Its answer was lost. It is there, or it can be launched now.
            let answer = until("a host", PATIENCE, || async {
                let answer = cloud.rest.post("/instances", &json!({"name": name, "image": IMAGE})).await?;
                Ok(if matches!(answer.status.as_u16(), 201 | 409) { Ok(()) } else { Err(answer.text()) })
            });
            answer.await?;
            acknowledged.push((text(&cloud.instance(&name).await?, "id"), name));
        }
    }
    for (id, name) in &acknowledged {
        let running = cloud.becomes(id, "RUNNING").await?;
        assert_eq!(text(&running, "name"), *name);
    }
    let count = acknowledged.len();
    assert_eq!(count, 4 * chaos.rounds() as usize);
    cloud.settles(count, count, count).await?;
    let snapshot = cloud.host().snapshot();
    assert!(snapshot.domains.values().all(|d| d.starts == 1), "no guest was started twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_survive_the_gateway_being_killed() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    let chaos = Chaos::in_rounds("deletions and kills of the gateway", ROUNDS);
    let mut random = chaos.random(0);
    for round in 0..chaos.rounds() {
        let name = format!("i-{round}");
        cloud.running(&name).await?;
        slow_hosts(&cloud);
        let id = text(&cloud.rest.delete(&format!("/instances/{name}")).await?.expect(200)?, "id");
        tokio::time::sleep(Duration::from_millis(random.random_range(0..120))).await;
        cloud.gateway.restart().await?;
        cloud.becomes(&id, "DELETED").await?;
        cloud.host().faults().clear();
    }
    cloud.is_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_goes_on_after_the_gateway_was_killed() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    slow_hosts(&cloud);
    let rest = cloud.rest.clone();
    let stop = tokio::spawn(async move { rest.post("/instances/web-01/stop", &json!({})).await });
    until("the stop to be under way", PATIENCE, || async {
        let is = text(&cloud.instance("web-01").await?, "status");
        Ok(if is == "RUNNING" { Err(is) } else { Ok(()) })
    })
    .await?;
    cloud.gateway.restart().await?;
    let _lost = stop.await?;
    cloud.becomes("web-01", "STOPPED").await?;
    cloud.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn running_guests_do_not_notice_a_restart() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    let id = text(&cloud.running("web-01").await?, "id");
    cloud.gateway.restart().await?;
    cloud.hosts_are("UP").await?;
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.running("web-02").await?;
    let snapshot = cloud.host().snapshot();
    assert_eq!((snapshot.domains[&id].starts, snapshot.domains[&id].reboots), (1, 0));
    cloud.settles(2, 2, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_in_time_and_in_order() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    let process = cloud.gateway.process().unwrap();
    let status = process.terminate(Duration::from_secs(15)).await?;
    assert!(status.success(), "{status}");
    assert_eq!(cloud.host().snapshot().running(), 1);
    cloud.gateway.restart().await?;
    cloud.becomes("web-01", "RUNNING").await?;
    Ok(())
}
