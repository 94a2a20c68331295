//! (c) How fast POST /instances answers while launches are under way against simulated agents.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cloud_contracts::agent::PowerState;
use cloud_testkit::{
    Effect, Method, RestClient, SimHost,
    sim::{Rule, SimCapacity},
    wait::{PATIENCE, until_true},
};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    load::{histogram, micros, no_quotas},
    table::Table,
};

/// How many launches are under way at any time.
const UNDER_WAY: usize = 50;
/// How long a simulated hypervisor takes at least to start a guest, and at most how much longer: guests do not start in step.
const START_TIME: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(200)];
/// How long each measurement takes.
const MEASURED: Duration = Duration::from_secs(10);
/// How often many launches are sent at the very same moment.
const BURSTS: usize = 10;
/// The budget for the 99th percentile.
const BUDGET: Duration = Duration::from_millis(25);

/// Measures.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let capacity = SimCapacity { vcpus: 1024, memory_mib: 4 << 20, ..SimCapacity::default() };
    let cloud = TestCloud::with(Setup { hosts: 4, args: vec![no_quotas()], capacity, ..Setup::default() }).await?;
    for host in &cloud.hosts {
        host.faults().inject(Rule::on(Method::EnsureInstance, Effect::Delay(START_TIME[0])));
        host.faults().inject(Rule::on(Method::EnsureInstance, Effect::DelayUpTo(START_TIME[1])));
    }
    let (rest, hosts) = (cloud.rest.clone(), Arc::new(cloud.hosts));
    for user in 0..UNDER_WAY {
        // A VPC each: a network of many users, not one of a thousand ports.
        rest.post("/vpcs", &json!({"name": vpc(user)})).await?.expect(201)?;
    }

    let begun = Instant::now();
    let latency = merged((0..UNDER_WAY).map(|user| {
        let (rest, hosts) = (rest.clone(), Arc::clone(&hosts));
        async move {
            // From the first launch on they come as they do later: spread over the time that one takes.
            sleep(START_TIME[0].mul_f64(user as f64 / UNDER_WAY as f64)).await;
            let mut latency = histogram()?;
            for number in 0.. {
                if begun.elapsed() > MEASURED {
                    break;
                }
                let id = launch(&rest, user, &format!("i-{user}-{number}"), &mut latency).await?;
                until_true("the guest to run", PATIENCE, || runs(&hosts, &id)).await?;
            }
            Ok(latency)
        }
    }))
    .await?;
    let rate = latency.len() as f64 / begun.elapsed().as_secs_f64();
    table.note(
        &format!("(c) launches, {UNDER_WAY} under way, 4 simulated hosts"),
        format!("{} at {rate:.0}/s", latency.len()),
    );
    table.judged(
        "    POST /instances, p50 and p99",
        shown(&latency),
        &format!("p99 under {} ms", BUDGET.as_millis()),
        Duration::from_micros(latency.value_at_quantile(0.99)) < BUDGET,
    );

    let mut burst = histogram()?;
    for number in 0..BURSTS {
        burst.add(
            merged((0..UNDER_WAY).map(|user| {
                let rest = rest.clone();
                async move {
                    let mut latency = histogram()?;
                    launch(&rest, user, &format!("b-{user}-{number}"), &mut latency).await?;
                    Ok(latency)
                }
            }))
            .await?,
        )?;
        sleep(Duration::from_secs(1)).await;
    }
    table.note(&format!("    the same where {UNDER_WAY} are sent at one moment"), shown(&burst));
    Ok(())
}

async fn merged(
    users: impl Iterator<Item = impl Future<Output = anyhow::Result<Histogram<u64>>> + Send + 'static>,
) -> anyhow::Result<Histogram<u64>> {
    let mut tasks: JoinSet<_> = users.collect();
    let mut latency = histogram()?;
    while let Some(done) = tasks.join_next().await {
        latency.add(done??)?;
    }
    Ok(latency)
}

async fn launch(rest: &RestClient, user: usize, name: &str, latency: &mut Histogram<u64>) -> anyhow::Result<String> {
    let body = json!({"name": name, "image": IMAGE, "vpc": vpc(user)});
    let sent = Instant::now();
    let answer = rest.post("/instances", &body).await?;
    latency.saturating_record(micros(sent));
    Ok(answer.expect(201)?["id"].as_str().context("an id")?.to_owned())
}

fn vpc(user: usize) -> String {
    format!("net-{user}")
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of one call")]
fn shown(latency: &Histogram<u64>) -> String {
    let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    format!("{:.1} and {:.1} ms", ms(0.5), ms(0.99))
}

fn runs(hosts: &[SimHost], id: &str) -> bool {
    hosts.iter().any(|host| host.power(id) == Some(PowerState::Running))
}
