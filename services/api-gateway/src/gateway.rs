//! The gateway, put together: store, services, workers, and its two listeners.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, middleware};
use cloud_contracts::agent::host_service_server::{self, HostServiceServer};
use cloud_core::{
    CoreError,
    model::Image,
    ports::{Fencer, Store},
    reconcile::{Backends, Workers},
    retention::{Purged, Retention},
    services::{HostRegistry, JoinService, Services, Settings, bootstrap},
};
use cloud_domain::CloudId;
use cloud_service_kit::{
    Address,
    context::{self, RequestContext},
    error,
    health::Readiness,
    layers,
    listen::{BindPolicy, ListenError, Listener},
    metrics::Metrics,
    server::{self, ServeError, ServerOptions, TlsError},
    service,
    tls::CredentialError,
};
use futures::{FutureExt as _, future::BoxFuture};
use prometheus::{IntCounterVec, Opts};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::Instrument as _;

use crate::{
    adapters::{
        agents::Agents,
        images::{ImageFiles, ImageOptions},
        pki::{OwnError, PkiError},
        sql::{OpenError, SqlStore},
    },
    admin_key::{self, KeyError},
    certificates::{Certificates, PublicTls},
    config::Config,
    handlers::{AgentHosts, certified},
    http::{PublicApi, RouterError},
};

/// The component of readiness that follows the database.
const DATABASE: &str = "database";
/// How often the database is looked at, and how long it may take.
const PING: Duration = Duration::from_secs(2);

/// What readiness shows of the bucket of images, where there is one. It does not count: all but new images goes on without.
const IMAGES: &str = "images";
/// How often the bucket is looked at, and how often what was left in it is put in order.
const LOOK: Duration = Duration::from_secs(10);
const UPKEEP: Duration = Duration::from_secs(60);

/// How long the database is waited for at the start, and how often it is tried.
const DATABASE_PATIENCE: Duration = Duration::from_secs(60);
const DATABASE_AGAIN: Duration = Duration::from_millis(300);

/// Why the gateway could not start or serve.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its directory.
    #[error("cannot make the state directory {path}")]
    StateDir {
        /// The directory.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The first operator's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The image files.
    #[error("cannot open the image files")]
    Images(#[source] io::Error),
    /// What a cloud begins with.
    #[error("cannot set up the cloud")]
    Bootstrap(#[source] CoreError),
    /// The file with the cloud's id.
    #[error("cannot write the cloud's id")]
    CloudId(#[source] io::Error),
    /// The listening sockets.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The public router.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The metrics.
    #[error("cannot set up metrics")]
    Metrics(#[from] prometheus::Error),
    /// The descriptors behind reflection.
    #[error("cannot set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The servers.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Certificates.
    #[error(transparent)]
    Certificates(#[from] OwnError),
    /// TLS of the agents' address.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// TLS of the public port.
    #[error("{0}")]
    PublicTls(&'static str),
    /// An address for agents of other machines that is none.
    #[error("--agents-address must be host:port: agents of this machine use the unix socket of --host-listen")]
    AgentsAddress,
}

impl From<PkiError> for GatewayError {
    fn from(error: PkiError) -> Self {
        Self::Certificates(error.into())
    }
}

/// Runs the gateway until `shutdown`, and again whenever a backup was put in the database's place. At the end it stops accepting, lets what runs end, ends the workers and closes the database. What does not end in
/// time is in the database and goes on at the next start.
///
/// # Errors
/// See [`GatewayError`].
pub async fn run(config: &Config, shutdown: CancellationToken) -> Result<(), GatewayError> {
    run_with(config, ImageFiles::open, shutdown).await
}

async fn run_with(
    config: &Config,
    open_images: impl Fn(ImageOptions, CloudId) -> io::Result<ImageFiles>,
    shutdown: CancellationToken,
) -> Result<(), GatewayError> {
    loop {
        // Ends with `shutdown`, or alone: then only to begin again.
        let stop = shutdown.child_token();
        run_once(config, &open_images, stop).await?;
        if shutdown.is_cancelled() {
            return Ok(());
        }
        tracing::warn!("starting again, on the restored database");
    }
}

async fn run_once(
    config: &Config,
    open_images: impl Fn(ImageOptions, CloudId) -> io::Result<ImageFiles>,
    stop: CancellationToken,
) -> Result<(), GatewayError> {
    std::fs::create_dir_all(&config.state_dir)
        .map_err(|source| GatewayError::StateDir { path: config.state_dir.display().to_string(), source })?;
    // Whoever may not listen changes nothing. Clients that connect meanwhile wait until all is set up.
    let listeners = Listeners::bind(config).await?;
    let Some(cloud) = stop.run_until_cancelled(Cloud::open(config, open_images)).await else { return Ok(()) };
    let cloud = cloud?;
    let (id, epoch) = cloud.store.identity();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), cloud = %id, epoch, public = %listeners.public.local_addr(),
        hosts = %listeners.hosts.local_addr(), key_file = %config.api_key_file().display(), "starting"
    );
    let store = cloud.store.clone();
    // On the heap: it holds all that runs.
    let served = Box::pin(cloud.serve(config, listeners, stop)).await;
    store.close().await;
    tracing::info!("stopped");
    served
}

/// The sockets.
struct Listeners {
    public: Listener,
    hosts: Listener,
    /// For agents of other machines.
    agents: Option<Listener>,
    tls: PublicTls,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, GatewayError> {
        let tls = PublicTls::of(config)?;
        let policy = BindPolicy { tls: tls.is_on(), allow_plain_beyond_loopback: config.allow_plain_beyond_loopback };
        let public = Listener::bind(&config.listen(), policy).await?;
        let hosts = Listener::bind(&config.host_listen(), BindPolicy::default()).await?;
        let agents = match &config.join.agents_address {
            None => None,
            Some(Address::Unix(_)) => return Err(GatewayError::AgentsAddress),
            Some(address) => Some(Listener::bind(address, BindPolicy { tls: true, ..BindPolicy::default() }).await?),
        };
        Ok(Self { public, hosts, agents, tls })
    }
}

/// What a gateway works with.
struct Cloud {
    store: SqlStore,
    registry: Arc<HostRegistry>,
    images: Arc<ImageFiles>,
    services: Services<SqlStore>,
    settings: Settings,
    readiness: Readiness,
    certificates: Certificates,
}

impl Cloud {
    /// Opens the database and makes sure that it has what a cloud begins with.
    async fn open(
        config: &Config,
        open_images: impl Fn(ImageOptions, CloudId) -> io::Result<ImageFiles>,
    ) -> Result<Self, GatewayError> {
        // The key first: a crash right after leaves a key that the next start enters into the database.
        let secret = admin_key::ensure(&config.api_key_file())?;
        let store = open_database(&config.database()).await?;
        let settings = config.settings();
        let registry = Arc::new(HostRegistry::new(settings.heartbeat_timeout));
        // Only now: opening them throws away what is half written, and a SQLite database is locked against a second gateway.
        let images = Arc::new(open_images(config.image_options(), store.identity().0).map_err(GatewayError::Images)?);
        let mut services = Services::new(store.clone(), Arc::clone(&registry), images.clone(), settings.clone());
        let certificates = Certificates::open(config, &store).await?;
        services.joins = JoinService::new(
            store.clone(),
            Arc::clone(&registry),
            certificates.authorities.clone(),
            config.join_settings(),
        );
        bootstrap(&store, &secret).await.map_err(GatewayError::Bootstrap)?;
        services.hosts.load().await.map_err(GatewayError::Bootstrap)?;
        sweep(&store, &images).await.map_err(GatewayError::Bootstrap)?;
        write_cloud_id(config, &store.identity().0.to_string()).map_err(GatewayError::CloudId)?;
        let readiness = Readiness::new(&[DATABASE]);
        if images.has_bucket() {
            readiness.show(IMAGES);
        }
        Ok(Self { store, registry, images, services, settings, readiness, certificates })
    }

    async fn serve(
        self,
        config: &Config,
        listeners: Listeners,
        shutdown: CancellationToken,
    ) -> Result<(), GatewayError> {
        let Self { store, registry, images, services, settings, readiness, certificates } = self;
        let Listeners { public, hosts, agents: far_hosts, tls } = listeners;
        let (cloud, epoch) = store.identity();
        let agents = Agents::new(Arc::clone(&registry), cloud, epoch).with_credentials(certificates.credentials());
        let agents = Arc::new(agents);
        let metrics = Metrics::new("api-gateway")?;
        let host_router = host_router(&services, &certificates, &readiness, &metrics)?;
        let far_router = host_router.clone().layer(middleware::from_fn(certified));
        let far_options = certificates.server_options()?;
        let (public_tls, public_certificate) = certificates.public(&tls, config)?;
        let keeper = certificates.keeper(store.clone(), services.joins.clone(), public_certificate.clone());
        let reloading = tls.keep_loaded(public_certificate.as_ref(), shutdown.clone());
        let purged = purge_counter(&metrics)?;
        let api = PublicApi {
            services,
            registry: Arc::clone(&registry),
            store: store.clone(),
            images: Arc::clone(&images),
            consoles: agents.clone(),
            backups: Arc::new(store.clone()),
            restart: shutdown.clone(),
            public_url: config.public_url.clone().unwrap_or_else(|| url(public.local_addr(), tls.is_on())),
            calls: config.calls(),
            readiness: readiness.clone(),
            metrics,
        };
        let router = api.router()?;
        let retention = Retention::new(store.clone(), settings.clone(), purged);
        let fencer = config.fencer().map(|command| Arc::new(command) as Arc<dyn Fencer>);
        let files = Arc::clone(&images);
        let backends = Backends { compute: agents.clone(), storage: agents.clone(), network: agents, images, fencer };
        let workers = Workers::new(store.clone(), registry, backends, settings).traced(Arc::new(traced));
        let options = ServerOptions { tls: public_tls, ..ServerOptions::default() };
        let far_hosts = async {
            match (far_hosts, far_options) {
                (Some(listener), Some(options)) => server::serve(listener, far_router, options, shutdown.clone()).await,
                _ => Ok(()),
            }
        };
        let (public, hosts, far, (), (), (), (), (), (), ()) = tokio::join!(
            server::serve(public, router, options, shutdown.clone()),
            server::serve(hosts, host_router, ServerOptions::default(), shutdown.clone()),
            far_hosts,
            keeper.run(shutdown.clone()),
            reloading,
            workers.run(shutdown.clone()),
            retention.run(shutdown.clone()),
            watch_database(&store, &readiness, shutdown.clone()),
            watch_bucket(&files, &readiness, shutdown.clone()),
            keep_bucket(&files, &store, shutdown.clone()),
        );
        public?;
        far?;
        Ok(hosts?)
    }
}

/// Runs an attempt in the trace of the call that asked for it: its log lines and its calls to agents carry that trace's id.
fn traced(trace: Option<&str>, attempt: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
    let context = RequestContext::resumed(trace, None);
    let span = context.span("reconcile");
    context::scope(context, attempt.instrument(span)).boxed()
}

/// Counts what is purged, by kind.
fn purge_counter(metrics: &Metrics) -> Result<Purged, prometheus::Error> {
    let opts = Opts::new("purged_total", "Rows removed since they were kept long enough, by kind.");
    let counter = IntCounterVec::new(opts, &["kind"])?;
    metrics.registry().register(Box::new(counter.clone()))?;
    Ok(Arc::new(move |kind, rows| counter.with_label_values(&[kind]).inc_by(rows)))
}

/// Opens the database. One on the network may be away for a moment, as when it and this start together: it is waited for.
async fn open_database(url: &str) -> Result<SqlStore, OpenError> {
    let begun = Instant::now();
    loop {
        match SqlStore::open(url).await {
            Err(error) if error.is_away() && begun.elapsed() < DATABASE_PATIENCE => {
                tracing::warn!(error = error::chain(&error), "the database is away: trying again");
                tokio::time::sleep(DATABASE_AGAIN).await;
            }
            opened => return opened,
        }
    }
}

/// What agents call.
fn host_router(
    services: &Services<SqlStore>,
    certificates: &Certificates,
    readiness: &Readiness,
    metrics: &Metrics,
) -> Result<Router, GatewayError> {
    let name = host_service_server::SERVICE_NAME;
    let handler = AgentHosts { services: services.clone(), authorities: Arc::clone(&certificates.authorities) };
    let routes = Routes::default().add_service(HostServiceServer::new(handler));
    let routes = service::add_reflection(routes, &[name])?.add_service(readiness.grpc(vec![name.to_owned()]));
    Ok(layers::apply(service::into_router(routes), metrics))
}

/// Keeps readiness at what the database says.
async fn watch_database(store: &SqlStore, readiness: &Readiness, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(PING);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        match tokio::time::timeout(PING, store.ping()).await {
            Ok(Ok(())) => readiness.set_ready(DATABASE),
            Ok(Err(error)) => readiness.set_not_ready(DATABASE, error::chain(&error)),
            Err(_) => readiness.set_not_ready(DATABASE, format!("no answer within {} s", PING.as_secs())),
        }
    }
}

/// Shows with readiness what the bucket of images says, where there is one.
async fn watch_bucket(images: &ImageFiles, readiness: &Readiness, shutdown: CancellationToken) {
    if !images.has_bucket() {
        return;
    }
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        match shutdown.run_until_cancelled(images.check()).await {
            Some(Ok(())) => readiness.set_ready(IMAGES),
            Some(Err(error)) => readiness.set_not_ready(IMAGES, error.to_string()),
            None => return,
        }
    }
}

/// Keeps the bucket of images in order, where there is one.
async fn keep_bucket(images: &ImageFiles, store: &SqlStore, shutdown: CancellationToken) {
    if !images.has_bucket() {
        return;
    }
    let once = async || match images.check().await {
        Ok(()) => {
            images.upkeep(store).await;
            UPKEEP
        }
        // Readiness says why not.
        Err(_) => LOOK,
    };
    while let Some(wait) = shutdown.run_until_cancelled(once()).await {
        if shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// Removes files of images that the database does not know: an upload that a crash cut off between file and row.
async fn sweep(store: &SqlStore, images: &ImageFiles) -> Result<(), CoreError> {
    // Beside other gateways, a file without a row may be one that is just being entered.
    if !store.is_exclusive() {
        return Ok(());
    }
    let ids = images.ids().map_err(|error| CoreError::Internal(Box::new(error)))?;
    for id in ids {
        if store.get::<Image>(*id.as_uuid()).await?.is_none() {
            tracing::info!(image = %id, "removing the file of an image that was never entered");
            if let Err(error) = images.discard(id).await {
                tracing::warn!(image = %id, %error, "cannot remove it");
            }
        }
    }
    Ok(())
}

/// The cloud's id, for people and scripts; the database's is the truth.
fn write_cloud_id(config: &Config, id: &str) -> io::Result<()> {
    let path = config.state_dir.join("cloud-id");
    if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == id) {
        return Ok(());
    }
    let temporary = config.state_dir.join(".cloud-id~");
    std::fs::write(&temporary, format!("{id}\n"))?;
    std::fs::rename(temporary, path)
}

/// A listener's address as browsers write it.
fn url(address: &Address, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    match address {
        Address::Unix(_) => format!("{scheme}://localhost"),
        Address::Tcp { host, port } if host.contains(':') => format!("{scheme}://[{host}]:{port}"),
        Address::Tcp { host, port } => format!("{scheme}://{host}:{port}"),
    }
}

#[cfg(test)]
mod tests;
