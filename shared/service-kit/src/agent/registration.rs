//! How the gateway learns of an agent and keeps hearing of it.
//!
//! Register until it succeeds, then a heartbeat per interval; whenever the gateway says so or does not answer, from the start, and with
//! the next gateway where there are several. It never gives up: an agent without a gateway keeps its guests running and tries again, less and less often, with jitter so that
//! a gateway that returns is not met by all hosts in one moment.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use cloud_contracts::agent::{
    AgentRole, Capacity, HeartbeatRequest, RegisterRequest, host_service_client::HostServiceClient,
};
use cloud_domain::{CloudId, SessionId};
use rand::seq::SliceRandom;
use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    Gateways, HostIdentity,
    beats::{Beats, DEADLINE},
};
use crate::{Address, channel::AgentChannel, error::chain, health::Readiness};

/// The component of [`Readiness`] that says whether the gateway knows this agent.
pub const GATEWAY: &str = "gateway";
/// The component of [`Readiness`] that says whether the agent's backend works.
pub const BACKEND: &str = "backend";

/// How long the backend may take to say what it has.
const CAPACITY_DEADLINE: Duration = Duration::from_secs(5);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// What the agent's backend offers, and whether it works.
#[async_trait]
pub trait CapacitySource: Send + Sync + 'static {
    /// The role's part of the capacity, and an error for an operator when the backend does not work. Called for every heartbeat;
    /// takes at most a few seconds.
    async fn capacity(&self) -> (Capacity, Result<(), String>);
}

/// What the gateway is told about an agent.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Which of the three daemons.
    pub role: AgentRole,
    /// The host.
    pub host: HostIdentity,
    /// This run of the agent.
    pub session: SessionId,
    /// Where the gateway reaches the agent.
    pub endpoint: Address,
    /// The agent's release.
    pub agent_version: String,
    /// The machine's boot id.
    pub boot_id: String,
}

/// Keeps the agent registered with one of the gateways of its cloud until `shutdown`, and publishes the cloud's id in `cloud`.
pub async fn run_registration(
    mut gateways: Gateways,
    registration: Registration,
    capacity: Arc<dyn CapacitySource>,
    readiness: Readiness,
    cloud: watch::Sender<Option<CloudId>>,
    renew: Arc<Notify>,
    shutdown: CancellationToken,
) {
    // So that not all agents begin with the same gateway.
    gateways.addresses.shuffle(&mut rand::rng());
    let generation = gateways.generation();
    let clients = VecDeque::new();
    let mut agent = Agent {
        gateways,
        generation,
        clients,
        away: 0,
        registration,
        capacity,
        last: Capacity::default(),
        readiness,
        cloud,
        renew,
    };
    shutdown.run_until_cancelled(agent.run()).await;
}

struct Agent {
    gateways: Gateways,
    /// Of the credentials that the clients were made with.
    generation: u64,
    /// The first is the one it is with.
    clients: VecDeque<HostServiceClient<AgentChannel>>,
    /// How often it went on to the next one.
    away: usize,
    registration: Registration,
    capacity: Arc<dyn CapacitySource>,
    last: Capacity,
    readiness: Readiness,
    cloud: watch::Sender<Option<CloudId>>,
    /// Asks for a new certificate.
    renew: Arc<Notify>,
}

impl Agent {
    async fn run(&mut self) {
        let mut delay = FIRST_DELAY;
        loop {
            match self.register().await {
                Ok(interval) => {
                    delay = FIRST_DELAY;
                    self.readiness.set_ready(GATEWAY);
                    match self.heartbeats(interval).await {
                        // Asked to: no reason to wait.
                        Ok(()) => continue,
                        Err(status) => self.away("heartbeat", &status),
                    }
                }
                Err(status) => self.away("registration", &status),
            }
            time::sleep(delay.mul_f64(rand::random_range(0.5..1.0))).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// On to the next gateway, if there is one.
    fn away(&mut self, what: &str, status: &Status) {
        self.clients.rotate_left(1.min(self.clients.len()));
        self.away = self.away.wrapping_add(1);
        self.readiness.set_not_ready(GATEWAY, format!("{what} failed: {}: {}", status.code(), status.message()));
    }

    fn gateway(&mut self) -> Result<&mut HostServiceClient<AgentChannel>, Status> {
        let generation = self.gateways.generation();
        if self.clients.is_empty() || generation != self.generation {
            // A connection shows the certificate that it was opened with, and that one ends: on to a new one, at the same gateway.
            let away = self.away % self.gateways.addresses.len().max(1);
            let clients = self.gateways.clients().map_err(|e| Status::failed_precondition(chain(&e)))?;
            self.clients = clients.into();
            self.clients.rotate_left(away);
            self.generation = generation;
        }
        self.clients.front_mut().ok_or_else(|| Status::failed_precondition("no gateway is configured"))
    }

    /// Registers, and answers with the time between heartbeats.
    async fn register(&mut self) -> Result<Duration, Status> {
        let (capacity, _) = self.capacity().await;
        let this = &self.registration;
        let mut request = tonic::Request::new(RegisterRequest {
            host_id: this.host.id.to_string(),
            host_name: this.host.name.to_string(),
            role: this.role.into(),
            session_id: this.session.to_string(),
            endpoint: this.endpoint.to_string(),
            agent_version: this.agent_version.clone(),
            boot_id: this.boot_id.clone(),
            capacity: Some(capacity),
        });
        request.set_timeout(DEADLINE);
        let answer = self.gateway()?.register(request).await?.into_inner();
        let cloud: CloudId = answer
            .cloud_id
            .parse()
            .map_err(|_| Status::internal(format!("the gateway's cloud id `{}` is not a UUID", answer.cloud_id)))?;
        match self.cloud.send_replace(Some(cloud)) {
            Some(before) if before != cloud => tracing::warn!(%before, now = %cloud, "the gateway's cloud has changed"),
            Some(_) => tracing::info!(%cloud, "registered again"),
            None => tracing::info!(%cloud, "registered"),
        }
        let interval = Duration::from_millis(answer.heartbeat_interval_ms.into());
        Ok(interval.clamp(Duration::from_millis(20), Duration::from_secs(60)))
    }

    /// Sends heartbeats until the gateway asks for a new registration (`Ok`) or does not answer.
    async fn heartbeats(&mut self, interval: Duration) -> Result<(), Status> {
        let mut ticks = time::interval_at(time::Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut beats = None;
        loop {
            ticks.tick().await;
            let (capacity, health) = self.capacity().await;
            let beat = HeartbeatRequest {
                host_id: self.registration.host.id.to_string(),
                role: self.registration.role.into(),
                session_id: self.registration.session.to_string(),
                capacity: Some(capacity),
                backend_healthy: health.is_ok(),
                backend_error: health.err().unwrap_or_default(),
            };
            if self.gateways.generation() != self.generation {
                beats = None;
            }
            let beats = match &mut beats {
                Some(beats) => beats,
                none => none.insert(Beats::open(self.gateway()?).await?),
            };
            let answer = beats.send(beat).await?;
            if answer.renew {
                self.renew.notify_one();
            }
            if answer.register_again {
                tracing::info!("the gateway asks for a new registration");
                return Ok(());
            }
        }
    }

    /// What the backend has; what it had last, and an error, when it does not answer.
    async fn capacity(&mut self) -> (Capacity, Result<(), String>) {
        let (capacity, health) = match time::timeout(CAPACITY_DEADLINE, self.capacity.capacity()).await {
            Ok(answer) => answer,
            Err(_) => (self.last.clone(), Err(format!("the backend did not answer within {CAPACITY_DEADLINE:?}"))),
        };
        match &health {
            Ok(()) => self.readiness.set_ready(BACKEND),
            Err(error) => self.readiness.set_not_ready(BACKEND, error.clone()),
        }
        self.last = capacity.clone();
        (capacity, health)
    }
}

#[cfg(test)]
mod tests;
