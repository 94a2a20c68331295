//! A gateway over a database of its own and one fake host, that can be killed and started again.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{sync::Arc, time::Duration};

use cloud_api_gateway::adapters::sql::{OpenError, SqlStore};
use cloud_core::{
    CoreError,
    model::{
        AgentRole, Amounts, Caller, HostCapacity, Image, ImageFormat, ImageSource, ImageStatus, Instance, Labels,
        Limited, Meta, Pool, Port, Snapshot, Visibility, Volume, Vpc, held_by_instance, held_by_snapshot,
        held_by_volume,
    },
    ports::{Query, Store, Tx},
    reconcile::{Backends, Workers},
    services::{HeartbeatInput, HostRegistry, HostView, Launch, RegisterInput, Services, Settings, bootstrap},
};
use cloud_domain::{HostId, ImageId, InstanceStatus, SessionId};
use rand::Rng;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    faulty::FaultyStore,
    host::{FakeHost, State},
};

/// How long anything may take. Shorter than the sweep, so that what only the sweep finds is found missing.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Gateway {
    pub store: SqlStore,
    pub services: Services<SqlStore>,
    pub caller: Caller,
    workers: JoinHandle<()>,
    sessions: Vec<(AgentRole, SessionId)>,
}

pub struct Cloud {
    dir: tempfile::TempDir,
    postgres: Option<String>,
    pub host: Arc<FakeHost>,
    pub host_id: HostId,
    pub settings: Settings,
    gateway: Option<Gateway>,
    pub kills: usize,
    /// How often the gateway is killed at some moment, whatever it does.
    pub murders: usize,
}

fn capacity() -> HostCapacity {
    HostCapacity {
        vcpus: 4,
        memory_mib: 512 + 20 * 128,
        architecture: "x86_64".into(),
        pools: pools(),
        ..HostCapacity::default()
    }
}

/// One with plenty of room.
pub fn pools() -> Vec<Pool> {
    vec![Pool { name: "default".into(), backend: "directory".into(), total_bytes: 1 << 40, free_bytes: 1 << 40 }]
}

/// Waits until it holds.
pub async fn wait(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not seen that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The three agents of a host register.
pub async fn register(
    services: &Services<SqlStore>,
    host: HostId,
    name: &str,
    capacity: HostCapacity,
) -> Vec<(AgentRole, SessionId)> {
    let mut sessions = Vec::new();
    for role in AgentRole::ALL {
        let session = SessionId::random();
        sessions.push((role, session));
        let input = RegisterInput {
            host,
            host_name: name.into(),
            role,
            session,
            endpoint: "unix:/nowhere".into(),
            version: "0.1.0".into(),
            boot_id: "boot".into(),
            capacity: capacity.clone(),
        };
        services.hosts.register(input).await.unwrap();
    }
    sessions
}

impl Cloud {
    pub async fn new() -> Self {
        // Nobody sends heartbeats here.
        Self::with(Settings { heartbeat_timeout: PATIENCE * 10, ..Settings::default() }).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::on(None, settings).await
    }

    /// On a PostgreSQL database, or on a SQLite file.
    pub async fn on(postgres: Option<String>, settings: Settings) -> Self {
        let settings = Settings {
            stop_wait: Duration::from_millis(1),
            stop_grace: Duration::from_millis(300),
            // After an inventory that was asked for, the next comes at any moment of it.
            sweep_interval: settings.sweep_interval.max(PATIENCE * 1000),
            // What was claimed and never heard of again is nobody's for as long as this.
            work_lease: Duration::from_secs(1),
            ..settings
        };
        let dir = tempfile::tempdir().unwrap();
        let host = FakeHost::new();
        let mut cloud =
            Self { dir, postgres, host, host_id: HostId::random(), settings, gateway: None, kills: 0, murders: 0 };
        cloud.start().await;
        let image = Image {
            meta: Meta::new(*ImageId::random().as_uuid(), cloud.caller().project, "default", "tiny", Labels::new()),
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
        let mut tx = cloud.store().begin().await.unwrap();
        tx.insert(&image).await.unwrap();
        tx.commit().await.unwrap();
        cloud
    }

    async fn open(&self) -> SqlStore {
        let file = || format!("sqlite:{}", self.dir.path().join("gateway.db").display());
        let url = self.postgres.clone().unwrap_or_else(file);
        let opened = async {
            loop {
                match SqlStore::open(&url).await {
                    // What was killed lets go when its last task has been dropped.
                    Err(OpenError::Locked(_)) => tokio::task::yield_now().await,
                    opened => return opened.unwrap(),
                }
            }
        };
        tokio::time::timeout(PATIENCE, opened).await.expect("the killed gateway still has the database")
    }

    pub async fn start(&mut self) {
        let store = self.open().await;
        let registry = Arc::new(HostRegistry::new(self.settings.heartbeat_timeout));
        let services = Services::new(store.clone(), Arc::clone(&registry), self.host.clone(), self.settings.clone());
        bootstrap(&store, "secret").await.unwrap();
        services.hosts.load().await.unwrap();
        let caller = services.identity.authenticate("secret", "").await.unwrap();
        let off = self.host.state().off;
        let sessions = if off { Vec::new() } else { register(&services, self.host_id, "h1", capacity()).await };
        let workers = self.work(&store, registry);
        self.gateway = Some(Gateway { store, services, caller, workers, sessions });
    }

    fn work(&self, store: &SqlStore, registry: Arc<HostRegistry>) -> JoinHandle<()> {
        let host = &self.host;
        let backends = Backends {
            compute: host.clone(),
            storage: host.clone(),
            network: host.clone(),
            images: host.clone(),
            fencer: Some(host.clone()),
        };
        let store = FaultyStore::new(store.clone(), host.clone());
        let workers = Workers::new(store, registry, backends, self.settings.clone());
        tokio::spawn(workers.run(CancellationToken::new()))
    }

    /// Another gateway on the same database.
    pub async fn another(&self) -> (Services<SqlStore>, AbortOnDropHandle<()>) {
        let store = self.open().await;
        let registry = Arc::new(HostRegistry::new(self.settings.heartbeat_timeout));
        let services = Services::new(store.clone(), Arc::clone(&registry), self.host.clone(), self.settings.clone());
        services.hosts.load().await.unwrap();
        (services, AbortOnDropHandle::new(self.work(&store, registry)))
    }

    /// The gateway is gone between two instructions.
    pub async fn kill(&mut self) {
        let gateway = self.gateway.take().unwrap();
        gateway.workers.abort();
        assert!(gateway.workers.await.unwrap_err().is_cancelled());
        drop((gateway.store, gateway.services));
        self.kills += 1;
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    pub fn store(&self) -> &SqlStore {
        &self.gateway().store
    }

    pub fn services(&self) -> &Services<SqlStore> {
        &self.gateway().services
    }

    pub fn caller(&self) -> &Caller {
        &self.gateway().caller
    }

    pub async fn launch(&self, name: &str, volumes: &[&str]) -> Instance {
        let launch = Launch {
            name: name.into(),
            image: "tiny".into(),
            instance_type: "tiny".into(),
            volumes: volumes.iter().map(ToString::to_string).collect(),
            ..Launch::default()
        };
        self.services().instances.launch(self.caller(), launch).await.unwrap()
    }

    /// Orders a stop; it is not waited for.
    pub async fn stop(&self, id: &str) {
        match self.services().instances.stop(self.caller(), id, "").await {
            Ok(_) | Err(CoreError::Deadline(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    pub async fn row(&self, id: &Instance) -> Instance {
        self.store().get(id.meta.id).await.unwrap().unwrap()
    }

    /// The agents of the host were started anew.
    pub async fn register_again(&mut self) {
        let host = self.host_id;
        let gateway = self.gateway.as_mut().unwrap();
        gateway.sessions = register(&gateway.services, host, "h1", capacity()).await;
    }

    /// The agents were started anew, and the gateway has looked at what they have.
    pub async fn look_again(&mut self) {
        let before = cloud_core::model::Timestamp::now();
        self.register_again().await;
        wait("the host's inventory is taken", async || self.view().await.inventoried_at.is_some_and(|at| at >= before))
            .await;
    }

    /// The host as operators see it.
    pub async fn view(&self) -> HostView {
        self.services().hosts.get(self.caller(), "h1").await.unwrap()
    }

    /// Waits until nothing is due, and nothing comes of what was.
    pub async fn quiet(&self) {
        let mut calm = 0;
        wait("all is quiet", async || {
            let (_, due, _) = self.store().work_status().await.unwrap();
            calm = if due == 0 { calm + 1 } else { 0 };
            calm > 10
        })
        .await;
    }

    /// Waits until the host is as `done` says.
    pub async fn until(&self, what: &str, done: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.host.state()) {
            assert!(Instant::now() < deadline, "not seen that {what}: {:?}", self.host.state());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// All agents give a sign of life.
    pub async fn heartbeat(&self) {
        for (role, session) in &self.gateway().sessions {
            let input = HeartbeatInput {
                host: self.host_id,
                role: *role,
                session: *session,
                capacity: capacity(),
                backend_error: String::new(),
            };
            assert!(!self.services().hosts.heartbeat(input).await.unwrap(), "the session is known");
        }
    }

    /// Waits until the instance is as `done` says, and nothing is under way. A gateway that is killed meanwhile is started again.
    pub async fn settled(&mut self, id: &Instance, what: &str, done: impl Fn(&Instance) -> bool) -> Instance {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let commits = self.commits();
            let row = self.row(id).await;
            if done(&row) && self.is_quiet().await {
                return row;
            }
            self.pause(commits, deadline, &format!("not {what}: {row:?}")).await;
        }
    }

    /// Waits until the database is as `done` says, and nothing is under way. A gateway that is killed meanwhile is started again.
    pub async fn reaches<F>(&mut self, what: &str, done: impl Fn(SqlStore) -> F)
    where
        F: Future<Output = bool>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let commits = self.commits();
            if done(self.store().clone()).await && self.is_quiet().await {
                return;
            }
            self.pause(commits, deadline, &format!("not {what}")).await;
        }
    }

    fn commits(&self) -> watch::Receiver<u64> {
        let mut commits = self.store().commits();
        commits.mark_unchanged();
        commits
    }

    async fn is_quiet(&self) -> bool {
        self.store().work_status().await.unwrap().1 == 0
    }

    /// Until something is committed, or a while. A gateway that is killed meanwhile is started again.
    async fn pause(&mut self, mut commits: watch::Receiver<u64>, deadline: Instant, why: &str) {
        if self.settings.heartbeat_timeout < PATIENCE && !self.host.state().off {
            self.heartbeat().await;
        }
        let next_kill = Duration::from_micros(rand::rng().random_range(0..30_000));
        let killed = tokio::select! {
            () = self.host.kill.notified() => true,
            _ = commits.changed() => false,
            () = tokio::time::sleep(Duration::from_millis(50)) => false,
            () = tokio::time::sleep(next_kill), if self.kills < self.murders => true,
        };
        drop(commits);
        if killed {
            self.kill().await;
            self.start().await;
        }
        assert!(Instant::now() < deadline, "{why}; {:?}", self.host.state());
    }

    pub async fn becomes(&mut self, id: &Instance, status: InstanceStatus) -> Instance {
        self.settled(id, status.as_str(), |row| row.status == status).await
    }

    /// The host has what the database says, no more and no less, and nothing happened that must not.
    pub async fn check(&self) {
        let rows: Vec<Instance> = self.store().list(&Query::default()).await.unwrap();
        let volumes: Vec<Volume> = self.store().list(&Query::default()).await.unwrap();
        let ports: Vec<Port> = self.store().list(&Query::default()).await.unwrap();
        let mut held: Amounts = Limited::ALL.into_iter().map(|of| (of, 0)).collect();
        let mut add = |more: Amounts| more.into_iter().for_each(|(of, n)| *held.get_mut(&of).unwrap() += n);
        rows.iter().for_each(|row| add(held_by_instance(row)));
        volumes.iter().for_each(|row| add(held_by_volume(row)));
        let snapshots: Vec<Snapshot> = self.store().list(&Query::default()).await.unwrap();
        snapshots.iter().for_each(|row| add(held_by_snapshot(row)));
        let vpcs = self.store().list::<Vpc>(&Query::default()).await.unwrap().len() as u64;
        add(Amounts::from([(Limited::Vpcs, vpcs)]));
        let quota = self.store().quota(self.caller().project).await.unwrap().unwrap();
        assert_eq!(quota.used, held, "quota");
        let used = self.store().capacity_used(self.host_id).await.unwrap();
        let state = self.host.state();
        assert_eq!(state.violations, Vec::<String>::new());
        let holding = rows.iter().filter(|r| r.holds_capacity);
        let promised = holding.fold((0, 0), |(v, m), r| (v + u64::from(r.vcpus), m + u64::from(r.memory_mib)));
        assert_eq!(used, promised, "capacity");
        for id in state.domains.keys() {
            let row = rows.iter().find(|r| r.id() == *id);
            assert!(row.is_some_and(|r| r.holds_capacity), "guest {id} was left");
        }
        for row in rows.iter().filter(|row| row.status == InstanceStatus::Running) {
            let Some(domain) = state.domains.get(&row.id()) else { continue };
            for disk in row.disks.iter().filter(|disk| disk.change.is_none()) {
                let volume = volumes.iter().find(|volume| volume.id() == disk.volume);
                assert!(volume.is_some_and(|volume| volume.limits == disk.limits), "limits of {disk:?}: {volume:?}");
                let has = domain.limits.get(&disk.volume).copied().unwrap_or_default();
                assert_eq!(has, disk.limits.of_disk(), "limits of {disk:?}");
            }
        }
        for id in state.volumes.keys() {
            assert!(volumes.iter().any(|v| v.id() == *id && v.host.is_some()), "volume {id} was left");
        }
        for id in state.snapshots.keys() {
            assert!(snapshots.iter().any(|s| s.id() == *id), "snapshot {id} was left");
        }
        for id in state.vpcs.values().flat_map(|(_, ports)| ports) {
            assert!(ports.iter().any(|p| p.id() == *id), "port {id} was left");
        }
    }
}
