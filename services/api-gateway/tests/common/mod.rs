//! What both databases must do alike.

pub mod certificates;
mod changes;
mod identity;
mod lists;
pub mod places;
mod requests;
mod retention;
mod watch;

use std::{sync::Arc, time::Duration};

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    CoreError,
    model::{
        AgentRole, Caller, Host, HostCapacity, Image, ImageFormat, ImageSource, ImageStatus, Instance, Labels, Meta,
        Pool, Port, Visibility, Volume, Vpc,
    },
    ports::{FetchError, HeldImage, ImageFile, ImageStore, Query, Store, StoreError, Tx, WorkKind},
    services::{
        HeartbeatInput, HostRegistry, Launch, NewSubnet, NewVolume, NewVpc, PageRequest, RegisterInput, Services,
        Settings, bootstrap,
    },
};
use cloud_domain::{HostId, ImageId, SessionId};

struct NoFiles;

#[async_trait::async_trait]
impl ImageStore for NoFiles {
    async fn fetch(
        &self,
        _: ImageId,
        _: &ImageSource,
        _: Option<ImageFormat>,
        _: &str,
    ) -> Result<ImageFile, FetchError> {
        Err(FetchError::Refused("no files here".into()))
    }

    async fn hold(&self, _: ImageId, _: &str, _: u64) -> Result<Option<HeldImage>, FetchError> {
        Ok(None)
    }

    async fn remove(&self, _: ImageId) -> Result<(), FetchError> {
        Ok(())
    }
}

/// A cloud with one host that is UP, an image and an operator.
pub struct Cloud {
    pub store: SqlStore,
    pub services: Services<SqlStore>,
    pub registry: Arc<HostRegistry>,
    pub caller: Caller,
    pub host: HostId,
}

fn over(store: SqlStore, registry: &Arc<HostRegistry>) -> Services<SqlStore> {
    let settings = Settings { stop_wait: Duration::from_millis(300), ..Settings::default() };
    Services::new(store, Arc::clone(registry), Arc::new(NoFiles), settings)
}

/// The services of a gateway that has just started, or of another one.
pub fn services(store: SqlStore) -> Services<SqlStore> {
    over(store, &Arc::new(HostRegistry::new(Duration::from_secs(60))))
}

pub async fn cloud(store: SqlStore) -> Cloud {
    let registry = Arc::new(HostRegistry::new(Duration::from_secs(60)));
    let services = over(store.clone(), &registry);
    bootstrap(&store, "secret").await.unwrap();
    bootstrap(&store, "secret").await.unwrap();
    let caller = services.identity.authenticate("secret", "").await.unwrap();
    let host = HostId::random();
    for role in AgentRole::ALL {
        let capacity = HostCapacity {
            vcpus: 4,
            memory_mib: 512 + 20 * 128,
            architecture: "x86_64".into(),
            pools: vec![Pool {
                name: "default".into(),
                backend: "directory".into(),
                total_bytes: 1 << 40,
                free_bytes: 1 << 40,
            }],
            ..HostCapacity::default()
        };
        services.hosts.register(registration(host, role, capacity)).await.unwrap();
    }
    let image = Image {
        meta: Meta::new(*ImageId::random().as_uuid(), caller.project, "default", "tiny", Labels::new()),
        visibility: Visibility::Public,
        status: ImageStatus::Ready,
        status_reason: String::new(),
        source: ImageSource::Upload,
        format: Some(ImageFormat::Qcow2),
        sha256: "00".repeat(32),
        size_bytes: 1,
        virtual_size_bytes: 1 << 20,
        architecture: "x86_64".into(),
    };
    let mut tx = store.begin().await.unwrap();
    tx.insert(&image).await.unwrap();
    tx.commit().await.unwrap();
    Cloud { store, services, registry, caller, host }
}

/// An agent of the host `h1` announces itself.
fn registration(host: HostId, role: AgentRole, capacity: HostCapacity) -> RegisterInput {
    RegisterInput {
        host,
        host_name: "h1".into(),
        role,
        session: SessionId::random(),
        endpoint: "unix:/nowhere".into(),
        version: "0.1.0".into(),
        boot_id: "boot".into(),
        capacity,
    }
}

pub fn request(name: &str) -> Launch {
    Launch { name: name.into(), image: "tiny".into(), instance_type: "tiny".into(), ..Launch::default() }
}

/// Everything below, one after another, on one database.
pub async fn all(store: SqlStore) {
    let c = cloud(store).await;
    a_launch_claims_everything_or_nothing(&c).await;
    capacity_is_never_promised_twice(&c).await;
    addresses_are_unique_and_found_when_few_are_left(&c).await;
    stale_writes_lose(&c).await;
    work_is_leased_and_new_intent_is_not_lost(&c).await;
    pages_are_stable(&c).await;
    names_come_free_with_deletion(&c).await;
    networks_are_checked(&c).await;
    hosts_are_told_where_tunnels_end_now(&c).await;
    events_are_numbered_in_order(&c).await;
    keys_open_their_project_only(&c).await;
    a_stop_that_nobody_carries_out_ends_in_a_deadline(&c).await;
    changes::all(&c).await;
    identity::all(&c).await;
    requests::all(&c).await;
    lists::all(&c).await;
    watch::all(&c).await;
    retention::all(&c).await;
}

async fn a_launch_claims_everything_or_nothing(c: &Cloud) {
    let made = c.services.instances.launch(&c.caller, request("web-01")).await.unwrap();
    assert_eq!(made.status.as_str(), "STARTING");
    assert_eq!(made.nics[0].ip.to_string(), "10.0.0.2");
    let ports: Vec<Port> = c.store.list(&Query::by("instance_id", &made.id())).await.unwrap();
    let volumes: Vec<Volume> = c.store.list(&Query::by("instance_id", &made.id())).await.unwrap();
    assert_eq!((ports.len(), volumes.len()), (1, 1));
    assert_eq!(c.store.capacity_used(c.host).await.unwrap(), (1, 128));

    let count = |kind| async move { c.store.list::<Instance>(&kind).await.unwrap().len() };
    let before = count(Query::default()).await;
    let refused: [(Launch, &str); 9] = [
        (request("web-01"), "already"),
        (request("Web"), "`name`"),
        (Launch { image: "nope".into(), ..request("a") }, "no image `nope`"),
        (Launch { instance_type: "nope".into(), ..request("a") }, "no instance type `nope`"),
        (Launch { vpc: "nope".into(), ..request("a") }, "no vpc `nope`"),
        (Launch { subnet: "nope".into(), ..request("a") }, "no subnet `nope`"),
        (Launch { volumes: vec!["nope".into()], ..request("a") }, "no volume `nope`"),
        (Launch { ssh_keys: vec!["rubbish".into()], ..request("a") }, "ssh_keys"),
        (Launch { instance_type: "xlarge".into(), ..request("a") }, "no host for type `xlarge`: h1: fewer than"),
    ];
    for (launch, part) in refused {
        let error = c.services.instances.launch(&c.caller, launch).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error} should say {part}");
    }
    assert_eq!(count(Query::default()).await, before);
    assert_eq!(c.store.capacity_used(c.host).await.unwrap(), (1, 128));
}

async fn capacity_is_never_promised_twice(c: &Cloud) {
    // Room for 20 in all, one is taken: of 32 at once exactly 19 are placed.
    let launches = (0..32).map(|i| {
        let (instances, caller) = (c.services.instances.clone(), c.caller.clone());
        tokio::spawn(async move { instances.launch(&caller, request(&format!("many-{i}"))).await })
    });
    let mut made = Vec::new();
    let mut full = 0;
    for launch in futures::future::join_all(launches).await {
        match launch.unwrap() {
            Ok(row) => made.push(row),
            Err(CoreError::Exhausted { .. }) => full += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((made.len(), full), (19, 13));
    assert_eq!(c.store.capacity_used(c.host).await.unwrap(), (20, 20 * 128));
    let mut ips: Vec<_> = made.iter().map(|i| i.nics[0].ip).collect();
    ips.sort();
    ips.dedup();
    assert_eq!(ips.len(), 19);
    let mut tx = c.store.begin().await.unwrap();
    for mut row in made {
        row.meta.deleted_at = Some(row.meta.created_at);
        tx.update(&mut row).await.unwrap();
        tx.release_capacity(c.host, row.vcpus, row.memory_mib).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn addresses_are_unique_and_found_when_few_are_left(c: &Cloud) {
    let new = NewVpc { name: "narrow".into(), cidr: "10.9.0.0/29".into(), ..NewVpc::default() };
    c.services.vpcs.create(&c.caller, new).await.unwrap();
    let mut ips = Vec::new();
    for i in 0..5 {
        let launch = Launch { vpc: "narrow".into(), ..request(&format!("narrow-{i}")) };
        ips.push(c.services.instances.launch(&c.caller, launch).await.unwrap().nics[0].ip.to_string());
    }
    ips.sort();
    assert_eq!(ips, ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"]);
    let launch = Launch { vpc: "narrow".into(), ..request("narrow-5") };
    let error = c.services.instances.launch(&c.caller, launch).await.unwrap_err();
    assert!(error.to_string().contains("has no free address"), "{error}");
}

async fn stale_writes_lose(c: &Cloud) {
    let row: Instance = c.services.instances.get(&c.caller, "web-01").await.unwrap();
    let (mut first, mut second) = (row.clone(), row);
    let mut tx = c.store.begin().await.unwrap();
    tx.update(&mut first).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = c.store.begin().await.unwrap();
    assert!(matches!(tx.update(&mut second).await, Err(StoreError::Stale)));
    drop(tx);
    let error = c.services.instances.delete(&c.caller, "web-01", "1").await.unwrap_err();
    assert!(matches!(error, CoreError::StaleEtag { .. }), "{error}");
}

async fn work_is_leased_and_new_intent_is_not_lost(c: &Cloud) {
    let lease = Duration::from_secs(60);
    let mut items = c.store.claim_work(1000, lease).await.unwrap();
    assert!(items.iter().any(|i| i.kind == WorkKind::Instance));
    // A refused call's rollback may still hold a row, which is passed over then; what is leased is not claimed again.
    for _ in 0..100 {
        for more in c.store.claim_work(1000, lease).await.unwrap() {
            assert!(!items.iter().any(|i| (i.kind, i.id) == (more.kind, more.id)), "{more:?} is claimed twice");
            items.push(more);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let item = items.iter().find(|i| i.kind == WorkKind::Instance).unwrap();
    let mut tx = c.store.begin().await.unwrap();
    tx.guard(item).await.unwrap();
    tx.enqueue(WorkKind::Instance, item.id).await.unwrap();
    tx.commit().await.unwrap();
    c.store.finish_work(item, None, None).await.unwrap();
    let again = c.store.claim_work(1000, lease).await.unwrap();
    assert_eq!(again.iter().map(|i| i.id).collect::<Vec<_>>(), [item.id], "intent written meanwhile stays due");
    let mut tx = c.store.begin().await.unwrap();
    assert!(matches!(tx.guard(item).await, Err(StoreError::Stale)), "the old lease is worth nothing");
    drop(tx);
    assert!(matches!(c.store.renew_lease(item, lease).await, Err(StoreError::Stale)));
    c.store.finish_work(&again[0], Some(Duration::from_secs(3600)), Some("later")).await.unwrap();
    let (next, _, _) = c.store.work_status().await.unwrap();
    assert!(next.is_some_and(|d| d > Duration::from_secs(3000)));
    for item in &items {
        let _ = c.store.finish_work(item, None, None).await;
    }
}

async fn pages_are_stable(c: &Cloud) {
    let mut seen = Vec::new();
    let mut page = PageRequest { size: 2, ..PageRequest::default() };
    loop {
        let found = c.services.instances.list(&c.caller, &page).await.unwrap();
        assert!(found.rows.len() <= 2);
        seen.extend(found.rows.into_iter().map(|r| r.meta.name));
        if found.next.is_empty() {
            break;
        }
        page.token = found.next;
    }
    assert_eq!(seen, ["web-01", "narrow-0", "narrow-1", "narrow-2", "narrow-3", "narrow-4"]);
    page.token = "rubbish".into();
    assert!(matches!(
        c.services.instances.list(&c.caller, &page).await,
        Err(CoreError::Invalid { field: "page_token", .. })
    ));
}

async fn names_come_free_with_deletion(c: &Cloud) {
    let new = || NewVolume { name: "data".into(), size_gib: 1, ..NewVolume::default() };
    let first = c.services.volumes.create(&c.caller, new()).await.unwrap();
    let error = c.services.volumes.create(&c.caller, new()).await.unwrap_err();
    assert!(matches!(error, CoreError::AlreadyExists { .. }), "{error}");
    let mut tx = c.store.begin().await.unwrap();
    let mut row: Volume = tx.get(first.meta.id).await.unwrap().unwrap();
    row.meta.deleted_at = Some(row.meta.created_at);
    tx.update(&mut row).await.unwrap();
    tx.commit().await.unwrap();
    let second = c.services.volumes.create(&c.caller, new()).await.unwrap();
    assert_ne!(first.meta.id, second.meta.id);
    assert_eq!(c.services.volumes.get(&c.caller, "data").await.unwrap().meta.id, second.meta.id);
    assert_eq!(c.services.volumes.get(&c.caller, &first.meta.id.to_string()).await.unwrap().meta.id, first.meta.id);
}

async fn networks_are_checked(c: &Cloud) {
    let vpcs = &c.services.vpcs;
    let vpc = vpcs.create(&c.caller, NewVpc { name: "net".into(), ..NewVpc::default() }).await.unwrap();
    let subnet = |name: &str, cidr: &str| NewSubnet {
        vpc: "net".into(),
        name: name.into(),
        cidr: cidr.into(),
        ..NewSubnet::default()
    };
    for (cidr, part) in
        [("10.1.0.0/24", "not within"), ("10.0.0.128/25", "overlaps"), ("rubbish", "not an IPv4 network")]
    {
        let error = vpcs.create_subnet(&c.caller, subnet("second", cidr)).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    vpcs.create_subnet(&c.caller, subnet("second", "10.0.1.0/24")).await.unwrap();
    let launch = Launch { vpc: "net".into(), subnet: "second".into(), ..request("in-second") };
    let made = c.services.instances.launch(&c.caller, launch).await.unwrap();
    assert_eq!(made.nics[0].ip.to_string(), "10.0.1.2");
    let snapshot = c.store.vpc_snapshot(vpc.id()).await.unwrap().unwrap();
    assert_eq!((snapshot.subnets.len(), snapshot.ports.len()), (2, 1));
    let error = vpcs.delete(&c.caller, "net", "").await.unwrap_err().to_string();
    assert!(error.contains("has ports"), "{error}");
    let error = vpcs.delete(&c.caller, "default", "").await.unwrap_err().to_string();
    assert!(error.contains("default"), "{error}");
}

async fn hosts_are_told_where_tunnels_end_now(c: &Cloud) {
    let vpc: Vpc = c.store.find(c.caller.project, "net").await.unwrap().unwrap();
    let snapshot = async || c.store.vpc_snapshot(vpc.id()).await.unwrap().unwrap();
    let first = snapshot().await;
    assert!(first.tunnels.is_empty(), "a host that has not said");
    let at = |address: &str| HostCapacity { tunnel_address: address.into(), ..HostCapacity::default() };
    let input = registration(c.host, AgentRole::Network, at("192.0.2.1"));
    let session = input.session;
    for _ in 0..2 {
        c.services.hosts.register(input.clone()).await.unwrap();
        let said = snapshot().await;
        assert_eq!(said.tunnels.get(&c.host).map(String::as_str), Some("192.0.2.1"));
        assert_eq!(said.generation, first.generation + 1, "once, not each time that it registers");
    }
    let alive = HeartbeatInput {
        host: c.host,
        role: AgentRole::Network,
        session,
        capacity: at("192.0.2.2"),
        backend_error: String::new(),
    };
    assert!(!c.services.hosts.heartbeat(alive).await.unwrap());
    let moved = snapshot().await;
    assert_eq!(moved.tunnels.get(&c.host).map(String::as_str), Some("192.0.2.2"));
    assert_eq!(moved.generation, first.generation + 2);
}

async fn events_are_numbered_in_order(c: &Cloud) {
    let events = c.store.events(Some(c.caller.project), None, None, None, 500).await.unwrap();
    assert!(events.windows(2).all(|w| w[0].revision > w[1].revision));
    assert!(events.iter().any(|e| e.action == "instance.launch" && e.actor == "admin"));
    let only = c.store.events(Some(c.caller.project), Some("vpc"), None, None, 500).await.unwrap();
    assert!(!only.is_empty() && only.iter().all(|e| e.kind == "vpc"));
}

async fn keys_open_their_project_only(c: &Cloud) {
    let error = c.services.identity.authenticate("wrong", "").await.unwrap_err();
    assert!(matches!(error, CoreError::Unauthenticated(_)));
    let error = c.services.identity.authenticate("secret", "nowhere").await.unwrap_err();
    assert!(matches!(error, CoreError::NotFound { .. }));
    let other = Caller { project: cloud_domain::ProjectId::random(), ..c.caller.clone() };
    let error = c.services.instances.get(&other, "web-01").await.unwrap_err();
    assert!(matches!(error, CoreError::NotFound { .. }), "another project's instance does not exist");
}

async fn a_stop_that_nobody_carries_out_ends_in_a_deadline(c: &Cloud) {
    let error = c.services.instances.stop(&c.caller, "web-01", "").await.unwrap_err();
    assert!(matches!(error, CoreError::Deadline(_)), "{error}");
    assert_eq!(c.services.instances.get(&c.caller, "web-01").await.unwrap().status.as_str(), "STOPPING");
    let host: Host = c.store.get(*c.host.as_uuid()).await.unwrap().unwrap();
    assert_eq!(host.meta.name, "h1");
    assert!(c.registry.is_up(c.host));
}
