//! The bootstrap of an agent: `AgentRuntime::start`, then build the backend and the handlers, then [`serve_agent`].

use std::{fs, io, path::PathBuf, sync::Arc};

use axum::Router;
use cloud_contracts::agent::AgentRole;
use cloud_domain::{CloudId, SessionId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::{
    AgentArgs, CapacitySource, Fence, HostIdentity, IdentityError, Registration, host_identity, run_registration,
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
    gateways: Vec<Address>,
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
        let session = SessionId::random();
        Ok(Self {
            role,
            host: host_identity(agent)?,
            session,
            fence: Arc::new(Fence::new(session, cloud.clone())),
            cloud,
            metrics: Metrics::new(service)?,
            readiness: Readiness::new(&[BACKEND, GATEWAY]),
            shutdown,
            gateways: agent.gateway.clone(),
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
    let listener = Listener::bind(&agent.listen, BindPolicy::default()).await?;
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
    let registered = run_registration(
        &agent.gateways,
        registration,
        capacity,
        agent.readiness.clone(),
        agent.publish,
        agent.shutdown.clone(),
    );
    let serving = server::serve(listener, router, ServerOptions::default(), agent.shutdown.clone());
    let ((), served) = tokio::join!(registered, serving);
    tracing::info!("stopped");
    if let Some(telemetry) = agent.telemetry {
        telemetry.shutdown().await;
    }
    Ok(served?)
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
