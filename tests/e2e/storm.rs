//! SIGKILL at random moments to all four daemons, while instances are launched, stopped, started and deleted. After every round what shall be,
//! what the database says and what is on the host are the same, and guests that nobody touched did not notice.
//!
//! A round is made of its number and the seed. What a request was answered is what must come true; one that got no answer may have
//! been taken or not, and then the instance's own `desired_status` says which.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use cloud_testkit::{GatewayConfig, RestClient, until};
use cloud_tests::{
    RealCloud,
    chaos::{self, Chaos},
    real::{BOOT, IMAGE, PATIENCE, virsh},
};
use http::Method as Http;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::kills::{VICTIMS, Victim};

/// Rounds in `make test`; `make chaos` asks for more.
const ROUNDS: u32 = 10;
/// Instances at a time, beside the steady ones.
const MOST: usize = 5;
/// How long the kills of a round go on.
const STORM: Duration = Duration::from_millis(2_500);
/// The guests that nobody touches.
const STEADY: [&str; 2] = ["steady-0", "steady-1"];

/// Asks the other steady guest for its name once a second, and says whether it answered: `alive 17 ok`, by the guest's own uptime in seconds.
const ALIVE: &str = r#"#!/bin/sh
own=$(ip -o -4 addr show eth0 | awk '{ split($4, a, "/"); print a[1] }')
prefix=${own%.*}
last=${own##*.}
other=$prefix.$((5 - last))
while true; do
    if [ -n "$(nc -w 5 "$other" 7777 < /dev/null)" ]; then answer=ok; else answer=lost; fi
    echo "alive $(cut -d. -f1 /proc/uptime) $answer"
    sleep 1
done
"#;

/// What a user asks of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Launch,
    Stop,
    Start,
    Delete,
}

/// What came of it: accepted, refused, or nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused,
    Unknown,
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_are_killed_at_random_moments() -> anyhow::Result<()> {
    let chaos = Chaos::in_rounds("real kills", ROUNDS);
    let args = ["--stop-grace=5", "--stop-wait=20"].map(str::to_owned).to_vec();
    let mut cloud = RealCloud::with(GatewayConfig { args, ..GatewayConfig::default() }).await?;
    let ended = storm(&chaos, &mut cloud).await;
    ended.map_err(|error| chaos.context(cloud.with_logs(error)))
}

async fn storm(chaos: &Chaos, cloud: &mut RealCloud) -> anyhow::Result<()> {
    let mut steady = Vec::new();
    for name in STEADY {
        // One after the other, so that they have the subnet's first two addresses.
        cloud.launch(name, json!({"user_data": ALIVE})).await?;
        let instance = cloud.becomes(name, "RUNNING").await?;
        let id = instance["id"].as_str().context("an instance has an id")?.to_owned();
        steady.push(Steady { name, pid: cloud.guest_pid(&id)?, id, beats: 0 });
    }
    for guest in &mut steady {
        guest.beats_on(cloud).await?;
    }
    // From here on each of them answers the other.
    for guest in &mut steady {
        guest.forget_losses(cloud).await?;
    }
    let mut live = BTreeMap::new();
    for round in 0..chaos.rounds() {
        let begun = std::time::Instant::now();
        let mut random = chaos.random(round.into());
        let context = || format!("round {round}");
        let wishes = wishes(&mut random, round, &live);
        let kills = kills(&mut random);
        println!("round {round}: {wishes:?}, kills {kills:?}");
        let outcomes = breaks(cloud, &wishes, &kills).await.with_context(context)?;
        cloud.is_up().await.with_context(context)?;
        settles(cloud, &mut live, &outcomes).await.with_context(context)?;
        for guest in &mut steady {
            guest.beats_on(cloud).await.with_context(context)?;
        }
        println!("round {round}: {} live, {:.1} s", live.len(), begun.elapsed().as_secs_f32());
    }
    no_bugs(cloud)?;
    for name in live.keys().map(String::as_str).chain(STEADY) {
        cloud.delete(name).await?;
    }
    cloud.has(0, 0, 0).await
}

/// A guest that nobody touches.
struct Steady {
    name: &'static str,
    id: String,
    pid: String,
    /// How much of what it said was looked at.
    beats: usize,
}

impl Steady {
    /// It runs in the same process, has not booted again, and says more than before, with no question to the other guest lost.
    async fn beats_on(&mut self, cloud: &RealCloud) -> anyhow::Result<()> {
        ensure!(cloud.guest_pid(&self.id)? == self.pid, "{}: another process", self.name);
        let (beats, wanted) = until(&format!("{} to say that it lives", self.name), BOOT, || async {
            let beats = beats(&cloud.log(self.name).await?);
            // Two more: the first may have begun before.
            Ok(if beats.len() >= self.beats + 2 { Ok((beats, self.beats)) } else { Err(format!("{beats:?}")) })
        })
        .await?;
        ensure!(beats.windows(2).all(|w| w[0].0 < w[1].0), "{} booted again: {beats:?}", self.name);
        if self.beats > 0 {
            let lost = beats[wanted..].iter().filter(|(_, answered)| !answered).count();
            ensure!(lost == 0, "{} lost {lost} answers: {:?}", self.name, &beats[wanted..]);
        }
        self.beats = beats.len();
        Ok(())
    }

    /// What it said before the other one was there does not count.
    async fn forget_losses(&mut self, cloud: &RealCloud) -> anyhow::Result<()> {
        self.beats = until(&format!("{} to be answered", self.name), BOOT, || async {
            let beats = beats(&cloud.log(self.name).await?);
            Ok(match beats.last() {
                Some((_, true)) => Ok(beats.len()),
                _ => Err(format!("{beats:?}")),
            })
        })
        .await?;
        Ok(())
    }
}

/// Uptime and answer of each line that a steady guest has written.
fn beats(log: &str) -> Vec<(u64, bool)> {
    let beat = |line: &str| {
        // The first one may stand behind the login prompt.
        let (_, beat) = line.rsplit_once("alive ")?;
        let (uptime, answer) = beat.trim().split_once(' ')?;
        Some((uptime.parse().ok()?, answer == "ok"))
    };
    // The last line may be half written.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().filter_map(beat).collect()
}

type Wishes = Vec<(String, Wish)>;

/// What is asked for in a round, `live` being what there is: name, and whether it runs.
fn wishes(random: &mut StdRng, round: u32, live: &BTreeMap<String, bool>) -> Wishes {
    let mut wishes = Wishes::new();
    for (name, runs) in live {
        let some = if live.len() + 2 > MOST { &[Some(Wish::Delete)][..] } else { &[Some(Wish::Delete), None] };
        let other = if *runs { Wish::Stop } else { Wish::Start };
        let choice = if random.random_bool(0.4) { Some(other) } else { some.choose(random).copied().flatten() };
        wishes.extend(choice.map(|wish| (name.clone(), wish)));
    }
    let room = MOST.saturating_sub(live.len()).min(2);
    wishes.extend((0..room).map(|number| (format!("i-{round}-{number}"), Wish::Launch)));
    wishes
}

/// Who is killed when, and how long it is away.
type Kills = Vec<(Duration, Victim, Duration)>;

fn kills(random: &mut StdRng) -> Kills {
    let longest = u64::try_from(STORM.as_millis()).unwrap_or(u64::MAX);
    let kill = |random: &mut StdRng| {
        let at = Duration::from_millis(random.random_range(0..longest));
        let away = Duration::from_millis(random.random_range(0..500));
        (at, *VICTIMS.choose(random).unwrap_or(&Victim::Gateway), away)
    };
    let mut kills: Kills = (0..random.random_range(1..=4)).map(|_| kill(random)).collect();
    kills.sort_by_key(|kill| kill.0);
    kills
}

/// Wishes and kills at the same time. Every daemon runs again afterwards.
async fn breaks(cloud: &mut RealCloud, wishes: &Wishes, kills: &Kills) -> anyhow::Result<Vec<(String, Wish, Outcome)>> {
    let mut asking = JoinSet::new();
    for (name, wish) in wishes.clone() {
        let rest = cloud.rest.clone();
        asking.spawn(async move {
            let outcome = ask(&rest, &name, wish).await;
            anyhow::Ok((name, wish, outcome?))
        });
    }
    let begun = tokio::time::Instant::now();
    for (at, victim, away) in kills {
        tokio::time::sleep_until(begun + *at).await;
        match victim {
            Victim::Gateway => cloud.gateway.kill(),
            Victim::Agent(role) => cloud.kill_agent(*role),
        }
        tokio::time::sleep(*away).await;
        match victim {
            Victim::Gateway => cloud.gateway.spawn()?,
            Victim::Agent(role) => cloud.start_agent(*role)?,
        }
    }
    cloud.gateway.ready().await?;
    let mut outcomes = Vec::new();
    while let Some(outcome) = asking.join_next().await {
        outcomes.push(outcome??);
    }
    Ok(outcomes)
}

async fn ask(rest: &RestClient, name: &str, wish: Wish) -> anyhow::Result<Outcome> {
    let path = format!("/instances/{name}");
    let answer = match wish {
        Wish::Launch => rest.post("/instances", &json!({"name": name, "image": IMAGE, "instance_type": "tiny"})).await,
        Wish::Stop => rest.post(&format!("{path}/stop"), &json!({})).await,
        Wish::Start => rest.post(&format!("{path}/start"), &json!({})).await,
        Wish::Delete => rest.send(Http::DELETE, &path, None, "").await,
    };
    // No answer: the gateway was killed, or does not run yet.
    let Ok(answer) = answer else { return Ok(Outcome::Unknown) };
    match answer.status.as_u16() {
        200 | 201 => Ok(Outcome::Accepted),
        // It was accepted, and takes longer than the call waits.
        504 => Ok(Outcome::Accepted),
        // No host is UP at this moment, or the gateway ends.
        503 | 429 | 400 | 409 => Ok(Outcome::Refused),
        _ => bail!("{wish:?} {name}: {} {}", answer.status, answer.text()),
    }
}

/// Waits until database and host agree with each other and with what was accepted; `live` becomes what there is.
async fn settles(
    cloud: &RealCloud,
    live: &mut BTreeMap<String, bool>,
    outcomes: &[(String, Wish, Outcome)],
) -> anyhow::Result<()> {
    let instances = until("database and host to agree", PATIENCE, || async {
        let listed = cloud.rest.get("/instances?page_size=500").await?.expect(200)?;
        let instances = listed["instances"].as_array().cloned().unwrap_or_default();
        let volumes = cloud.rest.get("/volumes?page_size=500").await?.expect(200)?;
        let volumes = inner(&[volumes], "volumes", "id");
        Ok(match difference(cloud, &instances, volumes)? {
            None => Ok(instances),
            Some(difference) => Err(difference),
        })
    })
    .await?;
    let is: BTreeMap<String, bool> = instances
        .iter()
        .map(|i| (text(i, "name"), i["status"] == "RUNNING"))
        .filter(|(name, _)| !STEADY.contains(&name.as_str()))
        .collect();
    for (name, wish, outcome) in outcomes {
        let (now, before) = (is.get(name).copied(), live.get(name).copied());
        let wished = match wish {
            Wish::Launch | Wish::Start => Some(true),
            Wish::Stop => Some(false),
            Wish::Delete => None,
        };
        let right = match outcome {
            Outcome::Accepted => now == wished,
            Outcome::Refused => now == before,
            Outcome::Unknown => now == wished || now == before,
        };
        ensure!(right, "{name}: {wish:?} was {outcome:?}; runs: {before:?} before, {now:?} now");
    }
    let untouched = live.iter().filter(|(name, _)| !outcomes.iter().any(|(of, ..)| of == *name));
    for (name, runs) in untouched {
        ensure!(is.get(name) == Some(runs), "{name}, which nobody touched, ran: {runs}, runs: {:?}", is.get(name));
    }
    let known = |name: &String| live.contains_key(name) || outcomes.iter().any(|(of, ..)| of == name);
    ensure!(is.keys().all(known), "there are instances that nobody asked for: {is:?}");
    *live = is;
    Ok(())
}

/// What is not as it shall be: in the database, or on the host.
fn difference(cloud: &RealCloud, instances: &[Value], volumes: BTreeSet<String>) -> anyhow::Result<Option<String>> {
    for instance in instances {
        ensure!(instance["status"] != "ERROR", "{instance}");
        if instance["status"] != instance["desired_status"] {
            return Ok(Some(format!("{} shall be {}", instance["status"], instance["desired_status"])));
        }
    }
    let running: Vec<Value> = instances.iter().filter(|i| i["status"] == "RUNNING").cloned().collect();
    let on_host = cloud.on_host()?;
    let listed = virsh(&["list", "--name"])?;
    let all_domains: BTreeSet<String> = on_host.domains.into_iter().collect();
    let running_domains = all_domains.iter().filter(|name| listed.lines().any(|l| l == *name)).cloned().collect();
    let disks = on_host.disks.iter().map(|d| d.split('.').next().unwrap_or_default().to_owned()).collect();
    // What a stopped instance has depends on whether it ever ran; a running one has all.
    let sides = [
        ("running guests", running_domains, domains(&running), domains(&running)),
        ("domains", all_domains, domains(&running), domains(instances)),
        ("disks", disks, inner(&running, "volumes", "id"), inner(instances, "volumes", "id")),
        ("ports", cloud.ports_on_host()?, inner(&running, "ports", "id"), inner(instances, "ports", "id")),
        ("flows", cloud.guest_macs_in_flows()?, inner(&running, "ports", "mac"), inner(instances, "ports", "mac")),
        ("volumes in the database", volumes, inner(instances, "volumes", "id"), inner(instances, "volumes", "id")),
    ];
    let wrong = sides.into_iter().find(|(_, is, least, most)| !least.is_subset(is) || !is.is_subset(most));
    Ok(wrong.map(|(what, is, least, most)| {
        let (missing, extra) = (&least - &is, &is - &most);
        format!("{what}: missing {missing:?}, extra {extra:?}")
    }))
}

fn domains(instances: &[Value]) -> BTreeSet<String> {
    instances.iter().map(|i| format!("cloud-{}", text(i, "id"))).collect()
}

/// A field of each element of a list within each instance.
fn inner(instances: &[Value], list: &str, field: &str) -> BTreeSet<String> {
    let lists = instances.iter().filter_map(|i| i[list].as_array());
    lists.flatten().map(|element| text(element, field)).collect()
}

/// No daemon panicked in any of its runs.
fn no_bugs(cloud: &RealCloud) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(cloud.dir())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            let bugs = chaos::bugs(&String::from_utf8_lossy(&std::fs::read(&path)?));
            ensure!(bugs.is_empty(), "{}: {bugs:?}", path.display());
        }
    }
    Ok(())
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
