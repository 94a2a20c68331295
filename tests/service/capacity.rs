//! Room on hosts: claimed exactly, never overcommitted, given back.

use cloud_testkit::sim::SimCapacity;
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use serde_json::json;

use crate::support::{names, refused, text};

/// Memory that the gateway keeps unpromised on each host, and the default type's memory, in MiB.
const RESERVE: u64 = 512;
const SMALL: u64 = 512;

fn room_for(instances: u64) -> SimCapacity {
    SimCapacity { memory_mib: RESERVE + instances * SMALL, ..SimCapacity::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_launches_fill_the_hosts_exactly() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 2, capacity: room_for(5), ..Setup::default() }).await?;
    let launches: Vec<_> = (0..32)
        .map(|number| {
            let rest = cloud.rest.clone();
            let body = json!({"name": format!("i-{number}"), "image": IMAGE});
            tokio::spawn(async move { rest.post("/instances", &body).await })
        })
        .collect();
    let mut accepted = Vec::new();
    for launch in launches {
        let answer = launch.await??;
        if answer.status == 201 {
            accepted.push(answer.at("/id"));
        } else {
            refused(&answer, 429, "RESOURCE_EXHAUSTED");
            assert!(answer.at("/error/message").contains("h1"), "says why, host by host: {}", answer.text());
        }
    }
    assert_eq!(accepted.len(), 10);
    for id in &accepted {
        cloud.becomes(id, "RUNNING").await?;
    }
    cloud.settles(10, 10, 10).await?;
    for host in ["h1", "h2"] {
        let host = cloud.rest.get(&format!("/hosts/{host}")).await?.expect(200)?;
        assert_eq!((&host["vcpus_used"], &host["instances"]), (&json!(5), &json!(5)), "{host}");
    }
    let all = cloud.rest.get("/instances?show_deleted=true").await?.expect(200)?;
    assert_eq!(names(&all, "instances").len(), 10, "a refused launch leaves no row");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_makes_room() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { capacity: room_for(1), ..Setup::default() }).await?;
    cloud.running("first").await?;
    let full = cloud.rest.post("/instances", &json!({"name": "second", "image": IMAGE})).await?;
    refused(&full, 429, "RESOURCE_EXHAUSTED");
    cloud.delete("first").await?;
    cloud.running("second").await?;
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_grows_takes_more() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { capacity: room_for(1), ..Setup::default() }).await?;
    cloud.running("first").await?;
    cloud.host().set_capacity(room_for(2));
    cloud_testkit::until("the new capacity", cloud_testkit::wait::PATIENCE, || async {
        let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
        let memory = text(&host, "memory_mib");
        Ok(if memory == (RESERVE + 2 * SMALL).to_string() { Ok(()) } else { Err(memory) })
    })
    .await?;
    cloud.running("second").await?;
    cloud.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_host_nothing_is_made() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 0, ..Setup::default() }).await?;
    let answer = cloud.rest.post("/instances", &json!({"name": "web-01", "image": IMAGE})).await?;
    refused(&answer, 429, "RESOURCE_EXHAUSTED");
    let all = cloud.rest.get("/instances?show_deleted=true").await?.expect(200)?;
    assert_eq!(names(&all, "instances").len(), 0);
    Ok(())
}
