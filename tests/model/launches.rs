//! Exactly once: a gateway is killed again and again while instances are launched, each until it is acknowledged.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cloud_testkit::sim::SimCapacity;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::Code;

use crate::{
    client::{Client, REQUEST_IDS},
    cloud::{Engine, ModelCloud},
    history::{Call, Key, Kind, Outcome, Target},
    run::{alone, seed, setting},
};

/// In `make test`, and where there is time.
const LAUNCHES: [u32; 2] = [150, 500];
const CLIENTS: u32 = 8;
const HOSTS: usize = 20;
/// A subnet of the default VPC with addresses for all of them: the one that it comes with has 253.
const SUBNET: &str = "wide";
/// How long one may take until it is acknowledged.
const PATIENCE: Duration = Duration::from_secs(60);

/// In `make test` a gateway is killed every second. With `CLOUD_CHAOS_SECONDS` there are 500 launches that take that long, and it is every
/// ten.
#[tokio::test(flavor = "multi_thread")]
async fn launches_are_exactly_once_while_gateways_are_killed() -> anyhow::Result<()> {
    let time = setting("CLOUD_CHAOS_SECONDS").map(Duration::from_secs);
    let every = Duration::from_secs(if time.is_some() { 10 } else { 1 });
    let launches = LAUNCHES[usize::from(time.is_some())];
    let pace = time.unwrap_or_default() * CLIENTS / launches;
    let _alone = alone().await?;
    // A quarter more than is needed.
    let capacity = SimCapacity { vcpus: 8, memory_mib: 32 * 128, ..SimCapacity::default() };
    let cloud = Arc::new(ModelCloud::start(Engine::Postgres, 2, HOSTS, capacity, &[]).await?);
    let subnet = json!({"name": SUBNET, "cidr": "10.0.4.0/22"});
    cloud.gateways[0].lock().await.rest()?.post("/vpcs/default/subnets", &subnet).await?.expect(201)?;
    let (start, stop) = (Instant::now(), CancellationToken::new());
    let killer = AbortOnDropHandle::new(tokio::spawn(kill(Arc::clone(&cloud), every, stop.clone())));
    let run = format!("launches-{}", seed());
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = Client::new(cloud.clients().await?, start, run.clone());
        let numbers = (1..=launches).filter(|n| n % CLIENTS == number).collect();
        clients.push(tokio::spawn(launch(client, numbers, pace)));
    }
    let (mut ids, mut again) = (BTreeSet::new(), 0);
    for client in clients {
        let (made, attempts) = client.await??;
        again += attempts - made.len();
        ids.extend(made);
    }
    stop.cancel();
    let kills = killer.await??;
    println!("{launches} launches in {:?}, {again} made again, {kills} gateways killed", start.elapsed());

    let all = cloud.converges().await.map_err(|error| error.context("after the launches"))?;
    let instances: Vec<_> = all.iter().filter(|s| s.key.kind == Kind::Instance).collect();
    let there: BTreeSet<String> = instances.iter().map(|s| s.id.clone()).collect();
    // Deleted ones are listed too: none was made and taken back.
    assert_eq!((instances.len(), &there), (launches as usize, &ids));
    assert!(instances.iter().all(|s| s.status == "RUNNING"));
    let snapshots: Vec<_> = cloud.hosts.iter().map(cloud_testkit::SimHost::snapshot).collect();
    assert_eq!(snapshots.iter().map(|s| s.domains.len()).sum::<usize>(), launches as usize);
    assert!(snapshots.iter().flat_map(|s| s.domains.values()).all(|d| d.starts == 1), "no guest was started twice");
    assert!(kills >= 4, "only {kills} gateways were killed");
    cloud.stop_gateways().await
}

/// Kills one gateway after the other, and says how many.
async fn kill(cloud: Arc<ModelCloud>, every: Duration, stop: CancellationToken) -> anyhow::Result<u32> {
    for kills in 0.. {
        if stop.run_until_cancelled(sleep(every)).await.is_none() {
            return Ok(kills);
        }
        let mut gateway = cloud.gateways[kills as usize % cloud.gateways.len()].lock().await;
        gateway.restart().await?;
    }
    Ok(u32::MAX)
}

/// Launches each until it is acknowledged. Says their ids, and how many calls it took.
async fn launch(mut client: Client, numbers: Vec<u32>, pace: Duration) -> anyhow::Result<(Vec<String>, usize)> {
    let (mut ids, mut attempts) = (Vec::new(), 0);
    for number in numbers {
        sleep(pace).await;
        let name = format!("i-{number}");
        let call = Call::Launch { name: name.clone(), vpc: String::new(), subnet: SUBNET.into(), volumes: Vec::new() };
        let begun = Instant::now();
        let made = loop {
            attempts += 1;
            let gateway = number as usize + attempts;
            match client.make(number, gateway, call.clone()).await.outcome {
                Outcome::Done(seen) => break seen,
                // An attempt that was not answered has made it. With a request id the answer would have been given again.
                Outcome::Refused { code: Code::AlreadyExists, .. } if !REQUEST_IDS => {
                    let target = Target { key: Key::new(Kind::Instance, &name), id: None };
                    if let Outcome::Done(seen) = client.make(number, gateway, Call::Get(target)).await.outcome {
                        break seen;
                    }
                }
                // No host is UP for a moment, in the eyes of a gateway that has just started.
                Outcome::Refused { code: Code::ResourceExhausted, message, .. }
                    if message.starts_with("no host for") => {}
                Outcome::Unknown { .. } => {}
                Outcome::Refused { code, message, .. } => anyhow::bail!("{name} was refused with {code:?}: {message}"),
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{name} was not acknowledged within {PATIENCE:?}");
            sleep(Duration::from_millis(50)).await;
        };
        anyhow::ensure!(made.len() == 1 && made[0].key.name == name, "{name} was answered with {made:?}");
        ids.push(made[0].id.clone());
    }
    Ok((ids, attempts))
}
