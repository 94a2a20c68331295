//! What a caller may ask for. Each call validates, commits its intent with the work it causes in one transaction, and answers; nothing
//! remote happens before the commit, and nothing that can fail after it.

mod adoption;
mod api_keys;
mod attachments;
mod audit;
mod bootstrap;
mod console;
mod events;
mod explain;
mod hosts;
mod identity;
mod images;
mod instances;
mod inventories;
mod joins;
mod key_cache;
mod launch;
mod lookup;
mod orphans;
mod page;
mod placement;
mod projects;
mod quotas;
mod registry;
mod requests;
mod snapshots;
mod strangers;
mod tunnels;
mod volumes;
mod vpcs;
mod watch;

use std::{sync::Arc, time::Duration};

pub use api_keys::{ApiKeyService, NewApiKey};
pub use audit::{AuditService, Refusal};
pub use bootstrap::bootstrap;
pub(crate) use bootstrap::is_of_the_file;
pub use console::{ConsoleService, ConsoleTicket};
pub use events::{EventFilter, EventService};
pub use explain::Explanation;
pub use hosts::{HeartbeatInput, HostChange, HostService, HostView, RegisterInput};
pub(crate) use hosts::{declare_dead, wake_all};
pub use identity::{IdentityService, KeyHash, SECRET_PREFIX, new_secret};
pub use images::{ImageService, NewImage};
pub use instances::InstanceService;
pub use inventories::Inventories;
pub use joins::{JoinInput, JoinService, JoinSettings, Joined, NewJoinToken, revoke_certificates};
pub use launch::Launch;
pub use orphans::{Adoption, OrphanService};
pub use page::{Page, PageRequest};
pub use placement::{Placement, Strategy};
pub use projects::ProjectService;
pub use quotas::{QuotaService, QuotaView};
pub use registry::{AgentHealth, AgentRef, Facts, HostRegistry, HostState};
pub use requests::{Known, RequestService};
pub use snapshots::{NewSnapshot, SnapshotService};
pub use strangers::Strangers;
pub use volumes::{NewVolume, VolumeChange, VolumeService};
pub use vpcs::{NewSubnet, NewVpc, VpcService};
pub use watch::{ChangeKind, Told, Watch, WatchRequest, WatchService};

use crate::{
    model::{Amounts, default_limits},
    ports::{ImageStore, NoAuthority, Store},
};

/// What operators can set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long an instance may be STARTING.
    pub start_timeout: Duration,
    /// How long a guest may take to shut down before it is powered off.
    pub stop_grace: Duration,
    /// How long a stop call waits.
    pub stop_wait: Duration,
    /// Virtual processors promised per thread of a host.
    pub cpu_overcommit: f64,
    /// Memory of a host that is not promised, in MiB.
    pub memory_reserve_mib: u64,
    /// How often agents send a heartbeat.
    pub heartbeat_interval: Duration,
    /// How long without one until a host is UNREACHABLE.
    pub heartbeat_timeout: Duration,
    /// How long a console URL works.
    pub console_ttl: Duration,
    /// Bytes a guest may send in one packet: 1,500 less Geneve's 50 (RFC 8926).
    pub mtu: u32,
    /// How long an import may take.
    pub import_timeout: Duration,
    /// How often what each host has is compared with what it shall have.
    pub sweep_interval: Duration,
    /// The limits of projects that have none of their own; what is not named has none.
    pub quota: Amounts,
    /// How long request ids are remembered.
    pub keep_requests: Duration,
    /// How long what is deleted can still be looked at.
    pub keep_deleted: Duration,
    /// How long events are kept.
    pub keep_events: Duration,
    /// How often what was kept long enough is purged.
    pub purge_interval: Duration,
    /// Watches that one API key may have open at a gateway.
    pub watches_per_key: usize,
    /// Batches of changes that wait for a watcher at most; one that falls further behind is disconnected.
    pub watch_buffer: usize,
    /// How often the rows and counters of the database are compared with each other.
    pub audit_interval: Duration,
    /// How long deletions are remembered.
    pub tombstone_retention: Duration,
    /// How long the work of a gateway that is gone stays its own; it is kept by renewing it at a third of that.
    pub work_lease: Duration,
    /// How hosts that pass every filter are ordered.
    pub placement: Strategy,
    /// How long a host must be silent before the fence command is run, where there is one.
    pub fence_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(600),
            stop_grace: Duration::from_secs(30),
            stop_wait: Duration::from_secs(60),
            cpu_overcommit: 8.0,
            memory_reserve_mib: 512,
            heartbeat_interval: Duration::from_secs(2),
            heartbeat_timeout: Duration::from_secs(10),
            console_ttl: Duration::from_secs(600),
            mtu: 1450,
            import_timeout: Duration::from_secs(3600),
            sweep_interval: Duration::from_secs(30),
            quota: default_limits(),
            keep_requests: Duration::from_secs(24 * 3600),
            keep_deleted: Duration::from_secs(30 * 24 * 3600),
            keep_events: Duration::from_secs(90 * 24 * 3600),
            purge_interval: Duration::from_secs(600),
            watches_per_key: 100,
            watch_buffer: 1024,
            audit_interval: Duration::from_secs(600),
            tombstone_retention: Duration::from_secs(365 * 24 * 3600),
            work_lease: Duration::from_secs(20),
            placement: Strategy::default(),
            fence_after: Duration::from_secs(60),
        }
    }
}

/// Every service, over one store.
#[derive(Clone)]
pub struct Services<S> {
    /// Instances and their types.
    pub instances: InstanceService<S>,
    /// Consoles.
    pub console: ConsoleService<S>,
    /// Volumes.
    pub volumes: VolumeService<S>,
    /// Snapshots.
    pub snapshots: SnapshotService<S>,
    /// Images.
    pub images: ImageService<S>,
    /// VPCs, subnets and ports.
    pub vpcs: VpcService<S>,
    /// Hosts and what their agents say.
    pub hosts: HostService<S>,
    /// What hosts have that no row knows.
    pub orphans: OrphanService<S>,
    /// Who holds a key.
    pub identity: IdentityService<S>,
    /// Projects.
    pub projects: ProjectService<S>,
    /// API keys.
    pub api_keys: ApiKeyService<S>,
    /// Limits of projects.
    pub quotas: QuotaService<S>,
    /// Refusals.
    pub audit: AuditService<S>,
    /// Events.
    pub events: EventService<S>,
    /// Request ids.
    pub requests: RequestService<S>,
    /// Watching all of them.
    pub watch: WatchService<S>,
    /// Joining.
    pub joins: JoinService<S>,
}

impl<S: Store> Services<S> {
    /// The services over a store.
    pub fn new(store: S, registry: Arc<HostRegistry>, images: Arc<dyn ImageStore>, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let cache = key_cache::KeyCache::new(store.is_exclusive());
        let images = ImageService::new(store.clone(), images);
        let vpcs = VpcService::new(store.clone(), Arc::clone(&settings));
        let hosts = HostService::new(store.clone(), Arc::clone(&registry), Arc::clone(&settings));
        let projects = ProjectService::new(store.clone(), cache.clone());
        let watch = WatchService::new(
            store.clone(),
            Arc::clone(&registry),
            &settings,
            images.clone(),
            vpcs.clone(),
            projects.clone(),
            hosts.clone(),
        );
        let joins =
            JoinService::new(store.clone(), Arc::clone(&registry), Arc::new(NoAuthority), JoinSettings::default());
        Self {
            watch,
            joins,
            instances: InstanceService::new(store.clone(), Arc::clone(&registry), Arc::clone(&settings)),
            console: ConsoleService::new(store.clone(), Arc::clone(&settings)),
            volumes: VolumeService::new(store.clone(), Arc::clone(&registry), Arc::clone(&settings)),
            snapshots: SnapshotService::new(store.clone(), Arc::clone(&settings)),
            requests: RequestService::new(store.clone(), &settings),
            images,
            vpcs,
            hosts,
            orphans: OrphanService::new(store.clone(), registry, Arc::clone(&settings)),
            identity: IdentityService::new(store.clone(), cache.clone()),
            projects,
            api_keys: ApiKeyService::new(store.clone(), cache),
            quotas: QuotaService::new(store.clone(), settings),
            audit: AuditService::new(store.clone()),
            events: EventService::new(store),
        }
    }
}
