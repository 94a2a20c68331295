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
    channel::{AgentChannel, agent_channel},
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
    channels: Mutex<HashMap<(HostId, AgentRole), (String, AgentChannel)>>,
    places: Mutex<HashMap<HostId, Arc<Semaphore>>>,
}

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
        Self { registry, cloud, epoch, channels: Mutex::default(), places: Mutex::default() }
    }

    /// The connection to an agent.
    pub(super) fn find(&self, host: HostId, role: AgentRole) -> Result<Found, BackendError> {
        let name = format!("the {}-agent of host {}", role.as_str(), self.registry.name(host));
        let agent = self.registry.agent(host, role);
        let agent = agent.ok_or_else(|| BackendError::Unreachable(format!("{name} has not registered")))?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((endpoint, channel)) = channels.get(&(host, role))
            && *endpoint == agent.endpoint
        {
            return Ok(Found { channel: channel.clone(), agent, name });
        }
        let address: Address = agent.endpoint.parse().map_err(|error| {
            BackendError::Unreachable(format!("{name} registered an endpoint that cannot be used: {error}"))
        })?;
        let channel = agent_channel(&address);
        channels.insert((host, role), (agent.endpoint.clone(), channel.clone()));
        Ok(Found { channel, agent, name })
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
