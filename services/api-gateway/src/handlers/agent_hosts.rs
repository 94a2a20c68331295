//! `cloud.agent.v1.HostService`: what agents say. Served on a unix socket, and over mutual TLS on an address of its own; never on the public
//! port.

use std::sync::Arc;

use cloud_contracts::agent::{
    self, HeartbeatRequest, HeartbeatResponse, HeartbeatsRequest, HeartbeatsResponse, JoinRequest, JoinResponse,
    RegisterRequest, RegisterResponse, RenewRequest, RenewResponse, host_service_server::HostService,
};
use cloud_core::{
    CoreError,
    model::{AgentRole, HostCapacity, Pool},
    ports::Store,
    services::{HeartbeatInput, JoinInput, RegisterInput, Services},
};
use cloud_service_kit::{Address, ServiceError};
use futures::stream;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{
    error,
    peer::{Peer, peer, source},
};
use crate::adapters::pki::Authorities;

/// The agents' side of hosts, over the core's service.
#[derive(Clone)]
pub struct AgentHosts<S> {
    /// The core.
    pub services: Services<S>,
    /// Whether a certificate is of the authority that hosts get theirs from now.
    pub authorities: Arc<Authorities>,
}

impl<S: Store> AgentHosts<S> {
    async fn hear(&self, peer: Option<&Peer>, beat: HeartbeatRequest) -> Result<HeartbeatResponse, Status> {
        let input = heartbeat(beat).map_err(error::status)?;
        if let Some(peer) = peer {
            peer.is(input.host, input.role)?;
        }
        let renew = peer.is_some_and(|peer| !self.authorities.is_of_the_newest(&peer.certificate));
        let register_again = self.services.hosts.heartbeat(input).await.map_err(error::status)?;
        Ok(HeartbeatResponse { register_again, renew })
    }
}

#[tonic::async_trait]
impl<S: Store> HostService for AgentHosts<S> {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let source = source(&request);
        let message = request.into_inner();
        let input = join(message, source).map_err(error::status)?;
        let (name, asked) = (input.host_name.clone(), input.source.clone());
        let joined = self.services.joins.join(input).await.inspect_err(|error| {
            tracing::warn!(host = name, source = asked, %error, "a host was not let in");
        });
        let joined = joined.map_err(error::status)?;
        tracing::info!(host = joined.name, id = %joined.host, source = asked, "a host joined");
        let certificates = joined.certificates.into_iter();
        Ok(Response::new(JoinResponse {
            host_id: joined.host.to_string(),
            certificates: certificates.map(|(role, c)| (role.as_str().to_owned(), c.certificate)).collect(),
            ca_certificate: joined.trusted,
            cloud_id: joined.cloud.to_string(),
            host_name: joined.name,
        }))
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let peer = peer(&request)?;
        let mut input = register(request.into_inner()).map_err(error::status)?;
        if let Some(peer) = &peer {
            peer.is(input.host, input.role)?;
            input.endpoint = peer.endpoint(&input.endpoint)?;
            self.services.hosts.is_known(input.host).await.map_err(error::status)?;
        }
        let (host, role, session) = (input.host_name.clone(), input.role, input.session);
        let (cloud, interval) = self.services.hosts.register(input).await.map_err(error::status)?;
        tracing::info!(host, role = role.as_str(), %session, "agent registered");
        let heartbeat_interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        Ok(Response::new(RegisterResponse { cloud_id: cloud.to_string(), heartbeat_interval_ms }))
    }

    type HeartbeatsStream = BoxStream<HeartbeatsResponse>;

    async fn heartbeats(
        &self,
        request: Request<Streaming<HeartbeatsRequest>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let peer = peer(&request)?;
        let state = (self.clone(), peer, request.into_inner());
        let answers = stream::try_unfold(state, |(this, peer, mut beats)| async move {
            let Some(beat) = beats.message().await? else { return Ok(None) };
            if let Some(peer) = &peer {
                peer.is_valid()?;
            }
            let heartbeat = Some(this.hear(peer.as_ref(), beat.heartbeat.unwrap_or_default()).await?);
            Ok(Some((HeartbeatsResponse { heartbeat }, (this, peer, beats))))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let peer = peer(&request)?;
        self.hear(peer.as_ref(), request.into_inner()).await.map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let peer = peer(&request)?.ok_or_else(|| {
            let message = "a certificate is renewed by whoever shows it: there is none on this connection";
            Status::from(ServiceError::failed_precondition("NO_CERTIFICATE", message))
        })?;
        let message = request.into_inner();
        let renewed = self.services.joins.renew((peer.host, peer.role), &peer.serial, &message.certificate_request);
        let (issued, ca_certificate) = renewed.await.map_err(error::status)?;
        tracing::info!(host = %peer.host, role = peer.role.as_str(), "a certificate was renewed");
        Ok(Response::new(RenewResponse { certificate: issued.certificate, ca_certificate }))
    }
}

fn join(request: JoinRequest, source: String) -> Result<JoinInput, CoreError> {
    let requests = request.certificate_requests.into_iter().map(|(name, text)| {
        let role = AgentRole::ALL.into_iter().find(|role| role.as_str() == name);
        let unknown = || CoreError::invalid("certificate_requests", format!("`{name}` is no role"));
        Ok((role.ok_or_else(unknown)?, text))
    });
    let host = match request.host_id.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|e| CoreError::invalid("host_id", e))?),
    };
    let requests = requests.collect::<Result<_, CoreError>>()?;
    Ok(JoinInput { token: request.token, host_name: request.host_name, host, requests, source })
}

fn register(request: RegisterRequest) -> Result<RegisterInput, CoreError> {
    let endpoint: Address = request.endpoint.parse().map_err(|e| CoreError::invalid("endpoint", e))?;
    let role = role(request.role)?;
    Ok(RegisterInput {
        host: request.host_id.parse().map_err(|e| CoreError::invalid("host_id", e))?,
        host_name: request.host_name,
        role,
        session: request.session_id.parse().map_err(|e| CoreError::invalid("session_id", e))?,
        endpoint: endpoint.to_string(),
        version: request.agent_version,
        boot_id: request.boot_id,
        capacity: capacity(role, request.capacity),
    })
}

fn heartbeat(request: HeartbeatRequest) -> Result<HeartbeatInput, CoreError> {
    let role = role(request.role)?;
    let unnamed = !request.backend_healthy && request.backend_error.is_empty();
    Ok(HeartbeatInput {
        host: request.host_id.parse().map_err(|e| CoreError::invalid("host_id", e))?,
        role,
        session: request.session_id.parse().map_err(|e| CoreError::invalid("session_id", e))?,
        capacity: capacity(role, request.capacity),
        backend_error: match (request.backend_healthy, unnamed) {
            (true, _) => String::new(),
            (false, true) => "it does not say why".to_owned(),
            (false, false) => request.backend_error,
        },
    })
}

fn role(number: i32) -> Result<AgentRole, CoreError> {
    match agent::AgentRole::try_from(number) {
        Ok(agent::AgentRole::Compute) => Ok(AgentRole::Compute),
        Ok(agent::AgentRole::Storage) => Ok(AgentRole::Storage),
        Ok(agent::AgentRole::Network) => Ok(AgentRole::Network),
        Ok(agent::AgentRole::Unspecified) | Err(_) => Err(CoreError::invalid("role", format!("{number} is no role"))),
    }
}

/// The role's own part of what a host has. An agent whose backend has not worked since it started does not know yet: nothing.
fn capacity(role: AgentRole, sent: Option<agent::Capacity>) -> HostCapacity {
    let sent = sent.unwrap_or_default();
    match role {
        AgentRole::Compute => {
            let compute = sent.compute.unwrap_or_default();
            HostCapacity {
                vcpus: compute.vcpus,
                memory_mib: compute.memory_mib,
                accelerator: compute.accelerator,
                hypervisor: compute.hypervisor,
                architecture: compute.architecture,
                load: [compute.load_hundredths, compute.load5_hundredths, compute.load15_hundredths],
                ..HostCapacity::default()
            }
        }
        AgentRole::Storage => {
            let storage = sent.storage.unwrap_or_default();
            let pools = storage.pools.into_iter().map(|pool| Pool {
                name: pool.name,
                backend: pool.backend,
                total_bytes: pool.total_bytes,
                free_bytes: pool.free_bytes,
            });
            HostCapacity { pools: pools.collect(), ..HostCapacity::default() }
        }
        AgentRole::Network => {
            let network = sent.network.unwrap_or_default();
            HostCapacity {
                datapath: network.datapath,
                switch_version: network.switch_version,
                tunnel_address: network.tunnel_address,
                ..HostCapacity::default()
            }
        }
    }
}
