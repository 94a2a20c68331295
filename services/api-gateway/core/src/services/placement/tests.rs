use cloud_domain::SessionId;

use super::*;
use crate::{
    model::{AgentRole, HostCapacity, Pool},
    services::registry::AgentRef,
};

/// A registry of so many hosts that fit; their ids.
fn registry(count: usize) -> (HostRegistry, Vec<(HostId, SessionId)>) {
    let registry = HostRegistry::new(Duration::from_secs(10));
    let hosts = (0..count).map(|i| {
        let (host, session) = (HostId::random(), SessionId::random());
        for role in AgentRole::ALL {
            let agent = AgentRef { endpoint: "unix:/x".into(), session };
            registry.registered(host, &format!("h{i}"), role, agent, "0.1.0");
        }
        let pool = Pool { name: DEFAULT_POOL.into(), backend: "lvm".into(), total_bytes: 1 << 40, free_bytes: 1 << 40 };
        let compute = HostCapacity { vcpus: 2, architecture: "x86_64".into(), ..HostCapacity::default() };
        registry.offers(host, AgentRole::Compute, &compute);
        registry.offers(host, AgentRole::Storage, &HostCapacity { pools: vec![pool], ..HostCapacity::default() });
        (host, session)
    });
    let hosts = hosts.collect();
    (registry, hosts)
}

fn asked<'a>(ask: &'a Ask<'a>) -> Asked<'a> {
    Asked { ask, named: None, group: HashMap::new() }
}

fn ask<'a>(placement: &'a Placement, architecture: &'a str) -> Ask<'a> {
    let (kind, image) = ("tiny", ImageId::random());
    Ask {
        kind,
        vcpus: 1,
        memory_mib: 1,
        image,
        architecture,
        pool_bytes: 1,
        placement,
        pools: Vec::new(),
        pinned: None,
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_hosts_that_so_many_fit_is_remembered_and_who_is_chosen_is_looked_at() {
    let (registry, hosts) = registry(100);
    let any = Placement::default();
    let (ask, other) = (ask(&any, "x86_64"), ask(&any, "aarch64"));
    let fitting = |asked: &Asked<'_>| Filtered::lately(&registry, asked).fitting;
    assert_eq!(fitting(&asked(&ask)), 100);
    let (broken, session) = hosts[0];
    registry.heartbeat(broken, AgentRole::Storage, session, "its disk is gone");
    assert_eq!(fitting(&asked(&ask)), 100, "as a moment ago");
    let rooms: Vec<(HostId, u64)> = hosts.iter().map(|(id, _)| (*id, 0)).collect();
    let found = candidates(&registry, Strategy::Spread, &asked(&ask), rooms);
    assert!(found.len() == 99 && found.iter().all(|c| c.id != broken));
    assert_eq!(fitting(&asked(&other)), 0, "another ask has an answer of its own");
    tokio::time::advance(RECENT).await;
    assert_eq!(fitting(&asked(&ask)), 99);
}

#[tokio::test(start_paused = true)]
async fn few_hosts_are_looked_at_each_time() {
    let (registry, hosts) = registry(WINDOW);
    let any = Placement::default();
    let ask = ask(&any, "x86_64");
    assert_eq!(Filtered::lately(&registry, &asked(&ask)).few.len(), WINDOW);
    registry.heartbeat(hosts[0].0, AgentRole::Storage, hosts[0].1, "its disk is gone");
    assert_eq!(Filtered::lately(&registry, &asked(&ask)).few.len(), WINDOW - 1);
}
