//! `cloud.agent.v1.HostService`: what agents say. Served on a socket of its own, never on the public port.

use cloud_contracts::agent::{
    self, HeartbeatRequest, HeartbeatResponse, JoinRequest, JoinResponse, RegisterRequest, RegisterResponse,
    RenewRequest, RenewResponse, host_service_server::HostService,
};
use cloud_core::{
    CoreError,
    model::{AgentRole, HostCapacity, Pool},
    ports::Store,
    services::{HeartbeatInput, RegisterInput, Services},
};
use cloud_service_kit::{Address, ServiceError};
use tonic::{Request, Response, Status};

use super::error;

/// The agents' side of hosts, over the core's service.
pub struct AgentHosts<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> HostService for AgentHosts<S> {
    async fn join(&self, _request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(ServiceError::unimplemented("joining by token is not built yet: agents register over the host socket")
            .into())
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let input = register(request.into_inner()).map_err(error::status)?;
        let (host, role, session) = (input.host_name.clone(), input.role, input.session);
        let (cloud, interval) = self.0.hosts.register(input).await.map_err(error::status)?;
        tracing::info!(host, role = role.as_str(), %session, "agent registered");
        let heartbeat_interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        Ok(Response::new(RegisterResponse { cloud_id: cloud.to_string(), heartbeat_interval_ms }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let input = heartbeat(request.into_inner()).map_err(error::status)?;
        let register_again = self.0.hosts.heartbeat(input).await.map_err(error::status)?;
        Ok(Response::new(HeartbeatResponse { register_again }))
    }

    async fn renew(&self, _request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(ServiceError::unimplemented("certificates are not built yet").into())
    }
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
