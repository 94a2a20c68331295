//! One run: plan, act, mend, judge.

use std::{collections::BTreeMap, env, fs, path::PathBuf, sync::Arc, time::Duration};

use cloud_testkit::sim::SimCapacity;
use tokio::{task::spawn_blocking, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    check::check,
    client::Client,
    cloud::{Engine, LIMITS, ModelCloud},
    history::{Call, Kind, Outcome, Record},
    nemesis,
    plan::{Plan, Size},
    rows, seen,
};

const CLIENTS: usize = 12;
const HOSTS: usize = 20;
/// For how long calls are made where nobody says otherwise.
const SECONDS: u64 = 30;
/// More calls of a client than fit into a second.
const CALLS_PER_SECOND: u64 = 60;

/// A number from the environment.
pub fn setting(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// What a run draws from.
pub fn seed() -> u64 {
    setting("CLOUD_CHAOS_SEED").unwrap_or_else(|| rand::random_range(1..1_000_000))
}

/// One run at a time, however many processes and threads tests have: each needs the machine.
pub async fn alone() -> anyhow::Result<fs::File> {
    let file = fs::File::create(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("model.lock"))?;
    Ok(spawn_blocking(move || file.lock().map(|()| file)).await??)
}

/// A whole run.
pub async fn run(engine: Engine, gateways: usize) -> anyhow::Result<()> {
    let (seed, seconds) = (seed(), setting("CLOUD_CHAOS_SECONDS").unwrap_or(SECONDS));
    let replay = format!("CLOUD_CHAOS_SEED={seed} CLOUD_CHAOS_SECONDS={seconds}");
    println!("{engine:?}, {gateways} gateways: {replay}");
    let _alone = alone().await?;
    let capacity = SimCapacity { vcpus: 4, memory_mib: LIMITS.memory_mib, ..SimCapacity::default() };
    // The default VPC is one of them.
    let quota = format!("--quota=instances={},vpcs={}", LIMITS.instances, LIMITS.vpcs + 1);
    let cloud = Arc::new(ModelCloud::start(engine, gateways, HOSTS, capacity, &[quota]).await?);
    let mut history = Vec::new();
    let judged = act(&cloud, seed, Duration::from_secs(seconds), &mut history).await;
    if let Err(error) = &judged {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("model-{engine:?}-{gateways}-{seed}.txt"));
        let lines: Vec<String> = history.iter().map(|r| format!("{r:?}")).collect();
        fs::write(&file, format!("{replay}\n{error:#}\n{}\n{}", lines.join("\n"), cloud.logs().await))?;
        println!("the history and the gateways' logs are in {}", file.display());
    }
    judged.map_err(|error| error.context(format!("again with {replay}")))
}

async fn act(cloud: &Arc<ModelCloud>, seed: u64, time: Duration, history: &mut Vec<Record>) -> anyhow::Result<()> {
    let calls = usize::try_from(time.as_secs() * CALLS_PER_SECOND)?;
    let size = Size {
        clients: CLIENTS,
        calls,
        gateways: cloud.gateways.len(),
        hosts: cloud.hosts.len(),
        has_database: cloud.postgres.is_some(),
        time,
    };
    let plan = Plan::new(seed, &size);
    let (start, stop) = (Instant::now(), CancellationToken::new());
    let supervised = Arc::clone(cloud);
    let _supervisor = AbortOnDropHandle::new(tokio::spawn(async move { supervised.supervise().await }));
    let mut clients = Vec::new();
    for steps in plan.clients {
        let client = Client::new(cloud.clients().await?, start, format!("model-{seed}"));
        clients.push(tokio::spawn(client.run(steps, stop.clone())));
    }
    let lanes: Vec<_> =
        plan.lanes.into_iter().map(|lane| tokio::spawn(nemesis::run(Arc::clone(cloud), lane, stop.clone()))).collect();
    tokio::time::sleep(time).await;
    stop.cancel();
    let mut faults = 0;
    for lane in lanes {
        faults += lane.await??;
    }
    for client in clients {
        history.extend(client.await?);
    }
    println!("{} in {:?}, {faults} faults", summary(history), start.elapsed());

    let mended = Instant::now();
    let all = cloud.converges().await?;
    println!("as intended {:?} after the last fault", mended.elapsed());
    let begun = start.elapsed();
    let end = all.iter().filter(|s| !seen::is_root(s)).cloned().collect();
    history.push(Record { op: 0, begun, ended: begun, call: Call::List(Kind::Instance), outcome: Outcome::Done(end) });
    let mut wrong = check(history, LIMITS);
    cloud.stop_gateways().await?;
    let database = cloud.database().await;
    wrong.extend(rows::check(&database, &all).await?);
    wrong.extend(rows::failing(&database).await?);
    let told: Vec<_> = wrong.iter().take(20).map(String::as_str).collect();
    anyhow::ensure!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), told.join("\n"));
    // A run in which nothing happens proves nothing.
    let all = done(history, |_| true);
    anyhow::ensure!(all > 30 && faults > 5, "only {all} calls were answered, and there were {faults} faults");
    let moved = done(history, |call| matches!(call, Call::Attach(..) | Call::Detach(..)));
    anyhow::ensure!(moved > 0, "no volume was attached or detached");
    Ok(())
}

/// Calls by what they came to.
fn summary(history: &[Record]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for record in history {
        let outcome = match &record.outcome {
            Outcome::Done(_) => "done".to_owned(),
            Outcome::Refused { code, .. } => format!("{code:?}"),
            Outcome::Unknown { .. } => "not answered".to_owned(),
        };
        *counts.entry(outcome).or_default() += 1;
    }
    let counts: Vec<_> = counts.into_iter().map(|(what, count)| format!("{count} {what}")).collect();
    let attached = done(history, |call| matches!(call, Call::Attach(..)));
    let detached = done(history, |call| matches!(call, Call::Detach(..)));
    format!("{} calls ({}), {attached} attached and {detached} detached", history.len(), counts.join(", "))
}

/// How many calls of a sort were carried out.
fn done(history: &[Record], of: impl Fn(&Call) -> bool) -> usize {
    history.iter().filter(|r| matches!(r.outcome, Outcome::Done(_)) && of(&r.call)).count()
}
