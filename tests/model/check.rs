//! The checker: what a history may not contain.
//!
//! Names, addresses, volumes and capacity are claims: whoever was answered has them, from then until it may have given them back. So no solver
//! is needed to find out whether the answers have an order that explains them: two certain claims of one thing may not overlap, an answer
//! "taken" needs somebody who may have had it, and an answer "there is none" nobody who certainly did.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Code;

use crate::{
    history::{Call, Key, Kind, Moment, NEVER, Outcome, Record, Seen},
    lives::{Interval, Life, during, lives, may_delete, may_detach},
};

/// What there may be at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Promised by a host.
    pub vcpus: u64,
    pub memory_mib: u64,
    /// Of the project, its default VPC not counted.
    pub instances: usize,
    pub vpcs: usize,
}

/// Everything that is wrong with a history. Its last record is a list, after all is settled, of what there is and was.
pub fn check(history: &[Record], limits: Limits) -> Vec<String> {
    let lives = lives(history);
    let disks = disks(history, &lives);
    let mut wrong = Vec::new();
    returns(&lives, &mut wrong);
    versions(&lives, &mut wrong);
    exclusive(&lives, &disks, &mut wrong);
    capacity(&lives, limits, &mut wrong);
    quota(&lives, Kind::Instance, limits.instances, &mut wrong);
    quota(&lives, Kind::Vpc, limits.vpcs, &mut wrong);
    foundations(&lives, &disks, &mut wrong);
    once(history, &lives, &mut wrong);
    if let Some(end) = history.last() {
        kept(end, history, &lives, &mut wrong);
    }
    orders(history, &lives, &mut wrong);
    for record in history {
        answer(record, &lives, &mut wrong);
    }
    wrong
}

/// What was deleted stays deleted, and only what somebody deletes is.
fn returns(lives: &[Life<'_>], wrong: &mut Vec<String>) {
    for life in lives {
        let alive = life.sights.iter().filter(|s| !s.seen.dead).map(|s| s.during.from).max();
        if alive.is_some_and(|alive| alive > life.possible.to) {
            wrong.push(format!("{} ({}) was seen alive after it was seen deleted", life.key, life.id));
        }
    }
}

/// Who reads after another has read, or written, sees nothing older.
fn versions(lives: &[Life<'_>], wrong: &mut Vec<String>) {
    for life in lives {
        let mut begun: Vec<_> = life.sights.iter().collect();
        begun.sort_by_key(|s| s.during.from);
        let (mut ended, mut newest) = (life.sights.iter().peekable(), 0);
        for sight in begun {
            while let Some(before) = ended.next_if(|s| s.during.to < sight.during.from) {
                newest = newest.max(before.seen.version);
            }
            if sight.seen.version < newest {
                wrong.push(format!(
                    "{} ({}) was read at version {} after version {newest} was answered",
                    life.key, life.id, sight.seen.version
                ));
            }
        }
    }
}

/// A volume that an instance certainly had for a while.
struct Disk<'l, 'h> {
    volume: &'h str,
    had: Interval,
    instance: &'l Life<'h>,
}

/// Who had which volume: from the first answer that shows it with an instance until a call begins that may have taken it away. That an instance
/// is given one anew is not looked at.
fn disks<'l, 'h>(history: &[Record], lives: &'l [Life<'h>]) -> Vec<Disk<'l, 'h>> {
    let volumes = lives.iter().filter(|l| l.key.kind == Kind::Volume);
    let names: BTreeMap<&str, &str> = volumes.map(|l| (l.id, l.key.name.as_str())).collect();
    let mut disks = Vec::new();
    for instance in lives {
        let mut first: BTreeMap<&str, Moment> = BTreeMap::new();
        for sight in &instance.sights {
            for volume in sight.seen.claims.iter().flat_map(|claims| &claims.volumes) {
                first.entry(volume).or_insert(sight.during.to);
            }
        }
        let holds = instance.holds();
        for (volume, from) in first {
            let taken = history.iter().filter(|r| may_detach(r, instance, names.get(volume).copied())).map(|r| r.begun);
            let had = Interval { from: from.max(holds.from), to: holds.to.min(taken.min().unwrap_or(NEVER)) };
            if had.from < had.to {
                disks.push(Disk { volume, had, instance });
            }
        }
    }
    disks
}

/// Names, addresses and volumes have one owner at a time.
fn exclusive(lives: &[Life<'_>], disks: &[Disk<'_, '_>], wrong: &mut Vec<String>) {
    let mut owners: BTreeMap<String, Vec<(Interval, &Life<'_>)>> = BTreeMap::new();
    for life in lives {
        owners.entry(life.key.to_string()).or_default().push((life.certain, life));
        let Some(claims) = &life.sights[0].seen.claims else { continue };
        let address = format!("address {} of `{}/{}`", claims.ip, claims.vpc, claims.subnet);
        owners.entry(address).or_default().push((life.holds(), life));
    }
    for Disk { volume, had, instance } in disks {
        owners.entry(format!("volume {volume}")).or_default().push((*had, instance));
    }
    for (claim, mut owners) in owners {
        owners.retain(|(holds, _)| holds.from < holds.to);
        owners.sort_by_key(|(holds, _)| holds.from);
        for pair in owners.windows(2) {
            let ((one, first), (two, second)) = (pair[0], pair[1]);
            if two.from < one.to {
                wrong.push(format!("{claim} was owned by {} and by {} at {:?}", first.id, second.id, two.from));
            }
        }
    }
}

/// No host promises more than it has.
fn capacity(lives: &[Life<'_>], limits: Limits, wrong: &mut Vec<String>) {
    let mut changes: BTreeMap<&str, Vec<(Moment, bool, u64, u64)>> = BTreeMap::new();
    for life in lives {
        let holds = life.holds();
        if let Some(claims) = life.sights[0].seen.claims.as_ref().filter(|_| holds.from < holds.to) {
            let of_host = changes.entry(&claims.host).or_default();
            of_host.push((holds.from, true, claims.vcpus, claims.memory_mib));
            of_host.push((holds.to, false, claims.vcpus, claims.memory_mib));
        }
    }
    for (host, mut changes) in changes {
        // What is given back at a moment is free at that moment.
        changes.sort_unstable();
        let (mut vcpus, mut memory) = (0, 0);
        for (at, takes, v, m) in changes {
            (vcpus, memory) = if takes { (vcpus + v, memory + m) } else { (vcpus - v, memory - m) };
            if vcpus > limits.vcpus || memory > limits.memory_mib {
                wrong.push(format!("host {host} has promised {vcpus} vCPUs and {memory} MiB at {at:?}"));
                break;
            }
        }
    }
}

/// There are no more of a kind than the project's quota allows.
fn quota(lives: &[Life<'_>], kind: Kind, limit: usize, wrong: &mut Vec<String>) {
    let there = lives.iter().filter(|l| l.key.kind == kind && l.made_by().is_some() && l.certain.from < l.certain.to);
    let mut changes: Vec<(Moment, bool)> =
        there.flat_map(|l| [(l.certain.from, true), (l.certain.to, false)]).collect();
    // What ends at a moment has ended at that moment.
    changes.sort_unstable();
    let mut count = 0;
    for (at, comes) in changes {
        count = if comes { count + 1 } else { count - 1 };
        if count > limit {
            wrong.push(format!("there were {count} of the {kind}s at {at:?}, {limit} are allowed"));
            return;
        }
    }
}

/// What an instance stands on (its VPC, its subnet, its volumes) is there as long as the instance is.
fn foundations(lives: &[Life<'_>], disks: &[Disk<'_, '_>], wrong: &mut Vec<String>) {
    let by_id: BTreeMap<&str, &Life<'_>> = lives.iter().map(|l| (l.id, l)).collect();
    let mut by_key: BTreeMap<&Key, Vec<&Life<'_>>> = BTreeMap::new();
    lives.iter().for_each(|l| by_key.entry(l.key).or_default().push(l));
    for Disk { volume, had, instance } in disks {
        if let Some(volume) = by_id.get(volume).filter(|volume| volume.possible.to < had.to) {
            wrong.push(format!("{} ({}) was deleted under {}", volume.key, volume.id, instance.key));
        }
    }
    for life in lives {
        let (Some(claims), holds) = (&life.sights[0].seen.claims, life.holds()) else { continue };
        let (vpc, subnet) = (Key::new(Kind::Vpc, &claims.vpc), Key::subnet(&claims.vpc, &claims.subnet));
        for key in [vpc, subnet] {
            // A VPC's first subnet comes and goes with it.
            let Some(lives) = by_key.get(&key).filter(|_| key.name != "default") else { continue };
            if holds.from < holds.to && !lives.iter().any(|l| l.possible.covers(holds)) {
                wrong.push(format!("{key} was deleted under {} ({})", life.key, life.id));
            }
        }
    }
}

/// A call that makes something makes it once, and not at all where it was refused.
fn once(history: &[Record], lives: &[Life<'_>], wrong: &mut Vec<String>) {
    let mut made: BTreeMap<u32, Vec<&Life<'_>>> = BTreeMap::new();
    for life in lives {
        if let Some(op) = life.made_by() {
            made.entry(op).or_default().push(life);
        }
    }
    for record in history.iter().filter(|r| r.call.makes().is_some()) {
        let made = made.get(&record.op).map(Vec::as_slice).unwrap_or_default();
        if made.len() > 1 {
            let ids: Vec<_> = made.iter().map(|l| l.id).collect();
            wrong.push(format!("call {} made {} things: {ids:?}", record.op, made.len()));
        }
        if let (Outcome::Refused { code, .. }, Some(made)) = (&record.outcome, made.first()) {
            wrong.push(format!("call {} was refused with {code:?} and made {} ({})", record.op, made.key, made.id));
        }
        if let (Outcome::Done(_), Some(key), Some(made)) = (&record.outcome, record.call.makes(), made.first())
            && *made.key != key
        {
            wrong.push(format!("call {} was to make {key} and made {}", record.op, made.key));
        }
    }
}

/// What was made is there at the end, or was deleted.
fn kept(end: &Record, history: &[Record], lives: &[Life<'_>], wrong: &mut Vec<String>) {
    let there: BTreeSet<&str> = end.seen().iter().map(|s| s.id.as_str()).collect();
    for life in lives.iter().filter(|l| !there.contains(l.id)) {
        // Deleted subnets are not listed.
        if life.key.kind != Kind::Subnet || !history.iter().any(|r| may_delete(r, life.key, life.id)) {
            wrong.push(format!("{} ({}) was made and is gone without a trace", life.key, life.id));
        }
    }
    for seen in end.seen().iter().filter(|s| s.dead) {
        if !history.iter().any(|r| may_delete(r, &seen.key, &seen.id)) {
            wrong.push(format!("{} ({}) is deleted and nobody asked for it", seen.key, seen.id));
        }
    }
}

/// The last order of an instance is what has come of it.
fn orders(history: &[Record], lives: &[Life<'_>], wrong: &mut Vec<String>) {
    for life in lives.iter().filter(|l| l.key.kind == Kind::Instance) {
        let is_for = |record: &&Record| match (&record.outcome, record.call.target()) {
            (Outcome::Done(seen), _) => seen.iter().any(|s| s.id == life.id),
            (Outcome::Unknown { .. }, Some(t)) => t.id.as_ref().map_or(t.key == *life.key, |id| id == life.id),
            _ => false,
        };
        let orders: Vec<_> = history.iter().filter(|r| r.call.is_order()).filter(is_for).collect();
        let is_last = |last: &&&Record| orders.iter().all(|r| r.op == last.op || r.ended < last.begun);
        let deleted = orders.iter().find(|r| matches!(r.call, Call::Delete(_)) && !r.is_unknown());
        let last = if orders.iter().any(|r| r.is_unknown()) { None } else { orders.iter().find(is_last) };
        let wanted = match deleted.or(last).map(|r| &r.call) {
            Some(Call::Launch { .. } | Call::Start(_)) => "RUNNING",
            Some(Call::Stop(_)) => "STOPPED",
            Some(Call::Delete(_)) => "DELETED",
            _ => continue,
        };
        let is = &life.last().status;
        if is != wanted {
            wrong.push(format!("{} ({}) was to be {wanted} at last and is {is}", life.key, life.id));
        }
    }
}

/// Whether an answer can be explained by what there certainly was, or may have been, while it was given.
fn answer(record: &Record, lives: &[Life<'_>], wrong: &mut Vec<String>) {
    let (at, op) = (during(record), record.op);
    let of = |key: &Key| lives.iter().filter(|l| l.key == key).collect::<Vec<_>>();
    let throughout = |key: &Key| of(key).into_iter().find(|l| l.certain.covers(at));
    match (&record.outcome, &record.call) {
        (Outcome::Refused { code: Code::AlreadyExists, .. }, call) => {
            if let Some(key) = call.makes()
                && !of(&key).iter().any(|l| l.possible.meets(at))
            {
                wrong.push(format!("call {op}: {key} was said to exist while nothing had that name"));
            }
        }
        (Outcome::Refused { code: Code::NotFound, resource, .. }, call) => {
            if let Some(known) = missed(call, resource, at, lives) {
                wrong.push(format!("call {op}: {known} was not found although it was there all the time"));
            }
            let named = named(call, resource);
            if !named.is_empty() && named.iter().all(|key| throughout(key).is_some()) {
                wrong.push(format!("call {op}: no {resource} was found, and {} were there all the time", named.len()));
            }
        }
        (Outcome::Done(seen), Call::List(kind)) => listed(op, *kind, seen, at, lives, wrong),
        (Outcome::Done(seen), call) => {
            let target = call.target();
            for (seen, target) in seen.iter().zip(target) {
                if seen.key != target.key || target.id.as_ref().is_some_and(|id| *id != seen.id) {
                    wrong.push(format!(
                        "call {op} was about {} and answered with {} ({})",
                        target.key, seen.key, seen.id
                    ));
                }
            }
            if matches!(call, Call::Stop(_)) && seen.iter().any(|s| s.status != "STOPPED") {
                wrong.push(format!("call {op}: a stop was answered and the instance was not STOPPED"));
            }
        }
        (Outcome::Unknown { code: Code::Internal, message }, _) if message.contains("internal error") => {
            wrong.push(format!("call {op} was answered with INTERNAL: {message}"));
        }
        _ => {}
    }
}

/// What a call named and was said not to exist, and did.
fn missed(call: &Call, resource: &str, at: Interval, lives: &[Life<'_>]) -> Option<String> {
    let target = call.target().filter(|t| word(t.key.kind) == resource)?;
    let life = match &target.id {
        // A deleted one is still found by its id, and cannot be changed.
        Some(id) if matches!(call, Call::Get(_)) => lives.iter().find(|l| l.id == id && l.certain.from <= at.from),
        Some(id) => lives.iter().find(|l| l.id == id && l.certain.covers(at)),
        None => lives.iter().find(|l| *l.key == target.key && l.certain.covers(at)),
    };
    life.map(|l| format!("{} ({})", l.key, l.id))
}

/// What else a call names of a kind, beside its target.
fn named(call: &Call, resource: &str) -> Vec<Key> {
    match (call, resource) {
        (Call::Launch { vpc, .. }, "vpc") => vec![Key::new(Kind::Vpc, vpc)],
        (Call::Launch { vpc, subnet, .. }, "subnet") => vec![Key::subnet(vpc, subnet)],
        (Call::Launch { volumes, .. }, "volume") => volumes.iter().map(|v| Key::new(Kind::Volume, v)).collect(),
        (Call::Attach(_, volume) | Call::Detach(_, volume), "volume") => vec![Key::new(Kind::Volume, volume)],
        (Call::Create(key), "vpc") => vec![Key::new(Kind::Vpc, &key.scope)],
        (Call::Delete(target), "vpc") if target.key.kind == Kind::Subnet => {
            vec![Key::new(Kind::Vpc, &target.key.scope)]
        }
        _ => Vec::new(),
    }
}

fn listed(op: u32, kind: Kind, seen: &[Seen], at: Interval, lives: &[Life<'_>], wrong: &mut Vec<String>) {
    let mut ids = BTreeSet::new();
    for twice in seen.iter().filter(|s| !ids.insert(s.id.as_str())) {
        wrong.push(format!("list {op} has {} ({}) twice", twice.key, twice.id));
    }
    for life in lives.iter().filter(|l| l.key.kind == kind && l.certain.covers(at)) {
        if !ids.contains(life.id) {
            wrong.push(format!("list {op} lacks {} ({}), which was there all the time", life.key, life.id));
        }
    }
}

/// The API's word for a kind.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Instance => "instance",
        Kind::Volume => "volume",
        Kind::Vpc => "vpc",
        Kind::Subnet => "subnet",
    }
}
