//! The checker, checked: a history that is right, and histories that are wrong in one way each.

use std::time::Duration;

use tonic::Code;

use crate::{
    check::{Limits, check},
    history::{Call, Claims, Key, Kind, Outcome, Record, Seen, Target},
};

const LIMITS: Limits = Limits { vcpus: 8, memory_mib: 256, instances: 3, vpcs: 1 };

/// A history in the making. Times are in milliseconds.
#[derive(Default)]
struct Story(Vec<Record>);

impl Story {
    fn call(mut self, begun: u64, ended: u64, call: Call, outcome: Outcome) -> Self {
        let op = u32::try_from(self.0.len()).unwrap() + 1;
        let (begun, ended) = (Duration::from_millis(begun), Duration::from_millis(ended));
        self.0.push(Record { op, begun, ended, call, outcome });
        self
    }

    /// A launch or creation that was answered with this.
    fn makes(self, begun: u64, ended: u64, seen: &Seen) -> Self {
        self.call(begun, ended, making(seen), Outcome::Done(vec![seen.clone()]))
    }

    fn gets(self, begun: u64, ended: u64, seen: &Seen) -> Self {
        self.call(begun, ended, Call::Get(by_id(seen)), Outcome::Done(vec![seen.clone()]))
    }

    fn deletes(self, begun: u64, ended: u64, seen: &Seen) -> Self {
        let deleting = Seen { status: "DELETING".into(), version: seen.version + 1, ..seen.clone() };
        self.call(begun, ended, Call::Delete(by_id(seen)), Outcome::Done(vec![deleting]))
    }

    /// What there is, and was, at the end.
    fn ends(self, all: &[&Seen]) -> Vec<Record> {
        let all = all.iter().map(|s| (*s).clone()).collect();
        self.call(10_000, 10_010, Call::List(Kind::Instance), Outcome::Done(all)).0
    }
}

fn making(seen: &Seen) -> Call {
    match seen.key.kind {
        Kind::Instance => {
            Call::Launch { name: seen.key.name.clone(), vpc: String::new(), subnet: String::new(), volumes: Vec::new() }
        }
        _ => Call::Create(seen.key.clone()),
    }
}

fn by_id(seen: &Seen) -> Target {
    Target { key: seen.key.clone(), id: Some(seen.id.clone()) }
}

fn by_name(seen: &Seen) -> Target {
    Target { key: seen.key.clone(), id: None }
}

fn refused(code: Code, resource: &str) -> Outcome {
    Outcome::Refused { code, resource: resource.into(), message: String::new() }
}

fn unknown() -> Outcome {
    Outcome::Unknown { code: Code::Unavailable, message: String::new() }
}

/// A running instance, made by call `op`, with claims of its own.
fn instance(name: &str, op: u32) -> Seen {
    let claims = Claims {
        host: "h1".into(),
        vcpus: 1,
        memory_mib: 128,
        vpc: "default".into(),
        subnet: "default".into(),
        ip: format!("10.0.0.{op}"),
        ports: vec![format!("port-{op}")],
        volumes: vec![format!("root-{op}")],
    };
    Seen {
        key: Key::new(Kind::Instance, name),
        id: format!("id-{op}"),
        made_by: Some(op),
        version: 1,
        status: "RUNNING".into(),
        reason: String::new(),
        dead: false,
        claims: Some(claims),
        host: "h1".into(),
    }
}

fn thing(kind: Kind, name: &str, op: u32) -> Seen {
    Seen { key: Key::new(kind, name), status: String::new(), claims: None, ..instance(name, op) }
}

fn dead(seen: &Seen) -> Seen {
    Seen { status: "DELETED".into(), dead: true, version: seen.version + 5, ..seen.clone() }
}

#[track_caller]
fn right(history: &[Record]) {
    assert_eq!(check(history, LIMITS), Vec::<String>::new());
}

#[track_caller]
fn wrong(history: &[Record], part: &str) {
    let found = check(history, LIMITS);
    assert!(found.iter().any(|w| w.contains(part)), "`{part}` is not said in {found:?}");
}

#[test]
fn a_life_and_another_under_the_same_name_are_right() {
    let (first, second) = (instance("web", 1), instance("web", 4));
    let story = Story::default().makes(0, 10, &first).gets(20, 30, &first).deletes(40, 50, &first);
    // Launched anew while the first one goes, and refused as long as it has not.
    let story = story.makes(60, 70, &second).call(45, 55, making(&first), refused(Code::AlreadyExists, "instance"));
    right(&story.ends(&[&dead(&first), &second]));
}

#[test]
fn a_name_has_one_owner() {
    let (first, second) = (instance("web", 1), instance("web", 2));
    let story = || Story::default().makes(0, 10, &first).makes(20, 30, &second);
    wrong(&story().ends(&[&first, &second]), "instance `web` was owned by");
    // Also where the first was deleted, but not before it was seen again.
    let story = story().gets(50, 60, &first).deletes(70, 80, &first);
    wrong(&story.ends(&[&dead(&first), &second]), "instance `web` was owned by");
}

#[test]
fn an_address_has_one_owner() {
    let (first, mut second) = (instance("one", 1), instance("two", 2));
    second.claims.as_mut().unwrap().ip = "10.0.0.1".into();
    let history = Story::default().makes(0, 10, &first).makes(20, 30, &second).ends(&[&first, &second]);
    wrong(&history, "address 10.0.0.1 of `default/default` was owned by");
}

#[test]
fn a_volume_is_attached_to_one_instance() {
    let (mut first, mut second) = (instance("one", 1), instance("two", 2));
    first.claims.as_mut().unwrap().volumes.push("data".into());
    second.claims.as_mut().unwrap().volumes.push("data".into());
    let history = Story::default().makes(0, 10, &first).makes(20, 30, &second).ends(&[&first, &second]);
    wrong(&history, "volume data was owned by");
}

#[test]
fn a_volume_goes_on_when_it_was_detached() {
    let data = thing(Kind::Volume, "data", 1);
    let (bare, second) = (instance("one", 2), instance("two", 3));
    let with = |seen: &Seen| {
        let mut seen = Seen { version: seen.version + 1, ..seen.clone() };
        seen.claims.as_mut().unwrap().volumes.push(data.id.clone());
        seen
    };
    let attaches = |story: Story, begun, seen: &Seen| {
        let call = Call::Attach(by_id(seen), "data".into());
        story.call(begun, begun + 5, call, Outcome::Done(vec![with(seen)]))
    };
    let detaches = |story: Story, outcome| story.call(60, 65, Call::Detach(by_name(&bare), "data".into()), outcome);
    let begun = || attaches(Story::default().makes(0, 5, &data).makes(10, 15, &bare).makes(20, 25, &second), 50, &bare);
    let ends = |story: Story| story.ends(&[&data, &Seen { version: 9, ..bare.clone() }, &with(&second)]);
    let released = Outcome::Done(vec![Seen { version: 3, ..with(&bare) }]);
    right(&ends(attaches(detaches(begun(), released), 70, &second)));
    right(&ends(attaches(detaches(begun(), unknown()), 70, &second)));
    let twice = format!("volume {} was owned by", data.id);
    wrong(&ends(attaches(begun(), 70, &second)), &twice);
    wrong(&ends(attaches(detaches(begun(), refused(Code::FailedPrecondition, "")), 70, &second)), &twice);
    // Before it was detached.
    wrong(&ends(detaches(attaches(begun(), 52, &second), unknown())), &twice);
    let gone = |story: Story| story.call(80, 85, Call::Get(by_id(&data)), Outcome::Done(vec![dead(&data)]));
    wrong(&gone(begun()).ends(&[&dead(&data), &with(&bare), &second]), "was deleted under instance `one`");
}

#[test]
fn a_host_promises_what_it_has() {
    let all: Vec<Seen> = (1..=3).map(|op| instance(&format!("i-{op}"), op)).collect();
    let story = || Story::default().makes(0, 10, &all[0]).makes(20, 30, &all[1]);
    right(&story().ends(&[&all[0], &all[1]]));
    wrong(&story().makes(40, 50, &all[2]).ends(&[&all[0], &all[1], &all[2]]), "has promised 3 vCPUs and 384 MiB");
    // One that could not be provisioned has given its promise back.
    let failed = Seen { status: "ERROR".into(), version: 3, ..all[0].clone() };
    let story = story().gets(32, 38, &failed).makes(40, 50, &all[2]);
    let found = check(&story.ends(&[&failed, &all[1], &all[2]]), LIMITS);
    assert!(!found.iter().any(|w| w.contains("promised")), "{found:?}");
}

#[test]
fn a_project_has_what_its_quota_allows() {
    let on = |host: &str, op| {
        let mut made = instance(&format!("i-{op}"), op);
        made.claims.as_mut().unwrap().host = host.into();
        made
    };
    let all = [on("h1", 1), on("h1", 2), on("h2", 3), on("h2", 4)];
    let story = || Story::default().makes(0, 10, &all[0]).makes(20, 30, &all[1]).makes(40, 50, &all[2]);
    right(&story().ends(&[&all[0], &all[1], &all[2]]));
    let four = [&all[0], &all[1], &all[2], &all[3]];
    wrong(&story().makes(60, 70, &all[3]).ends(&four), "there were 4 of the instances");
    let (one, two) = (thing(Kind::Vpc, "one", 1), thing(Kind::Vpc, "two", 2));
    wrong(&Story::default().makes(0, 10, &one).makes(20, 30, &two).ends(&[&one, &two]), "there were 2 of the VPCs");
}

#[test]
fn what_was_acknowledged_is_visible_until_it_is_deleted() {
    let web = instance("web", 1);
    let story = || Story::default().makes(0, 10, &web);
    let missing = || refused(Code::NotFound, "instance");
    wrong(&story().call(20, 30, Call::Get(by_name(&web)), missing()).ends(&[&web]), "was not found although");
    wrong(&story().call(20, 30, Call::Get(by_id(&web)), missing()).ends(&[&web]), "was not found although");
    wrong(&story().call(20, 30, Call::Stop(by_id(&web)), missing()).ends(&[&web]), "was not found although");
    wrong(&story().call(20, 30, Call::List(Kind::Instance), Outcome::Done(Vec::new())).ends(&[&web]), "lacks instance");
    wrong(&story().ends(&[]), "gone without a trace");
    // A launch that is not answered yet may not be there, nor one whose deletion was asked for.
    right(&story().call(5, 30, Call::Get(by_name(&web)), missing()).ends(&[&web]));
    right(&story().deletes(20, 90, &web).call(25, 30, Call::Get(by_name(&web)), missing()).ends(&[&dead(&web)]));
    // By its id it is, for ever.
    let story = story().deletes(20, 90, &web).call(95, 99, Call::Get(by_id(&web)), missing());
    wrong(&story.ends(&[&dead(&web)]), "was not found although");
}

#[test]
fn what_an_answer_says_is_missing_was_missing() {
    let (vpc, mut launch) = (thing(Kind::Vpc, "net", 1), making(&instance("web", 2)));
    if let Call::Launch { vpc, .. } = &mut launch {
        *vpc = "net".into();
    }
    let history =
        Story::default().makes(0, 10, &vpc).call(20, 30, launch, refused(Code::NotFound, "vpc")).ends(&[&vpc]);
    wrong(&history, "no vpc was found");
}

#[test]
fn a_free_name_is_not_said_to_be_taken() {
    let web = instance("web", 1);
    let refusal = || refused(Code::AlreadyExists, "instance");
    wrong(&Story::default().call(0, 10, making(&web), refusal()).ends(&[]), "while nothing had that name");
    let story = Story::default().makes(0, 10, &web).deletes(20, 30, &web).gets(40, 50, &dead(&web));
    let late = |begun| Story(story.0.clone()).call(begun, begun + 10, making(&web), refusal());
    wrong(&late(60).ends(&[&dead(&web)]), "while nothing had that name");
    right(&late(45).ends(&[&dead(&web)]));
}

#[test]
fn a_launch_makes_one_instance_and_a_refused_one_none() {
    let (first, mut second) = (instance("web", 1), instance("web", 1));
    second.id = "id-again".into();
    let lost = || Story::default().call(0, 10, making(&first), unknown());
    right(&lost().ends(&[&first]));
    right(&lost().ends(&[]));
    wrong(&lost().ends(&[&first, &second]), "call 1 made 2 things");
    let refusal = refused(Code::ResourceExhausted, "host");
    wrong(&Story::default().call(0, 10, making(&first), refusal).ends(&[&first]), "was refused with ResourceExhausted");
    let other = instance("other", 1);
    wrong(&Story::default().makes(0, 10, &other).ends(&[&other]).tap(|h| h[0].call = making(&first)), "and made");
}

#[test]
fn nothing_comes_back_and_nothing_goes_unasked() {
    let web = instance("web", 1);
    let story = Story::default().makes(0, 10, &web).deletes(20, 30, &web).gets(40, 50, &dead(&web));
    wrong(&story.gets(60, 70, &web).ends(&[&dead(&web)]), "seen alive after it was seen deleted");
    wrong(&Story::default().makes(0, 10, &web).ends(&[&dead(&web)]), "nobody asked for it");
}

#[test]
fn reads_never_go_back() {
    let old = instance("web", 1);
    let new = Seen { version: 4, ..old.clone() };
    let story = || Story::default().makes(0, 10, &old).gets(20, 30, &new);
    wrong(&story().gets(40, 50, &old).ends(&[&new]), "was read at version 1 after version 4");
    right(&story().gets(25, 50, &old).ends(&[&new]));
}

#[test]
fn what_instances_stand_on_stays() {
    let (vpc, mut web) = (thing(Kind::Vpc, "net", 1), instance("web", 2));
    let volume = thing(Kind::Volume, "data", 3);
    let claims = web.claims.as_mut().unwrap();
    claims.vpc = "net".into();
    claims.volumes.push(volume.id.clone());
    let story = || Story::default().makes(0, 10, &vpc).makes(20, 30, &web).makes(1, 2, &volume);
    right(&story().ends(&[&vpc, &web, &volume]));
    let under = |gone: &Seen| story().call(40, 50, Call::Delete(by_id(gone)), Outcome::Done(vec![dead(gone)]));
    wrong(&under(&vpc).ends(&[&dead(&vpc), &web, &volume]), "VPC `net` was deleted under instance `web`");
    wrong(&under(&volume).ends(&[&vpc, &web, &dead(&volume)]), "volume `data` (id-3) was deleted under");
}

#[test]
fn the_last_order_comes_true() {
    let web = instance("web", 1);
    let stopped = Seen { status: "STOPPED".into(), version: 3, ..web.clone() };
    let stop = |outcome| Story::default().makes(0, 10, &web).call(20, 30, Call::Stop(by_id(&web)), outcome);
    right(&stop(Outcome::Done(vec![stopped.clone()])).ends(&[&stopped]));
    let running = Seen { version: 7, ..web.clone() };
    wrong(&stop(Outcome::Done(vec![stopped.clone()])).ends(&[&running]), "was to be STOPPED at last and is RUNNING");
    right(&stop(unknown()).ends(&[&running]));
    right(&stop(unknown()).ends(&[&stopped]));
    wrong(&stop(Outcome::Done(vec![running.clone()])).ends(&[&stopped]), "was not STOPPED");
    let story = Story::default().makes(0, 10, &web).deletes(20, 30, &web);
    wrong(&story.ends(&[&running]), "was to be DELETED at last and is RUNNING");
}

#[test]
fn an_answer_is_about_what_was_asked() {
    let (web, other) = (instance("web", 1), instance("other", 2));
    let story = Story::default().makes(0, 10, &web).makes(11, 12, &other);
    let history = story.call(20, 30, Call::Get(by_name(&web)), Outcome::Done(vec![other.clone()]));
    wrong(&history.ends(&[&web, &other]), "call 3 was about instance `web` and answered with instance `other`");
}

#[test]
fn faults_of_the_gateway_itself_are_told() {
    let fault = Outcome::Unknown { code: Code::Internal, message: "internal error (request 1)".into() };
    let history = Story::default().call(0, 10, Call::List(Kind::Volume), fault).ends(&[]);
    wrong(&history, "was answered with INTERNAL");
}

/// Changes a value on the way.
trait Tap: Sized {
    fn tap(self, change: impl FnOnce(&mut Self)) -> Self;
}

impl Tap for Vec<Record> {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
