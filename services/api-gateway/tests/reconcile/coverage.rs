//! Every commit and every call of every reconciler fails before it is made, fails after it, is the last thing its gateway did before it was
//! killed, and the last thing that it began. After each, intended equals actual and nothing is left; and what was tried is all there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;

use super::{host::Fault, lives::Life};

/// Lives at the same time.
const AT_ONCE: usize = 6;
/// Lives that a strike has to be met in.
const LIVES: usize = 5;
/// How long they may take.
const LIFETIME: Duration = Duration::from_secs(300);

/// Every `.commit()` of the reconcilers' source, such as `volume.rs:24`.
fn commits_in_source() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("core/src/reconcile");
    let (mut found, mut dirs) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(dir) = dirs.pop() {
        let entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        for path in entries {
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
                if line.contains(".commit()") {
                    found.insert(format!("{name}:{}", number + 1));
                }
            }
        }
    }
    assert!(found.len() > 5, "the source was not found");
    found
}

/// Every call that a host takes, as the fake one names them.
fn calls_in_source() -> BTreeSet<String> {
    let source = include_str!("backends.rs");
    let named = source.split("self.call(\"").skip(1).filter_map(|rest| rest.split('"').next());
    named.map(str::to_owned).collect()
}

/// Something that goes wrong once in a life.
#[derive(Debug, Clone)]
enum Strike {
    /// At a commit of those made in a place.
    Commit(String, usize, Fault),
    /// At the first call of a name.
    Call(&'static str, Fault),
}

/// What a life without faults has that was in none before, struck in each way.
async fn strikes(life: Life, seen: &mut BTreeSet<String>) -> Vec<Strike> {
    let mut cloud = life.cloud().await;
    life.live(&mut cloud).await;
    let state = cloud.host.state();
    let mut strikes = Vec::new();
    let mut made: BTreeMap<&String, usize> = BTreeMap::new();
    state.commits.iter().for_each(|place| *made.entry(place).or_default() += 1);
    for (place, times) in made {
        if !seen.insert(place.clone()) {
            continue;
        }
        // The first and the last one of each place: those between are like them.
        let which: BTreeSet<usize> = [0, times - 1].into();
        for nth in which {
            strikes.extend(Fault::ALL.map(|fault| Strike::Commit(place.clone(), nth, fault)));
        }
    }
    // The calls of an instance's own life are struck elsewhere, each of them.
    for name in &state.calls {
        if seen.insert((*name).to_owned()) {
            strikes.extend(Fault::ALL.map(|fault| Strike::Call(name, fault)));
        }
    }
    strikes
}

/// A life with one strike. Says whether it struck.
async fn struck(life: Life, strike: &Strike) -> bool {
    let mut cloud = life.cloud().await;
    match strike.clone() {
        Strike::Commit(place, nth, fault) => cloud.host.state().commit_fault = Some((place, nth, fault)),
        Strike::Call(name, fault) => cloud.host.state().call_fault = Some((name, fault)),
    }
    life.live(&mut cloud).await;
    let state = cloud.host.state();
    state.commit_fault.is_none() && state.call_fault.is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_commit_and_every_call_of_every_reconciler_may_go_wrong() {
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    for life in Life::ALL {
        if life == Life::Limits {
            // Limits are given by the calls and commits that attach: they are struck once more.
            seen.retain(|what: &String| !what.starts_with("instance/disks.rs") && *what != "compute.attach_disk");
        }
        all.extend(strikes(life, &mut seen).await.into_iter().map(|strike| (life, strike)));
    }
    println!("{} strikes", all.len());
    let lives = all.into_iter().map(|(life, strike)| async move {
        let told = format!("{life:?} {strike:?}");
        // Lives differ a little in what they do: where one does not come by, another is tried.
        let lives = async move {
            for _ in 0..LIVES {
                if struck(life, &strike).await {
                    return Some(strike);
                }
            }
            None
        };
        let lived = tokio::time::timeout(LIFETIME, tokio::spawn(lives)).await;
        lived.unwrap_or_else(|_| panic!("{told}: it never ended")).unwrap_or_else(|error| panic!("{told}: {error}"))
    });
    let struck: Vec<Strike> =
        futures::stream::iter(lives).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    let mut tried: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for strike in &struck {
        let (what, fault) = match strike {
            Strike::Commit(place, _, fault) => (format!("commit {place}"), fault),
            Strike::Call(name, fault) => (format!("call {name}"), fault),
        };
        tried.entry(what).or_default().insert(format!("{fault:?}"));
    }
    for (what, faults) in &tried {
        println!("{what}: {faults:?}");
    }
    let commits = commits_in_source().into_iter().map(|place| format!("commit {place}"));
    let kinds = ["instance", "volume", "snapshot", "image", "vpc", "host", "orphan"]
        .map(|kind| format!("commit work: finish {kind}"));
    let calls = calls_in_source().into_iter().map(|name| format!("call {name}"));
    let wanted = commits.chain(kinds).chain(calls).chain(["commit work: claim".to_owned()]);
    let lacks = |what: &String| tried.get(what).is_none_or(|faults| faults.len() < Fault::ALL.len());
    let missing: Vec<String> = wanted.filter(lacks).collect();
    assert!(missing.is_empty(), "not tried in every way: {missing:?}");
}
