//! (e) Scale: many simulated hosts and instances on one gateway, on both databases.
//!
//! The hosts and the load are in this process, the gateway is one of its own; all share the machine. The instances that are there already are
//! written to the database and to the hosts' models directly, by the gateway's own code: launching them all would take longer than all the rest.

mod load;
pub mod plot;
mod prefill;
mod process;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cloud_testkit::{GatewayConfig, GatewayProcess, PostgresServer, SimHost, SimHostConfig, wait::until};

use crate::{load::no_quotas, table::Table};
use load::Load;
use plot::Figures;
use process::{Meters, Shares};

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
    /// Adds the figures to this file, for `plot`.
    #[arg(long)]
    pub csv: Option<PathBuf>,
}

impl Default for Args {
    fn default() -> Self {
        Self { hosts: 1000, instances: 100_000, phase: 20, database: None, rate: None, csv: None }
    }
}

/// What the gateway may take, at the size of [`Args::default`].
const IDLE_CPU: f64 = 15.0;
const MEMORY: f64 = 400.0;
const READY: Duration = Duration::from_secs(2);
const GET_P99: Duration = Duration::from_millis(5);
const LIST_P99: Duration = Duration::from_millis(20);
/// The gateway's sweep interval, in which every host is asked for all that it has: what it costs while idle is measured over one at least.
const SWEEP: Duration = Duration::from_secs(30);
/// How far below everything else the simulated hosts run: nice(2).
const HOSTS_NICE: i32 = 10;
/// How long a gateway may take to know all hosts and to have looked at all that is on them.
const PATIENCE: Duration = Duration::from_secs(180);

/// Measures on both databases.
pub async fn measure(table: &mut Table, args: &Args) -> anyhow::Result<()> {
    raise_open_files()?;
    for (name, rate) in [("sqlite", 200), ("postgres", 300)] {
        if args.database.as_deref().is_none_or(|only| only == name) {
            let runtime = hosts_runtime()?;
            let done = on(table, args, &runtime, name, args.rate.unwrap_or(rate)).await;
            runtime.shutdown_background();
            done.with_context(|| format!("scale on {name}"))?;
        }
    }
    Ok(())
}

async fn on(
    table: &mut Table,
    args: &Args,
    runtime: &tokio::runtime::Runtime,
    database: &str,
    rate: u32,
) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let postgres = if database == "postgres" { Some(PostgresServer::durable()?) } else { None };
    let url = postgres.as_ref().map(PostgresServer::url);
    let store = url.clone().unwrap_or_else(|| format!("sqlite:{}", dir.path().join("cloud.db").display()));
    let config = GatewayConfig { database: url, args: vec![no_quotas()], ..GatewayConfig::default() };
    let mut gateway = GatewayProcess::start(dir.path(), config).await?;
    let hosts = start_hosts(runtime, args.hosts, dir.path(), &gateway).await?;
    stop(&mut gateway).await?;
    prefill::fill(&store, &hosts, args.instances).await.context("prefill")?;
    if let Some(postgres) = &postgres {
        postgres.settle()?;
    }

    table.note(&format!("(e) {database}: hosts, instances"), format!("{}, {}", args.hosts, args.instances));
    let begun = Instant::now();
    gateway.restart().await?;
    let ready = begun.elapsed();
    table.judged("    restarted gateway ready", seconds(ready), "under 2 s", ready < READY);
    until_verified(&gateway, args.hosts).await?;
    let verified = begun.elapsed();
    table.note("    restarted gateway has re-verified every host", seconds(verified));

    let phase = Duration::from_secs(args.phase);
    let audit = audited(&mut gateway, postgres.as_ref()).await?;
    table.note("    an audit of the database, every ten minutes", format!("{audit:.1} s of a core"));
    let meters = Meters::start(&mut gateway, postgres.as_ref())?;
    tokio::time::sleep(phase.max(SWEEP)).await;
    let idle = meters.read();
    let value = format!("{:.1} % of a core", idle.gateway);
    table.judged("    heartbeats and sweeps", value, "under 15 %", idle.gateway < IDLE_CPU);
    table.note("    memory while idle", format!("{:.0} MB", memory(&mut gateway)?));
    let load = Load::run(&mut gateway, postgres.as_ref(), &hosts, rate, phase).await?;
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
    table.judged("    calls that failed", load.failed.to_string(), "none", load.failed == 0);
    let Shares { gateway: ours, database: theirs, simulation } = load.shares;
    let shares = format!("{ours:.0}, {theirs:.0}, {simulation:.0} % of a core");
    table.note("    processors under this load: gateway, database, hosts", shares);
    let memory = memory(&mut gateway)?;
    if let Some(csv) = &args.csv {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let figures = Figures {
            database: database.to_owned(),
            hosts: args.hosts,
            instances: args.instances,
            rate,
            running: load.running,
            ready: millis(ready),
            verified: millis(verified),
            idle: idle.gateway,
            launch: millis(load.launch.p99),
            get: millis(load.get.p99),
            list: millis(load.list.p99),
            memory,
        };
        figures.append(csv)?;
    }
    table.judged("    gateway's memory", format!("{memory:.0} MB"), "under 400 MB", memory < MEMORY);
    if let Some(why) = load.why {
        eprintln!("{database}: the first call that failed: {why}");
    }
    for host in &hosts {
        let wrong = host.violations();
        anyhow::ensure!(wrong.is_empty(), "host {}: {}", host.name(), wrong.join("\n"));
    }
    Ok(())
}

/// Where the simulated hosts run: below everything else, since they stand for other machines' processors.
fn hosts_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let below = || {
        // Of this thread alone. Where it may not, they run beside the rest, and everything only looks slower.
        let _refused = rustix::process::setpriority_process(None, HOSTS_NICE);
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    Ok(runtime.enable_all().worker_threads(2).on_thread_start(below).build()?)
}

async fn start_hosts(
    runtime: &tokio::runtime::Runtime,
    count: usize,
    dir: &std::path::Path,
    gateway: &GatewayProcess,
) -> anyhow::Result<Vec<SimHost>> {
    let start = |i: usize| {
        let name = format!("h{i}");
        SimHost::start(SimHostConfig::new(name, dir, Some(gateway.host_endpoint())))
    };
    let hosts = {
        let _theirs = runtime.enter();
        (0..count).map(start).collect::<anyhow::Result<Vec<_>>>()?
    };
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
async fn until_verified(gateway: &GatewayProcess, hosts: usize) -> anyhow::Result<()> {
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

/// The gateway's resident memory, in megabytes.
fn memory(gateway: &mut GatewayProcess) -> anyhow::Result<f64> {
    process::megabytes(gateway.process().context("the gateway runs")?)
}

/// Waits for the first audit, soon after the start. How many seconds of a core the gateway and the database took until then, beyond what they take
/// beside it.
async fn audited(gateway: &mut GatewayProcess, database: Option<&PostgresServer>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let meters = Meters::start(gateway, database)?;
    let rest = gateway.rest()?;
    until("the first audit", PATIENCE, || async {
        // Metrics of so many hosts cost something too.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let done = rest.get("/metrics").await?.text().contains("\ndatabase_contradictions{");
        Ok(if done { Ok(()) } else { Err("no audit yet") })
    })
    .await?;
    let (took, both) = (begun.elapsed(), meters.read());
    let meters = Meters::start(gateway, database)?;
    tokio::time::sleep(took.min(SWEEP)).await;
    let beside = meters.read();
    let percent = (both.gateway + both.database) - (beside.gateway + beside.database);
    Ok(percent / 100.0 * took.as_secs_f64())
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
