//! (e) Scale: many simulated hosts and instances on one gateway, on both databases.
//!
//! The hosts and the load are in this process, the gateway is one of its own; all share the machine. The instances that are there already are
//! written to the database and to the hosts' models directly, by the gateway's own code: launching them all would take longer than all the rest.

mod load;
mod prefill;
mod process;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use cloud_testkit::{GatewayConfig, GatewayProcess, PostgresServer, SimHost, SimHostConfig, wait::until};

use crate::{load::no_quotas, table::Table};
use load::Load;
use process::Usage;

/// How large the cloud is, and how much it is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Simulated hosts.
    #[arg(long, default_value_t = 1000)]
    pub hosts: usize,
    /// Instances that run already.
    #[arg(long, default_value_t = 100_000)]
    pub instances: usize,
    /// How long each phase is measured, in seconds.
    #[arg(long, default_value_t = 20)]
    pub phase: u64,
    /// Only this database: `sqlite` or `postgres`.
    #[arg(long)]
    pub database: Option<String>,
    /// Launches per second that are asked for; by default the budget of the database.
    #[arg(long)]
    pub rate: Option<u32>,
}

impl Default for Args {
    fn default() -> Self {
        Self { hosts: 1000, instances: 100_000, phase: 20, database: None, rate: None }
    }
}

/// What the gateway may take, at the size of [`Args::default`].
const IDLE_CPU: f64 = 15.0;
const MEMORY: f64 = 400.0;
const READY: Duration = Duration::from_secs(2);
const GET_P99: Duration = Duration::from_millis(5);
const LIST_P99: Duration = Duration::from_millis(20);
/// How long a gateway may take to know all hosts and to have looked at all that is on them.
const PATIENCE: Duration = Duration::from_secs(180);

/// Measures on both databases.
pub async fn measure(table: &mut Table, args: &Args) -> anyhow::Result<()> {
    raise_open_files()?;
    for (name, rate) in [("sqlite", 200), ("postgres", 300)] {
        if args.database.as_deref().is_none_or(|only| only == name) {
            on(table, args, name, args.rate.unwrap_or(rate)).await.with_context(|| format!("scale on {name}"))?;
        }
    }
    Ok(())
}

async fn on(table: &mut Table, args: &Args, database: &str, rate: u32) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let postgres = if database == "postgres" { Some(PostgresServer::durable()?) } else { None };
    let url = postgres.as_ref().map(PostgresServer::url);
    let store = url.clone().unwrap_or_else(|| format!("sqlite:{}", dir.path().join("cloud.db").display()));
    let config = GatewayConfig { database: url, args: vec![no_quotas()], ..GatewayConfig::default() };
    let mut gateway = GatewayProcess::start(dir.path(), config).await?;
    let hosts = start_hosts(args.hosts, dir.path(), &gateway).await?;
    stop(&mut gateway).await?;
    prefill::fill(&store, &hosts, args.instances).await.context("prefill")?;

    table.note(&format!("(e) {database}: hosts, instances"), format!("{}, {}", args.hosts, args.instances));
    let begun = Instant::now();
    gateway.restart().await?;
    let ready = begun.elapsed();
    table.judged("    restarted gateway ready", seconds(ready), "under 2 s", ready < READY);
    verified(&gateway, args.hosts).await?;
    table.note("    restarted gateway has re-verified every host", seconds(begun.elapsed()));

    let usage = usage_while_idle(&mut gateway, Duration::from_secs(args.phase)).await?;
    table.judged(
        "    heartbeats and sweeps",
        format!("{:.1} % of a core", usage.cpu_percent),
        "under 15 %",
        usage.cpu_percent < IDLE_CPU,
    );
    let load = Load::run(&mut gateway, &hosts, rate, Duration::from_secs(args.phase)).await?;
    let asked = f64::from(rate);
    table.judged(
        "    launches, accepted and RUNNING",
        format!("{:.0}/s and {:.0}/s", load.accepted, load.running),
        &format!("{rate}/s"),
        load.running >= asked * 0.97,
    );
    table.note("    POST /instances p50, p99", format!("{} and {}", millis(load.launch.p50), millis(load.launch.p99)));
    let get = format!("{} and {}", millis(load.get.p50), millis(load.get.p99));
    table.judged("    GetInstance p50, p99 meanwhile", get, "p99 under 5 ms", load.get.p99 < GET_P99);
    let list = format!("{} and {}", millis(load.list.p50), millis(load.list.p99));
    table.judged("    ListInstances page p50, p99 meanwhile", list, "p99 under 20 ms", load.list.p99 < LIST_P99);
    table.note("    gateway's CPU under this load", format!("{:.0} % of a core", load.cpu_percent));
    let memory = process::megabytes(gateway.process().context("the gateway runs")?)?;
    table.judged("    gateway's memory", format!("{memory:.0} MB"), "under 400 MB", memory < MEMORY);
    for host in &hosts {
        let wrong = host.violations();
        anyhow::ensure!(wrong.is_empty(), "host {}: {}", host.name(), wrong.join("\n"));
    }
    Ok(())
}

async fn start_hosts(count: usize, dir: &std::path::Path, gateway: &GatewayProcess) -> anyhow::Result<Vec<SimHost>> {
    let start = |i: usize| {
        let name = format!("h{i}");
        SimHost::start(SimHostConfig::new(name, dir, Some(gateway.host_endpoint())))
    };
    let hosts = (0..count).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let rest = gateway.rest()?;
    until("every host to be UP", PATIENCE, || async {
        let up = metric(&rest.get("/metrics").await?.text(), "host_up{");
        Ok(if up == count { Ok(()) } else { Err(format!("{up} of {count}")) })
    })
    .await?;
    // An image, so that there is something to launch.
    let path = "/images:upload?name=tiny&format=RAW&visibility=PUBLIC";
    rest.send(http::Method::POST, path, Some("application/octet-stream"), vec![0x5a; 1 << 20]).await?.expect(201)?;
    Ok(hosts)
}

/// How many series of a gauge are 1.
fn metric(text: &str, prefix: &str) -> usize {
    text.lines().filter(|l| l.starts_with(prefix) && l.ends_with(" 1")).count()
}

async fn stop(gateway: &mut GatewayProcess) -> anyhow::Result<()> {
    let ended = gateway.process().context("the gateway runs")?.terminate(PATIENCE).await?;
    anyhow::ensure!(ended.success(), "the gateway ended: {ended}");
    Ok(())
}

/// Until the gateway has taken every host's inventory since its start, and has nothing left to do.
async fn verified(gateway: &GatewayProcess, hosts: usize) -> anyhow::Result<()> {
    let rest = gateway.rest()?;
    until("every host to be verified", PATIENCE, || async {
        let text = rest.get("/metrics").await?.text();
        let up = metric(&text, "host_up{");
        let looked = text.lines().filter(|l| l.starts_with("host_inventory_timestamp_seconds{")).count();
        let due = text.lines().find(|l| l.starts_with("work_queue_due{")).and_then(|l| l.split(' ').next_back());
        let due = due.unwrap_or("?").to_owned();
        Ok(if up == hosts && looked == hosts && due == "0" {
            Ok(())
        } else {
            Err(format!("{up} up, {looked} looked at, {due} due"))
        })
    })
    .await
}

async fn usage_while_idle(gateway: &mut GatewayProcess, time: Duration) -> anyhow::Result<Usage> {
    let process = gateway.process().context("the gateway runs")?;
    Usage::over(process, tokio::time::sleep(time)).await
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Three sockets for each agent, and as many connections.
fn raise_open_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum })?;
    Ok(())
}
