//! What a caller may ask for. Each call validates, commits its intent with the work it causes in one transaction, and answers; nothing
//! remote happens before the commit, and nothing that can fail after it.

mod api_keys;
mod audit;
mod bootstrap;
mod console;
mod events;
mod hosts;
mod identity;
mod images;
mod instances;
mod key_cache;
mod launch;
mod lookup;
mod page;
mod projects;
mod quotas;
mod registry;
mod volumes;
mod vpcs;

use std::{sync::Arc, time::Duration};

pub use api_keys::{ApiKeyService, NewApiKey};
pub use audit::{AuditService, Refusal};
pub use bootstrap::bootstrap;
pub use console::{ConsoleService, ConsoleTicket};
pub use events::{EventFilter, EventService};
pub use hosts::{HeartbeatInput, HostService, HostView, RegisterInput};
pub use identity::{IdentityService, KeyHash, SECRET_PREFIX, new_secret};
pub use images::{ImageService, NewImage};
pub use instances::InstanceService;
pub use launch::Launch;
pub use page::{Page, PageRequest};
pub use projects::ProjectService;
pub use quotas::{QuotaService, QuotaView};
pub use registry::{AgentHealth, AgentRef, HostRegistry, HostState};
pub use volumes::{NewVolume, VolumeService};
pub use vpcs::{NewSubnet, NewVpc, VpcService};

use crate::{
    model::{Amounts, default_limits},
    ports::{ImageStore, Store},
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
    /// How often each host's guests are compared with what they should be.
    pub sweep_interval: Duration,
    /// The limits of projects that have none of their own; what is not named has none.
    pub quota: Amounts,
    /// How long the work of a gateway that is gone stays its own; it is kept by renewing it at a third of that.
    pub work_lease: Duration,
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
            work_lease: Duration::from_secs(20),
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
    /// Images.
    pub images: ImageService<S>,
    /// VPCs, subnets and ports.
    pub vpcs: VpcService<S>,
    /// Hosts and what their agents say.
    pub hosts: HostService<S>,
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
}

impl<S: Store> Services<S> {
    /// The services over a store.
    pub fn new(store: S, registry: Arc<HostRegistry>, images: Arc<dyn ImageStore>, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let cache = key_cache::KeyCache::new(store.is_exclusive());
        Self {
            instances: InstanceService::new(store.clone(), Arc::clone(&registry), Arc::clone(&settings)),
            console: ConsoleService::new(store.clone(), Arc::clone(&settings)),
            volumes: VolumeService::new(store.clone(), Arc::clone(&settings)),
            images: ImageService::new(store.clone(), images),
            vpcs: VpcService::new(store.clone(), Arc::clone(&settings)),
            hosts: HostService::new(store.clone(), registry, Arc::clone(&settings)),
            identity: IdentityService::new(store.clone(), cache.clone()),
            projects: ProjectService::new(store.clone(), cache.clone()),
            api_keys: ApiKeyService::new(store.clone(), cache),
            quotas: QuotaService::new(store.clone(), settings),
            audit: AuditService::new(store.clone()),
            events: EventService::new(store),
        }
    }
}
