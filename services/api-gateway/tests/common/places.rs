//! Placement: exact through two gateways at once.

use std::sync::Arc;

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    CoreError,
    model::{AgentRole, Caller, Host, HostCapacity, HostMode, Instance, Pool, Timestamp},
    ports::{Query, Store, Tx},
    services::{
        HostChange, HostRegistry, HostState, Launch, NewVolume, PageRequest, Placement, RegisterInput, Services,
    },
};
use cloud_domain::{HostId, SessionId};

use super::{Cloud, over, request};

async fn register(services: &Services<SqlStore>, name: &str, host: HostId, room: u64, pools: &[&str]) {
    register_agents(services, &AgentRole::ALL, (name, host), room, pools).await;
}

async fn register_agents(
    services: &Services<SqlStore>,
    roles: &[AgentRole],
    (name, host): (&str, HostId),
    room: u64,
    pools: &[&str],
) {
    for role in roles.iter().copied() {
        let pool = |name: &&str| Pool {
            name: (*name).into(),
            backend: "directory".into(),
            total_bytes: 1 << 40,
            free_bytes: 1 << 40,
        };
        let input = RegisterInput {
            host,
            host_name: name.into(),
            role,
            session: SessionId::random(),
            endpoint: "unix:/nowhere".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            boot_id: "boot".into(),
            capacity: HostCapacity {
                vcpus: 64,
                memory_mib: 512 + room * 128,
                architecture: "x86_64".into(),
                pools: pools.iter().map(pool).collect(),
                ..HostCapacity::default()
            },
        };
        services.hosts.register(input).await.unwrap();
    }
}

/// 64 launches at once through two gateways, on three hosts with room for 30: exactly 30 are placed, and no host has one too many. Three in a group
/// whose members must be apart are.
pub async fn two_gateways_never_overcommit(c: &Cloud, other: SqlStore) {
    let registry = Arc::new(HostRegistry::new(std::time::Duration::from_secs(60)));
    let second = over(other, &registry);
    say_cordon(c).await;
    let hosts = [HostId::random(), HostId::random(), HostId::random()];
    for (number, host) in hosts.iter().enumerate() {
        // Each gateway hears every agent, as they do once they have told each other.
        register(&c.services, &format!("p{number}"), *host, 10, &["default"]).await;
        register(&second, &format!("p{number}"), *host, 10, &["default"]).await;
    }
    let apart = Placement { group: "apart".into(), group_required: true, ..Placement::default() };
    let launches = (0..64).map(|i| {
        let services = if i % 2 == 0 { c.services.clone() } else { second.clone() };
        let caller = c.caller.clone();
        let placement = if i % 8 == 0 { apart.clone() } else { Placement::default() };
        let launch = Launch { placement, ..request(&format!("placed-{i}")) };
        tokio::spawn(async move { (i % 8 == 0, services.instances.launch(&caller, launch).await) })
    });
    let (mut made, mut apart_on, mut full) = (Vec::new(), Vec::new(), 0);
    for launch in futures::future::join_all(launches).await {
        match launch.unwrap() {
            (is_apart, Ok(row)) => {
                if is_apart {
                    apart_on.push(row.host);
                }
                made.push(row);
            }
            (_, Err(CoreError::Exhausted { .. })) => full += 1,
            (_, Err(other)) => panic!("{other}"),
        }
    }
    let placed = made.len();
    assert_eq!((placed, full), (30, 34), "as many as there is room for");
    for host in hosts {
        assert_eq!(c.store.capacity_used(host).await.unwrap(), (10, 1280));
        assert_eq!(made.iter().filter(|row| row.host == host).count(), 10);
    }
    let spread: std::collections::BTreeSet<_> = apart_on.iter().collect();
    assert_eq!(spread.len(), apart_on.len(), "{apart_on:?}");
    free(c, made).await;
    // All of one group: each host gets one of them, and the others are refused, however they meet.
    let launches = (0..24).map(|i| {
        let services = if i % 2 == 0 { c.services.clone() } else { second.clone() };
        let (caller, placement) = (c.caller.clone(), apart.clone());
        let launch = Launch { placement, ..request(&format!("apart-{i}")) };
        tokio::spawn(async move { services.instances.launch(&caller, launch).await })
    });
    let launched = futures::future::join_all(launches).await;
    let made: Vec<Instance> = launched.into_iter().filter_map(|launch| launch.unwrap().ok()).collect();
    let on: std::collections::BTreeSet<HostId> = made.iter().map(|row| row.host).collect();
    assert_eq!((made.len(), on), (3, hosts.into()));
    free(c, made).await;
    // All with one volume: one of them has it, and the others are told who has.
    let wanted = NewVolume { name: "wanted".into(), size_gib: 1, ..NewVolume::default() };
    c.services.volumes.create(&c.caller, wanted).await.unwrap();
    let launches = (0..8).map(|i| {
        let services = if i % 2 == 0 { c.services.clone() } else { second.clone() };
        let caller = c.caller.clone();
        let launch = Launch { volumes: vec!["wanted".into()], ..request(&format!("wants-{i}")) };
        tokio::spawn(async move { services.instances.launch(&caller, launch).await })
    });
    let mut made = Vec::new();
    for launch in futures::future::join_all(launches).await {
        match launch.unwrap() {
            Ok(row) => made.push(row),
            Err(CoreError::Precondition { reason: "VOLUME_STATE", .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(made.len(), 1);
    // The other gateway does not know yet that one is cordoned: the claim does.
    free(c, made).await;
    c.services.hosts.cordon(&c.caller, "p0", "").await.unwrap();
    assert_eq!(registry.state(hosts[0]).0, HostState::Up);
    let on = |host: &str| Launch {
        placement: Placement { host: host.into(), ..Placement::default() },
        ..request("on-a-cordoned-host")
    };
    let error = second.instances.launch(&c.caller, on("p0")).await.unwrap_err().to_string();
    assert!(error.contains("p0: "), "{error}");
    // Nor what its labels are now.
    let change = HostChange { labels: Some([("zone".to_owned(), "a".to_owned())].into()), ..HostChange::default() };
    c.services.hosts.update(&c.caller, "p1", "", change).await.unwrap();
    let labels = Placement { host_labels: [("zone".to_owned(), "a".to_owned())].into(), ..Placement::default() };
    let wanted = Launch { placement: labels, ..request("in-zone-a") };
    let found = second.instances.launch(&c.caller, wanted.clone()).await;
    if c.store.is_exclusive() {
        // There is no second gateway on SQLite; what this one wrote, it knows.
        let here = Launch { name: "in-zone-a-here".into(), ..wanted };
        assert_eq!(c.services.instances.launch(&c.caller, here).await.unwrap().host, hosts[1]);
    } else {
        assert_eq!(found.unwrap().host, hosts[1]);
    }
    a_removed_host_stays_removed(c, hosts[2], &second).await;
    volumes_are_where_their_pool_is(c).await;
}

/// Instances go where their new volumes' pool is, and an operator puts a volume on a host that takes it.
async fn volumes_are_where_their_pool_is(c: &Cloud) {
    let fast = HostId::random();
    register(&c.services, "p3", fast, 10, &["default", "fast"]).await;
    let volume = |name: &str, pool: &str, host: &str| NewVolume {
        name: name.into(),
        size_gib: 1,
        pool: pool.into(),
        host: host.into(),
        ..NewVolume::default()
    };
    let with = |name: &str| Launch { volumes: vec![name.into()], ..request(&format!("with-{name}")) };
    for name in ["one", "two"] {
        assert_eq!(c.services.volumes.create(&c.caller, volume(name, "fast", "")).await.unwrap().host, None);
    }
    // Were its pool not looked at, any of three hosts would do, and the emptiest is another one.
    c.services.instances.launch(&c.caller, request("fills-p3")).await.unwrap();
    assert_eq!(c.services.instances.launch(&c.caller, with("one")).await.unwrap().host, fast);

    let member = Caller { role: cloud_core::model::Role::Admin, ..c.caller.clone() };
    let create = async |caller: &Caller, pool, host| {
        c.services.volumes.create(caller, volume("three", pool, host)).await.unwrap_err()
    };
    assert!(matches!(create(&member, "", "p3").await, CoreError::Denied(_)));
    assert!(matches!(create(&c.caller, "fast", "p1").await, CoreError::Invalid { field: "pool", .. }));
    c.services.hosts.cordon(&c.caller, "p3", "").await.unwrap();
    assert!(matches!(create(&c.caller, "fast", "p3").await, CoreError::Precondition { reason: "HOST_STATE", .. }));
    let error = c.services.instances.launch(&c.caller, with("two")).await.unwrap_err().to_string();
    assert!(error.contains("p1: it has no pool `fast`"), "{error}");
    // A host of which only the storage is known yet takes volumes.
    let bare = HostId::random();
    register_agents(&c.services, &[AgentRole::Storage], ("p4", bare), 0, &["default"]).await;
    let made = c.services.volumes.create(&c.caller, volume("four", "", "p4")).await.unwrap();
    assert_eq!(made.host, Some(bare));
}

/// Takes the host of the other tests out of the way.
async fn say_cordon(c: &Cloud) {
    let view = c.services.hosts.cordon(&c.caller, "h1", "").await.unwrap();
    assert_eq!(view.state, HostState::Cordoned);
    let page = PageRequest { filter: "state=CORDONED".into(), ..PageRequest::default() };
    let listed = c.services.hosts.list(&c.caller, &page).await.unwrap();
    assert_eq!(listed.rows.iter().map(|v| v.row.meta.name.as_str()).collect::<Vec<_>>(), ["h1"]);
    let viewer = Caller { role: cloud_core::model::Role::Admin, ..c.caller.clone() };
    assert!(matches!(c.services.hosts.uncordon(&viewer, "h1", "").await, Err(CoreError::Denied(_))));
    let choose = Launch { placement: Placement { host: "h1".into(), ..Placement::default() }, ..request("chosen") };
    assert!(matches!(c.services.instances.launch(&viewer, choose).await, Err(CoreError::Denied(_))));
}

async fn free(c: &Cloud, made: Vec<Instance>) {
    let mut tx = c.store.begin().await.unwrap();
    for mut row in made {
        row.meta.deleted_at = Some(Timestamp::now());
        tx.update(&mut row).await.unwrap();
        tx.release_capacity(row.host, row.vcpus, row.memory_mib).await.unwrap();
        for mut volume in tx.list::<cloud_core::model::Volume>(&Query::by("instance_id", &row.id())).await.unwrap() {
            volume.meta.deleted_at = Some(Timestamp::now());
            tx.update(&mut volume).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
}

async fn a_removed_host_stays_removed(c: &Cloud, host: HostId, second: &Services<SqlStore>) {
    let view = c.services.hosts.remove(&c.caller, "p2", "").await.unwrap();
    assert_eq!(view.state, HostState::Removed);
    assert!(!c.registry.knows(host));
    let row: Host = c.store.get(*host.as_uuid()).await.unwrap().unwrap();
    assert_eq!((row.mode, row.meta.deleted_at.is_some()), (HostMode::Removed, true));
    let on = Launch { placement: Placement { host: "p2".into(), ..Placement::default() }, ..request("on-p2") };
    assert!(matches!(second.instances.launch(&c.caller, on).await, Err(CoreError::NotFound { .. })));
}
