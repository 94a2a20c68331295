//! SIGKILL to each daemon in turn, while instances run and while one launches: guests do not notice, everything converges.

use cloud_testkit::{Role, until};
use cloud_tests::{Instances, RealCloud, real::PATIENCE};
use serde_json::json;

/// Who is killed.
#[derive(Debug, Clone, Copy)]
pub enum Victim {
    /// The gateway.
    Gateway,
    /// An agent.
    Agent(Role),
}

/// All four.
pub const VICTIMS: [Victim; 4] =
    [Victim::Gateway, Victim::Agent(Role::Compute), Victim::Agent(Role::Storage), Victim::Agent(Role::Network)];

/// Launches, as soon as there is a host: an agent that was just started anew has not said yet what its host has.
async fn launch(cloud: &RealCloud, name: &str) -> anyhow::Result<()> {
    until("a host to be there", PATIENCE, || async {
        let answer = cloud.rest.post("/instances", &Instances::body(name, json!({}))).await?;
        match answer.status.as_u16() {
            429 => Ok(Err(answer.text())),
            _ => answer.expect(201).map(|_| Ok(())),
        }
    })
    .await
    .map_err(|error| cloud.with_logs(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_daemon_is_killed_while_guests_run_and_one_launches() -> anyhow::Result<()> {
    let mut cloud = RealCloud::start().await?;
    cloud.launch("steady", json!({})).await?;
    let steady = cloud.becomes("steady", "RUNNING").await?["id"].as_str().unwrap().to_owned();
    cloud.says("steady", "tiny: ready").await?;
    let pid = cloud.guest_pid(&steady)?;

    for (number, victim) in VICTIMS.into_iter().enumerate() {
        let name = format!("i-{number}");
        launch(&cloud, &name).await?;
        match victim {
            Victim::Gateway => cloud.gateway.restart().await?,
            Victim::Agent(role) => cloud.start_agent(role)?,
        }
        let context = |error: anyhow::Error| error.context(format!("after the kill of {victim:?}"));
        cloud.becomes(&name, "RUNNING").await.map_err(context)?;
        cloud.has(number + 2, number + 2, number + 2).await.map_err(context)?;
        cloud.becomes("steady", "RUNNING").await.map_err(context)?;
        assert_eq!(cloud.guest_pid(&steady)?, pid, "the guest runs on in the same process: {victim:?}");
    }
    cloud.is_up().await?;
    for number in 0..VICTIMS.len() {
        cloud.delete(&format!("i-{number}")).await?;
    }
    let stopped = cloud.rest.post("/instances/steady/stop", &json!({})).await?.expect(200)?;
    assert_eq!(stopped["status"], "STOPPED");
    cloud.delete("steady").await?;
    cloud.has(0, 0, 0).await
}
