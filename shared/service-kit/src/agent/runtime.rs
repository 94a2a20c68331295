//! The bootstrap of an agent: `AgentRuntime::start`, then build the backend and the handlers, then [`serve_agent`].

use std::{fs, io, path::PathBuf, sync::Arc};

use axum::Router;
use cloud_contracts::agent::AgentRole;
use cloud_domain::{CloudId, SessionId};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::{
    AgentArgs, CapacitySource, Fence, Gateways, HostIdentity, IdentityError, Registration, host_identity,
    renewal::keep_renewed, run_registration,
};
use crate::{
    Address,
    agent::registration::{BACKEND, GATEWAY},
    config::DaemonArgs,
    health::Readiness,
    layers,
    listen::{BindPolicy, ListenError, Listener},
    metrics::Metrics,
    server::{self, ServeError, ServerOptions},
    service, shutdown,
    telemetry::{self, TelemetryError, TelemetryGuard},
    tls::{self, CredentialError, CredentialFiles, Credentials, Daemon, Expect, Identity, keep_loaded},
};

/// Why an agent could not start or serve.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Logs and traces.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The host's id or name.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The listening socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The metrics.
    #[error("cannot set up metrics")]
    Metrics(#[from] prometheus::Error),
    /// The descriptors behind reflection.
    #[error("cannot set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The signals.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// Certificate, key or authorities.
    #[error(transparent)]
    Tls(#[from] CredentialError),
    /// Some of the flags of TLS are given.
    #[error("TLS needs --tls-cert, --tls-key and --tls-ca: {0} is missing")]
    TlsIncomplete(&'static str),
    /// The gateway is on another machine, and there is no TLS.
    #[error(
        "the gateway at {0} is on another machine and TLS is not configured: let this host join with cloud-agent-join"
    )]
    PlainGateway(Address),
    /// A role that no daemon has.
    #[error("an agent needs a role")]
    Role,
    /// Something of the machine that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What an agent's parts need before it serves.
#[derive(Debug)]
pub struct AgentRuntime {
    /// Which of the three daemons this is.
    pub role: AgentRole,
    /// The host.
    pub host: HostIdentity,
    /// This run of the agent.
    pub session: SessionId,
    /// Checks every call.
    pub fence: Arc<Fence>,
    /// The cloud's id, once registered.
    pub cloud: watch::Receiver<Option<CloudId>>,
    /// Where to register metrics.
    pub metrics: Metrics,
    /// What is ready; `backend` follows [`CapacitySource`] by itself.
    pub readiness: Readiness,
    /// Cancelled when the agent shall end.
    pub shutdown: CancellationToken,
    gateways: Gateways,
    tls: Option<CredentialFiles>,
    renewed_elsewhere: bool,
    listen: Address,
    advertise: Option<Address>,
    publish: watch::Sender<Option<CloudId>>,
    telemetry: Option<TelemetryGuard>,
}

impl AgentRuntime {
    /// Starts telemetry and signals, and finds out which host this is. `service` is the daemon's name, such as `compute-agent`.
    ///
    /// # Errors
    /// The flags, the host's name or id, or the system do not allow it.
    pub fn start(
        service: &'static str,
        role: AgentRole,
        daemon: &DaemonArgs,
        agent: &AgentArgs,
    ) -> Result<Self, AgentError> {
        let telemetry = telemetry::init(service, &daemon.telemetry)?;
        let shutdown = shutdown::signals().map_err(AgentError::Signals)?;
        let mut runtime = Self::embedded(service, role, daemon, agent, shutdown)?;
        runtime.telemetry = Some(telemetry);
        Ok(runtime)
    }

    /// An agent inside another process, such as a test: without telemetry and signals of its own.
    ///
    /// # Errors
    /// The host's name or id do not allow it.
    pub fn embedded(
        service: &'static str,
        role: AgentRole,
        daemon: &DaemonArgs,
        agent: &AgentArgs,
        shutdown: CancellationToken,
    ) -> Result<Self, AgentError> {
        let (socket, _) = names(role).ok_or(AgentError::Role)?;
        let (publish, cloud) = watch::channel(None);
        let host = host_identity(agent)?;
        let tls = agent.tls.files().map_err(AgentError::TlsIncomplete)?;
        let credentials = tls.as_ref().map(|files| credentials(files, &host, role)).transpose()?;
        if credentials.is_none()
            && let Some(far) = agent.gateway.iter().find(|address| !address.is_loopback())
        {
            return Err(AgentError::PlainGateway(far.clone()));
        }
        let session = SessionId::random();
        Ok(Self {
            role,
            host,
            session,
            fence: Arc::new(Fence::new(session, cloud.clone())),
            cloud,
            metrics: Metrics::new(service)?,
            readiness: Readiness::new(&[BACKEND, GATEWAY]),
            shutdown,
            gateways: Gateways { addresses: agent.gateway.clone(), credentials },
            tls,
            renewed_elsewhere: agent.tls.tls_external,
            listen: daemon.listen.clone().unwrap_or_else(|| Address::Unix(agent.state_dir.join(socket))),
            advertise: agent.advertise.clone(),
            publish,
            telemetry: None,
        })
    }
}

/// Serves an agent's gRPC services, with health, reflection and metrics beside them, and keeps it registered with the gateway, until
/// it is asked to end.
///
/// # Errors
/// The listening socket is taken or forbidden, or the system refuses.
pub async fn serve_agent(
    agent: AgentRuntime,
    services: Routes,
    capacity: Arc<dyn CapacitySource>,
) -> Result<(), AgentError> {
    let router = router(&agent, services)?;
    let credentials = agent.gateways.credentials.clone();
    let tls = credentials.as_ref().map(|own| tls::server_config(own, Expect::Gateway, false)).transpose()?;
    let policy = BindPolicy { tls: tls.is_some(), ..BindPolicy::default() };
    let listener = Listener::bind(&agent.listen, policy).await?;
    let registration = Registration {
        role: agent.role,
        host: agent.host.clone(),
        session: agent.session,
        endpoint: agent.advertise.clone().unwrap_or_else(|| listener.local_addr().clone()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: boot_id()?,
    };
    tracing::info!(
        host = %agent.host.name, host_id = %agent.host.id, session = %agent.session,
        version = registration.agent_version, "starting"
    );
    let renew = Arc::new(Notify::new());
    let certified = keep_certified(
        agent.gateways.clone(),
        agent.tls,
        agent.renewed_elsewhere,
        Arc::clone(&renew),
        agent.shutdown.clone(),
    );
    let registered = run_registration(
        agent.gateways,
        registration,
        capacity,
        agent.readiness.clone(),
        agent.publish,
        renew,
        agent.shutdown.clone(),
    );
    let options = ServerOptions { tls, ..ServerOptions::default() };
    let serving = server::serve(listener, router, options, agent.shutdown.clone());
    let ((), (), served) = tokio::join!(certified, registered, serving);
    tracing::info!("stopped");
    if let Some(telemetry) = agent.telemetry {
        telemetry.shutdown().await;
    }
    Ok(served?)
}

/// What the files say, if they are this agent's own.
fn credentials(
    files: &CredentialFiles,
    host: &HostIdentity,
    role: AgentRole,
) -> Result<Arc<Credentials>, CredentialError> {
    let material = files.load()?;
    let cloud = material.identity.cloud();
    let expected = daemon(role).map(|daemon| Identity::Agent { cloud, host: host.id, daemon });
    if Some(material.identity) != expected {
        let (found, expected) = (material.identity, expected.map_or_else(String::new, |e| e.to_string()));
        return Err(CredentialError::SomebodyElse { found: found.to_string(), expected });
    }
    Ok(Credentials::new(material))
}

const fn daemon(role: AgentRole) -> Option<Daemon> {
    match role {
        AgentRole::Unspecified => None,
        AgentRole::Compute => Some(Daemon::Compute),
        AgentRole::Storage => Some(Daemon::Storage),
        AgentRole::Network => Some(Daemon::Network),
    }
}

/// Keeps the certificate at what its files say, and the files renewed.
async fn keep_certified(
    gateways: Gateways,
    files: Option<CredentialFiles>,
    renewed_elsewhere: bool,
    renew: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let (Some(files), Some(credentials)) = (files, gateways.credentials.clone()) else { return };
    let loading = keep_loaded(files.clone(), Arc::clone(&credentials), shutdown.clone());
    let renewing = async {
        if !renewed_elsewhere {
            keep_renewed(gateways, credentials, files, renew, shutdown).await;
        }
    };
    tokio::join!(loading, renewing);
}

fn router(agent: &AgentRuntime, services: Routes) -> Result<Router, AgentError> {
    let (_, name) = names(agent.role).ok_or(AgentError::Role)?;
    let services = service::add_reflection(services, &[name])?.add_service(agent.readiness.grpc(vec![name.to_owned()]));
    let router = service::into_router(services).merge(agent.readiness.router()).merge(agent.metrics.router());
    Ok(layers::apply(service::with_fallbacks(router), &agent.metrics))
}

/// The name of a role's socket, and of its gRPC service.
fn names(role: AgentRole) -> Option<(&'static str, &'static str)> {
    match role {
        AgentRole::Unspecified => None,
        AgentRole::Compute => Some(("compute.sock", "cloud.agent.v1.ComputeService")),
        AgentRole::Storage => Some(("storage.sock", "cloud.agent.v1.StorageService")),
        AgentRole::Network => Some(("network.sock", "cloud.agent.v1.NetworkService")),
    }
}

fn boot_id() -> Result<String, AgentError> {
    let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(AgentError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests;
