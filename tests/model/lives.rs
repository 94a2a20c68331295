//! The lives of resources, as far as a history tells: when each was there for certain, and when it may have been.
//!
//! A resource is there from some moment between the call that made it and the first answer that showed it, until some moment between the
//! first call that may have deleted it and the first answer that showed it deleted. What is there at two moments is there between them: an id
//! never comes back.

use std::collections::BTreeMap;

use crate::history::{Call, Key, Kind, Moment, NEVER, Outcome, Record, Seen};

/// From the first moment until the second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub from: Moment,
    pub to: Moment,
}

impl Interval {
    pub fn meets(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    pub fn covers(self, other: Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

/// One answer that showed a resource.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'h> {
    pub during: Interval,
    pub seen: &'h Seen,
}

/// What is known of one id.
#[derive(Debug)]
pub struct Life<'h> {
    pub key: &'h Key,
    pub id: &'h str,
    /// In the order in which they were answered.
    pub sights: Vec<Sight<'h>>,
    pub certain: Interval,
    pub possible: Interval,
}

impl<'h> Life<'h> {
    /// When it certainly held its claims: an instance in ERROR may have given them back.
    pub fn holds(&self) -> Interval {
        let is_error = |s: &&Sight<'_>| s.seen.status == "ERROR";
        let Some(first) = self.sights.iter().filter(is_error).map(|s| s.during.to).min() else { return self.certain };
        let before = self.sights.iter().filter(|s| !s.seen.dead && s.seen.status != "ERROR" && s.during.from < first);
        let to = before.map(|s| s.during.from).max().unwrap_or(self.certain.from);
        Interval { from: self.certain.from, to: to.min(self.certain.to) }
    }

    /// The number of the call that made it.
    pub fn made_by(&self) -> Option<u32> {
        self.last().made_by
    }

    pub fn last(&self) -> &'h Seen {
        // There is no life that was never seen.
        self.sights[self.sights.len() - 1].seen
    }
}

pub fn during(record: &Record) -> Interval {
    Interval { from: record.begun, to: record.ended }
}

/// Every life that any answer showed.
pub fn lives(history: &[Record]) -> Vec<Life<'_>> {
    let makers: BTreeMap<u32, &Record> =
        history.iter().filter(|r| r.call.makes().is_some()).map(|r| (r.op, r)).collect();
    let deletes: Vec<&Record> = history.iter().filter(|r| matches!(r.call, Call::Delete(_))).collect();
    let mut sights: BTreeMap<&str, Vec<Sight<'_>>> = BTreeMap::new();
    for record in history {
        for seen in record.seen() {
            sights.entry(&seen.id).or_default().push(Sight { during: during(record), seen });
        }
    }
    sights.into_iter().map(|(id, sights)| life(id, sights, &makers, &deletes)).collect()
}

fn life<'h>(
    id: &'h str,
    mut sights: Vec<Sight<'h>>,
    makers: &BTreeMap<u32, &'h Record>,
    deletes: &[&Record],
) -> Life<'h> {
    sights.sort_by_key(|s| s.during.to);
    let key = &sights[0].seen.key;
    let made_by = sights[0].seen.made_by.and_then(|op| makers.get(&op).copied());
    let dead = sights.iter().filter(|s| s.seen.dead).map(|s| s.during.to).min();
    let alive = sights.iter().filter(|s| !s.seen.dead).map(|s| s.during.from).max();
    // What was answered before this was asked for was about something else.
    let after = |d: &&&Record| d.is_unknown() || made_by.is_none_or(|made| d.ended >= made.begun);
    let deleted = deletes.iter().filter(after).filter(|d| may_delete(d, key, id)).map(|d| d.begun).min();
    // Seen dead although nobody deleted it: it is another check that says so.
    let until = deleted.or(dead).unwrap_or(NEVER);
    Life {
        key,
        id,
        certain: Interval { from: sights[0].during.to, to: alive.map_or(until, |seen| until.max(seen)) },
        possible: Interval { from: made_by.map_or(Moment::ZERO, |r| r.begun), to: dead.unwrap_or(NEVER) },
        sights,
    }
}

/// Whether a call may have taken a volume from an instance; a volume whose name is not known may be any.
pub fn may_detach(detach: &Record, instance: &Life<'_>, volume: Option<&str>) -> bool {
    let Call::Detach(target, name) = &detach.call else { return false };
    let from_it = match &detach.outcome {
        Outcome::Refused { .. } => false,
        Outcome::Done(seen) => seen.iter().any(|s| s.id == instance.id),
        Outcome::Unknown { .. } => target.id.as_ref().map_or(target.key == *instance.key, |id| id == instance.id),
    };
    from_it && volume.is_none_or(|volume| volume == name)
}

/// Whether a call may have deleted this.
pub fn may_delete(delete: &Record, key: &Key, id: &str) -> bool {
    let Call::Delete(target) = &delete.call else { return false };
    let with_its_vpc = key.kind == Kind::Subnet && target.key.kind == Kind::Vpc && target.key.name == key.scope;
    match &delete.outcome {
        Outcome::Refused { .. } => false,
        Outcome::Done(seen) => with_its_vpc || seen.iter().any(|s| s.id == id),
        Outcome::Unknown { .. } => with_its_vpc || target.id.as_ref().map_or(target.key == *key, |target| target == id),
    }
}
