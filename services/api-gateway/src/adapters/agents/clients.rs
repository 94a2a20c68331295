//! Finding an agent, and calling it.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cloud_contracts::agent::CallContext;
use cloud_core::{
    model::AgentRole,
    ports::BackendError,
    services::{AgentRef, HostRegistry},
};
use cloud_domain::{CloudId, HostId};
use cloud_service_kit::{
    Address,
    channel::{AgentChannel, agent_channel, agent_channel_by},
    error::chain,
    tls::{Credentials, Expect, client_config},
};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Request, Status};

use super::status::{backend_error, unreachable};

/// Calls under way at once to the agents of one host.
const PER_HOST: usize = 16;
/// How long a call may take, beside sending an image. What takes longer on the host goes on there, and is found when the call is made again.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

/// The agents of every host.
pub struct Agents {
    registry: Arc<HostRegistry>,
    cloud: CloudId,
    epoch: u64,
    /// What the gateway shows agents that are reached over TLS.
    credentials: Option<Arc<Credentials>>,
    channels: Mutex<HashMap<(HostId, AgentRole), Open>>,
    places: Mutex<HashMap<HostId, Arc<Semaphore>>>,
}

/// A channel to an agent, and what it was opened for: where the agent was, and how often the gateway's certificate had been replaced.
struct Open {
    endpoint: String,
    generation: u64,
    channel: AgentChannel,
}

/// How the endpoints of agents begin that registered over mutual TLS. An agent cannot say so itself: it is no address.
pub const TLS: &str = "tls:";

/// One agent, as found.
pub(super) struct Found {
    pub(super) channel: AgentChannel,
    agent: AgentRef,
    /// Such as `the storage-agent of host h1`.
    name: String,
}

impl Agents {
    /// The agents that the registry knows, called in the name of this cloud.
    #[must_use]
    pub fn new(registry: Arc<HostRegistry>, cloud: CloudId, epoch: u64) -> Self {
        Self { registry, cloud, epoch, credentials: None, channels: Mutex::default(), places: Mutex::default() }
    }

    /// Reaches agents on other machines with this certificate.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Option<Arc<Credentials>>) -> Self {
        self.credentials = credentials;
        self
    }

    /// The connection to an agent.
    pub(super) fn find(&self, host: HostId, role: AgentRole) -> Result<Found, BackendError> {
        let name = format!("the {}-agent of host {}", role.as_str(), self.registry.name(host));
        let agent = self.registry.agent(host, role);
        let agent = agent.ok_or_else(|| BackendError::Unreachable(format!("{name} has not registered")))?;
        let generation = self.credentials.as_ref().map_or(0, |own| own.generation());
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = channels.get(&(host, role))
            && open.endpoint == agent.endpoint
            && open.generation == generation
        {
            return Ok(Found { channel: open.channel.clone(), agent, name });
        }
        let channel = self.open(host, role, &agent.endpoint).map_err(|why| {
            BackendError::Unreachable(format!("{name} registered an endpoint that cannot be used: {why}"))
        })?;
        let open = Open { endpoint: agent.endpoint.clone(), generation, channel: channel.clone() };
        // Calls that are under way on the one before keep it.
        channels.insert((host, role), open);
        Ok(Found { channel, agent, name })
    }

    fn open(&self, host: HostId, role: AgentRole, endpoint: &str) -> Result<AgentChannel, String> {
        let parse = |text: &str| text.parse::<Address>().map_err(|error| error.to_string());
        let Some(endpoint) = endpoint.strip_prefix(TLS) else { return Ok(agent_channel(&parse(endpoint)?)) };
        let own = self.credentials.as_ref().ok_or("this gateway has no certificate to show it")?;
        let tls = client_config(own, Expect::Agent(host, role.into())).map_err(|error| chain(&error))?;
        Ok(agent_channel_by(&parse(endpoint)?, Some(tls)))
    }

    /// What a call carries: its target's version, and the incarnation where there is one.
    pub(super) fn context(&self, found: &Found, version: u64, incarnation: String) -> CallContext {
        CallContext {
            cloud_id: self.cloud.to_string(),
            session_id: found.agent.session.to_string(),
            epoch: self.epoch,
            version,
            incarnation,
        }
    }

    /// Waits for one of the host's places.
    pub(super) async fn place(&self, host: HostId) -> Result<tokio::sync::OwnedSemaphorePermit, BackendError> {
        let places = {
            let mut all = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(host).or_insert_with(|| Arc::new(Semaphore::new(PER_HOST))))
        };
        let busy = || BackendError::Unreachable(format!("host {} is busy", self.registry.name(host)));
        match timeout(DEADLINE, places.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(busy()),
        }
    }

    /// Makes one call with the usual deadline.
    pub(super) async fn call<T, F>(&self, host: HostId, found: &Found, call: F) -> Result<T, BackendError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let _place = self.place(host).await?;
        match timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(backend_error(&found.name, &status)),
            Err(_) => Err(unreachable(&found.name, &format!("did not answer within {} s", DEADLINE.as_secs()))),
        }
    }
}

impl Found {
    pub(super) fn error(&self, status: &Status) -> BackendError {
        backend_error(&self.name, status)
    }

    pub(super) fn silent(&self, why: &str) -> BackendError {
        unreachable(&self.name, why)
    }
}

/// A request that tells the agent its deadline.
pub(super) fn request<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// An answer that lacks what the contract says it has.
pub(super) fn odd(what: &str) -> BackendError {
    BackendError::Failed(format!("the agent's answer has {what}: is it of another release?"))
}
