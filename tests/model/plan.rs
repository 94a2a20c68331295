//! What is done in a run, calls and faults: all drawn from one seed, so that a run that failed can be made again.

use std::time::Duration;

use cloud_testkit::Role;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::history::{Call, Key, Kind, Target};

/// How much there is of everything.
#[derive(Debug, Clone)]
pub struct Size {
    pub clients: usize,
    pub calls: usize,
    pub gateways: usize,
    pub hosts: usize,
    pub has_database: bool,
    pub time: Duration,
}

/// One call of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub op: u32,
    /// Whom it is sent to first.
    pub gateway: usize,
    pub rest: Duration,
    pub call: Call,
    /// Whether the resource is named by its id, where the client knows one.
    pub by_id: bool,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillGateway(usize),
    PauseGateway(usize),
    KillAgent(usize, Role),
    /// The agent answers nothing.
    HangAgent(usize, Role),
    /// The agents do what they are told, and half of their answers are lost.
    LoseAnswers(usize),
    BreakBackend(usize, Role),
    PowerOff(usize),
    CutNetwork(usize),
    StopDatabase,
    CrashDatabase,
    PauseDatabase,
    /// One gateway's way to the database is cut.
    CutDatabase(usize),
}

/// A fault, when it comes after the one before, and how long it lasts.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    pub rest: Duration,
    pub fault: Fault,
    pub lasts: Duration,
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// For each client, its calls one after the other.
    pub clients: Vec<Vec<Step>>,
    /// Lanes of troubles: those of one lane come one after the other, the lanes at the same time.
    pub lanes: Vec<Vec<Trouble>>,
}

/// How many names there are of each kind: few enough to be fought for.
const INSTANCES: u32 = 60;
const VOLUMES: u32 = 20;
const VPCS: u32 = 4;
const SUBNETS: u32 = 2;
/// Lanes of troubles with hosts.
const HOST_LANES: usize = 3;

impl Plan {
    pub fn new(seed: u64, size: &Size) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut op = 0;
        let mut steps = |random: &mut StdRng| {
            let mut steps = Vec::with_capacity(size.calls);
            for _ in 0..size.calls {
                op += 1;
                steps.push(Step {
                    op,
                    gateway: random.random_range(0..size.gateways),
                    rest: Duration::from_millis(random.random_range(0..40)),
                    call: call(random),
                    by_id: random.random_bool(0.5),
                });
            }
            steps
        };
        let clients = (0..size.clients).map(|_| steps(&mut random)).collect();
        let mut lanes = Vec::new();
        for gateway in 0..size.gateways {
            lanes.push(lane(&mut random, size.time, 5.0, |random| match random.random_range(0..3) {
                0 => Fault::PauseGateway(gateway),
                _ => Fault::KillGateway(gateway),
            }));
        }
        for lane_number in 0..HOST_LANES.min(size.hosts) {
            // No two lanes have a host in common, so that none mends what another broke.
            let of_lane = (size.hosts - lane_number).div_ceil(HOST_LANES);
            let fault = |random: &mut StdRng| host_fault(random, of_lane, lane_number);
            lanes.push(lane(&mut random, size.time, 1.5, fault));
        }
        if size.has_database {
            lanes.push(lane(&mut random, size.time, 6.0, |random| match random.random_range(0..5) {
                0 => Fault::StopDatabase,
                1 => Fault::CrashDatabase,
                2 => Fault::PauseDatabase,
                _ => Fault::CutDatabase(random.random_range(0..size.gateways)),
            }));
        }
        Self { clients, lanes }
    }
}

fn lane(random: &mut StdRng, time: Duration, rest: f64, mut fault: impl FnMut(&mut StdRng) -> Fault) -> Vec<Trouble> {
    let (mut troubles, mut at) = (Vec::new(), Duration::ZERO);
    while at < time {
        let trouble = Trouble {
            rest: Duration::from_secs_f64(random.random_range(0.2..rest * 2.0)),
            fault: fault(random),
            // Most end before anybody is sure of them; some last.
            lasts: Duration::from_secs_f64(if random.random_bool(0.15) {
                random.random_range(2.0..5.5)
            } else {
                random.random_range(0.05..0.8)
            }),
        };
        at += trouble.rest + trouble.lasts;
        troubles.push(trouble);
    }
    troubles
}

fn host_fault(random: &mut StdRng, of_lane: usize, lane: usize) -> Fault {
    let host = random.random_range(0..of_lane) * HOST_LANES + lane;
    let role = Role::ALL[random.random_range(0..Role::ALL.len())];
    match random.random_range(0..7) {
        0 | 1 => Fault::KillAgent(host, role),
        2 => Fault::HangAgent(host, role),
        3 => Fault::LoseAnswers(host),
        4 => Fault::BreakBackend(host, role),
        5 => Fault::PowerOff(host),
        _ => Fault::CutNetwork(host),
    }
}

fn call(random: &mut StdRng) -> Call {
    match random.random_range(0..100) {
        0..26 => launch(random),
        26..38 => Call::Delete(target(instance(random))),
        38..44 => Call::Stop(target(instance(random))),
        44..51 => Call::Start(target(instance(random))),
        51..53 => Call::Reboot(target(instance(random))),
        53..57 => Call::Attach(target(instance(random)), volume(random).name),
        57..62 => Call::Detach(target(instance(random)), volume(random).name),
        62..65 => Call::Get(target(instance(random))),
        65..69 => Call::List(Kind::Instance),
        69..77 => Call::Create(volume(random)),
        77..80 => Call::Delete(target(volume(random))),
        80..83 => Call::Get(target(volume(random))),
        83..85 => Call::List(Kind::Volume),
        85..90 => Call::Create(vpc(random)),
        90..92 => Call::Delete(target(vpc(random))),
        92..93 => Call::Get(target(vpc(random))),
        93..94 => Call::List(Kind::Vpc),
        94..98 => Call::Create(subnet(random)),
        _ => Call::Delete(target(subnet(random))),
    }
}

fn launch(random: &mut StdRng) -> Call {
    let name = instance(random).name;
    let vpc = if random.random_bool(0.4) { vpc(random).name } else { String::new() };
    let subnet = if !vpc.is_empty() && random.random_bool(0.3) { subnet(random).name } else { String::new() };
    let mut volumes: Vec<String> = Vec::new();
    for _ in 0..[0, 0, 0, 1, 1, 2][random.random_range(0..6)] {
        let volume = volume(random).name;
        if !volumes.contains(&volume) {
            volumes.push(volume);
        }
    }
    Call::Launch { name, vpc, subnet, volumes }
}

fn instance(random: &mut StdRng) -> Key {
    Key::new(Kind::Instance, format!("i-{}", random.random_range(0..INSTANCES)))
}

fn volume(random: &mut StdRng) -> Key {
    Key::new(Kind::Volume, format!("v-{}", random.random_range(0..VOLUMES)))
}

fn vpc(random: &mut StdRng) -> Key {
    Key::new(Kind::Vpc, format!("n-{}", random.random_range(0..VPCS)))
}

fn subnet(random: &mut StdRng) -> Key {
    Key::subnet(vpc(random).name, format!("s-{}", random.random_range(0..SUBNETS)))
}

fn target(key: Key) -> Target {
    Target { key, id: None }
}

#[test]
fn the_same_seed_plans_the_same() {
    let size =
        Size { clients: 3, calls: 50, gateways: 2, hosts: 20, has_database: true, time: Duration::from_secs(30) };
    let plan = Plan::new(7, &size);
    assert_eq!(plan, Plan::new(7, &size));
    assert_ne!(plan, Plan::new(8, &size));
    assert_eq!((plan.clients.len(), plan.lanes.len()), (3, 6));
    let mut ops: Vec<u32> = plan.clients.iter().flatten().map(|s| s.op).collect();
    ops.dedup();
    assert_eq!(ops.len(), 150, "every call has its own number");
}
