//! (c) How fast POST /instances answers while launches are under way against simulated agents.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cloud_contracts::agent::PowerState;
use cloud_testkit::{
    Effect, Method, SimHost,
    sim::Rule,
    wait::{PATIENCE, until_true},
};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    load::{histogram, micros},
    table::Table,
};

/// How many launches are under way at any time.
const UNDER_WAY: usize = 50;
/// How many launches each of them is, one after the other.
const EACH: usize = 20;
/// How long a simulated hypervisor takes to start a guest.
const START_TIME: Duration = Duration::from_millis(300);
/// The budget for the 99th percentile.
const BUDGET: Duration = Duration::from_millis(25);

/// Measures.
pub async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 4, ..Setup::default() }).await?;
    for host in &cloud.hosts {
        host.faults().inject(Rule::on(Method::EnsureInstance, Effect::Delay(START_TIME)));
    }
    let (rest, hosts) = (cloud.rest.clone(), Arc::new(cloud.hosts));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..UNDER_WAY {
        let (rest, hosts) = (rest.clone(), Arc::clone(&hosts));
        tasks.spawn(async move {
            // A VPC each: a network of many users, not one of a thousand ports.
            let vpc = format!("net-{worker}");
            rest.post("/vpcs", &json!({"name": vpc})).await?.expect(201)?;
            let mut latency = histogram()?;
            for number in 0..EACH {
                let body = json!({"name": format!("i-{worker}-{number}"), "image": IMAGE, "vpc": vpc});
                let sent = Instant::now();
                let answer = rest.post("/instances", &body).await?;
                latency.saturating_record(micros(sent));
                let id = answer.expect(201)?["id"].as_str().context("an id")?.to_owned();
                until_true("the guest to run", PATIENCE, || hosts.iter().any(|host| runs(host, &id))).await?;
            }
            anyhow::Ok(latency)
        });
    }
    let mut latency = histogram()?;
    while let Some(done) = tasks.join_next().await {
        latency.add(done??)?;
    }
    let p99 = Duration::from_micros(latency.value_at_quantile(0.99));
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = latency.len() as f64 / begun.elapsed().as_secs_f64();
    table.note(
        &format!("(c) launches, {UNDER_WAY} under way, 4 simulated hosts"),
        format!("{} at {rate:.0}/s", latency.len()),
    );
    let p50 = Duration::from_micros(latency.value_at_quantile(0.5));
    table.judged(
        "    POST /instances, p50 and p99",
        format!("{:.1} and {:.1} ms", p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3),
        &format!("p99 under {} ms", BUDGET.as_millis()),
        p99 < BUDGET,
    );
    Ok(())
}

fn runs(host: &SimHost, id: &str) -> bool {
    host.power(id) == Some(PowerState::Running)
}
