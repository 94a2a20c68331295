use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::core::{
    fixtures::{port, port_id, slice, subnet},
    flow::Flow,
};

/// A host in memory: it does what the traits say, until told to fail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Host {
    bridge: bool,
    ports: BTreeMap<PortId, SwitchPort>,
    vpcs: BTreeMap<VpcId, Vni>,
    flows: FlowSet,
    devices: BTreeMap<PortId, VpcId>,
}

#[derive(Debug, Default)]
struct Fake {
    host: Mutex<Host>,
    /// Which call fails, counted from 0, and whether it has done its work by then.
    failing: Mutex<Option<(usize, bool)>>,
    calls: Mutex<usize>,
}

impl Fake {
    fn act<T>(&self, work: impl FnOnce(&mut Host) -> T) -> Result<T, BackendError> {
        let mut calls = self.calls.lock().unwrap();
        let failing = self.failing.lock().unwrap().filter(|(call, _)| *call == *calls);
        *calls += 1;
        match failing {
            Some((_, false)) => Err(BackendError::failed("as told")),
            Some((_, true)) => {
                work(&mut self.host.lock().unwrap());
                Err(BackendError::failed("as told, too late"))
            }
            None => Ok(work(&mut self.host.lock().unwrap())),
        }
    }

    fn host(&self) -> Host {
        self.host.lock().unwrap().clone()
    }
}

#[async_trait]
impl Switch for Fake {
    async fn ensure_bridge(&self, _: CloudId) -> Result<(), BackendError> {
        self.act(|host| host.bridge = true)
    }

    async fn ports(&self, _: CloudId) -> Result<BTreeMap<PortId, SwitchPort>, BackendError> {
        self.act(|host| host.ports.clone())
    }

    async fn vpcs(&self) -> Result<BTreeMap<VpcId, Vni>, BackendError> {
        self.act(|host| host.vpcs.clone())
    }

    async fn change_ports(&self, _: CloudId, change: PortChange) -> Result<(), BackendError> {
        self.act(|host| {
            host.ports.retain(|_, port| !change.unplug.contains(&port.device));
            for new in change.plug {
                let works = host.devices.contains_key(&new.port);
                let port = SwitchPort {
                    device: new.device,
                    ofport: works.then_some(new.ofport),
                    error: (!works).then(|| "no such device".to_owned()),
                    port: new.port,
                    vpc: new.vpc,
                };
                host.ports.insert(new.port, port);
            }
            match change.note {
                Some((vpc, Some(vni))) => _ = host.vpcs.insert(vpc, vni),
                Some((vpc, None)) => _ = host.vpcs.remove(&vpc),
                None => {}
            }
        })
    }

    async fn flows(&self) -> Result<Vec<Flow>, BackendError> {
        self.act(|host| host.flows.iter().map(|(key, body)| Flow { key: key.clone(), body: body.clone() }).collect())
    }

    async fn flow_count(&self) -> Result<usize, BackendError> {
        self.act(|host| host.flows.len())
    }

    async fn change_flows(&self, change: &Change) -> Result<(), BackendError> {
        self.act(|host| change.apply(&mut host.flows))
    }

    async fn remove_bridge(&self, _: CloudId) -> Result<(), BackendError> {
        self.act(|host| *host = Host::default())
    }
}

#[async_trait]
impl Devices for Fake {
    async fn ensure(&self, devices: &[Device]) -> Result<(), BackendError> {
        self.act(|host| host.devices.extend(devices.iter().map(|d| (d.port, d.vpc))))
    }

    async fn list(&self, cloud: CloudId) -> Result<Vec<Device>, BackendError> {
        self.act(|host| {
            host.devices.iter().map(|(port, vpc)| Device { cloud, vpc: *vpc, port: *port, mtu: 1450 }).collect()
        })
    }

    async fn remove(&self, devices: &[Device]) -> Result<(), BackendError> {
        self.act(|host| host.devices.retain(|port, _| !devices.iter().any(|d| d.port == *port)))
    }
}

fn engine(fake: &Arc<Fake>) -> Engine {
    let cloud = uuid::Uuid::from_u128(1).into();
    Engine::new(
        cloud,
        Arc::clone(fake) as Arc<dyn Switch>,
        Arc::clone(fake) as Arc<dyn Devices>,
        LeaseTable::default(),
        false,
    )
}

fn vpc(generation: u64, ports: &[u32]) -> VpcSlice {
    let subnet = subnet(1, "10.0.0.0/24");
    let ports = ports.iter().map(|n| port(*n, &subnet, *n)).collect();
    slice(5, generation, vec![subnet], ports)
}

/// What happens to a host: two ports, then one of them and a third, then nothing.
async fn story(engine: &mut Engine, step: usize) -> Result<(), EngineError> {
    let order = Order { epoch: 1, generation: 3 };
    match step {
        0 => engine.apply(vpc(1, &[1, 2])).await.map(drop),
        1 => engine.apply(vpc(2, &[2, 3])).await.map(drop),
        _ => engine.remove(vpc(1, &[]).vpc, order).await,
    }
}

#[tokio::test]
async fn ports_come_stay_and_go() {
    let fake = Arc::<Fake>::default();
    let mut engine = engine(&fake);
    engine.resync().await.unwrap();
    let empty = fake.host();
    let first = engine.apply(vpc(1, &[1, 2])).await.unwrap();
    let second = engine.apply(vpc(2, &[2, 3])).await.unwrap();
    assert_eq!(first[1], second[0], "what stays keeps its number");
    assert!(!first.iter().any(|p| p.ofport == second[1].ofport), "a number that was just given back rests");
    assert_eq!(fake.host().devices.keys().copied().collect::<Vec<_>>(), [port_id(2), port_id(3)]);
    story(&mut engine, 2).await.unwrap();
    story(&mut engine, 2).await.unwrap();
    assert_eq!(fake.host(), empty);
}

#[tokio::test]
async fn equal_costs_nothing_and_older_is_refused() {
    let fake = Arc::<Fake>::default();
    let mut engine = engine(&fake);
    let first = engine.apply(vpc(2, &[1])).await.unwrap();
    let calls = *fake.calls.lock().unwrap();
    assert_eq!(engine.apply(vpc(2, &[1])).await.unwrap(), first);
    assert_eq!(*fake.calls.lock().unwrap(), calls, "not even a question to the switch");
    assert!(matches!(engine.apply(vpc(1, &[1])).await, Err(EngineError::Stale { .. })));
    let older = Order { epoch: 1, generation: 1 };
    assert!(matches!(engine.remove(vpc(1, &[]).vpc, older).await, Err(EngineError::Stale { .. })));
    // A restored database starts anew.
    let mut restored = vpc(1, &[1]);
    restored.order.epoch = 2;
    engine.apply(restored).await.unwrap();
    assert!(matches!(engine.apply(vpc(9, &[1])).await, Err(EngineError::Stale { .. })));
}

#[tokio::test]
async fn a_new_engine_adopts_what_is_there() {
    let fake = Arc::<Fake>::default();
    let plugged = engine(&fake).apply(vpc(1, &[1, 2])).await.unwrap();
    let before = fake.host();
    let mut again = engine(&fake);
    again.resync().await.unwrap();
    assert_eq!(fake.host(), before, "adopting changes nothing");
    assert_eq!(again.list().await.unwrap()[0].order, Order::default());
    assert_eq!(again.apply(vpc(1, &[1, 2])).await.unwrap(), plugged);
    assert_eq!(fake.host(), before);
}

#[tokio::test]
async fn lost_flows_and_ports_come_back() {
    let fake = Arc::<Fake>::default();
    let mut engine = engine(&fake);
    engine.apply(vpc(1, &[1, 2])).await.unwrap();
    let before = fake.host();
    fake.host.lock().unwrap().flows.clear();
    engine.sweep(false).await.unwrap();
    assert_eq!(fake.host(), before);
    // As many flows as before, and a port less.
    fake.host.lock().unwrap().ports.remove(&port_id(1));
    engine.sweep(false).await.unwrap();
    assert!(fake.host().ports[&port_id(1)].ofport.is_some());
    assert_eq!(fake.host().ports.len(), 2);
    let before = fake.host();
    let calls = *fake.calls.lock().unwrap();
    engine.sweep(false).await.unwrap();
    assert_eq!(*fake.calls.lock().unwrap(), calls + 2, "where all is well, flows are counted and ports are looked at");
    *fake.host.lock().unwrap() = Host::default();
    engine.resync().await.unwrap();
    assert_eq!(fake.host().devices, before.devices);
    assert_eq!(fake.host().vpcs, before.vpcs);
    assert_eq!(fake.host().flows.len(), before.flows.len());
}

/// Every step of the story is cut off at every call, before and after the call's work, and then repeated.
#[tokio::test]
async fn whatever_fails_is_completed_by_the_next_try() {
    let reference = Arc::<Fake>::default();
    let mut healthy = engine(&reference);
    let mut goals = Vec::new();
    for step in 0..3 {
        story(&mut healthy, step).await.unwrap();
        goals.push(reference.host());
    }
    let mut failures = 0;
    for (step, late, restart) in
        [0, 1, 2].into_iter().flat_map(|s| [(s, false, false), (s, true, false), (s, true, true)])
    {
        for call in 0.. {
            let fake = Arc::<Fake>::default();
            let mut engine_now = engine(&fake);
            for before in 0..step {
                story(&mut engine_now, before).await.unwrap();
            }
            *fake.failing.lock().unwrap() = Some((*fake.calls.lock().unwrap() + call, late));
            if story(&mut engine_now, step).await.is_ok() {
                break;
            }
            failures += 1;
            if restart {
                engine_now = engine(&fake);
            }
            story(&mut engine_now, step).await.unwrap();
            let (host, goal) = (fake.host(), &goals[step]);
            let what = format!("step {step}, call {call}, late {late}, restart {restart}");
            assert_eq!(host.devices, goal.devices, "{what}");
            assert_eq!(host.vpcs, goal.vpcs, "{what}");
            assert_eq!(host.ports.keys().collect::<Vec<_>>(), goal.ports.keys().collect::<Vec<_>>(), "{what}");
            assert_eq!(host.flows.len(), goal.flows.len(), "{what}");
        }
    }
    assert!(failures > 30, "{failures}");
}
