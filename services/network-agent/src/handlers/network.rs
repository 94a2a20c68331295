//! `cloud.agent.v1.NetworkService`.

use std::{sync::Arc, time::Duration};

use cloud_contracts::agent::{
    ApplyVpcRequest, ApplyVpcResponse, ListVpcsRequest, ListVpcsResponse, PortSlice, RemoveVpcRequest,
    RemoveVpcResponse, SubnetSlice, VpcHeader, apply_vpc_request::Message, network_service_server::NetworkService,
};
use cloud_domain::{CloudId, VpcId};
use cloud_service_kit::{ServiceError, agent::Fence};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use crate::core::{model::Order, ports::NetworkBackend};

/// The most subnets and ports that one slice may have.
const MAX_PARTS: usize = 200_000;
/// How long a slice may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(20);

/// Serves the gateway's calls.
pub struct NetworkHandler {
    backend: Arc<dyn NetworkBackend>,
    fence: Arc<Fence>,
    cloud: watch::Receiver<Option<CloudId>>,
}

impl NetworkHandler {
    /// A handler in front of a backend.
    #[must_use]
    pub fn new(backend: Arc<dyn NetworkBackend>, fence: Arc<Fence>, cloud: watch::Receiver<Option<CloudId>>) -> Self {
        Self { backend, fence, cloud }
    }

    async fn apply(&self, messages: Streaming<ApplyVpcRequest>) -> Result<ApplyVpcResponse, ServiceError> {
        let (header, subnets, ports) = tokio::time::timeout(ARRIVAL, collect(messages)).await.map_err(|_| {
            ServiceError::deadline_exceeded(format!("the slice did not arrive within {ARRIVAL:?}; nothing was changed"))
        })??;
        let vpc: VpcId = convert::parse("vpc_id", &header.vpc_id)?;
        let caller = self.fence.admit(header.context.as_ref(), vpc.as_uuid()).await?;
        let slice = convert::slice(&header, caller.epoch, subnets, ports)?;
        let plugged = self.backend.apply(caller.cloud, slice).await.map_err(convert::error)?;
        Ok(ApplyVpcResponse { ports: plugged.into_iter().map(convert::plugged).collect() })
    }

    async fn remove(&self, request: RemoveVpcRequest) -> Result<RemoveVpcResponse, ServiceError> {
        let vpc: VpcId = convert::parse("vpc_id", &request.vpc_id)?;
        let caller = self.fence.admit(request.context.as_ref(), vpc.as_uuid()).await?;
        let order = Order { epoch: caller.epoch, generation: request.generation };
        self.backend.remove(caller.cloud, vpc, order).await.map_err(convert::error)?;
        self.fence.removed(vpc.as_uuid());
        Ok(RemoveVpcResponse {})
    }

    async fn list(&self) -> Result<ListVpcsResponse, ServiceError> {
        let states = self.backend.list().await.map_err(convert::error)?;
        let Some(cloud) = *self.cloud.borrow() else {
            return Err(ServiceError::unavailable(
                "NOT_REGISTERED",
                "this agent has not registered with a gateway yet",
            ));
        };
        Ok(ListVpcsResponse { vpcs: states.into_iter().map(|state| convert::state(cloud, state)).collect() })
    }
}

/// The whole slice: a header, then parts.
async fn collect(
    mut messages: Streaming<ApplyVpcRequest>,
) -> Result<(VpcHeader, Vec<SubnetSlice>, Vec<PortSlice>), ServiceError> {
    let broken = |status: Status| ServiceError::new(status.code(), "BROKEN_STREAM", status.message());
    let first = messages.message().await.map_err(broken)?;
    let Some(Message::Header(header)) = first.and_then(|request| request.message) else {
        return Err(ServiceError::invalid("message", "the first message must be the header"));
    };
    let (mut subnets, mut ports) = (Vec::new(), Vec::new());
    while let Some(request) = messages.message().await.map_err(broken)? {
        let Some(Message::Part(part)) = request.message else {
            return Err(ServiceError::invalid("message", "after the header, every message must be a part"));
        };
        subnets.extend(part.subnets);
        ports.extend(part.ports);
        if subnets.len() + ports.len() > MAX_PARTS {
            return Err(ServiceError::invalid(
                "part",
                format!("a slice may have {MAX_PARTS} subnets and ports at most"),
            ));
        }
    }
    Ok((header, subnets, ports))
}

#[tonic::async_trait]
impl NetworkService for NetworkHandler {
    async fn apply_vpc(
        &self,
        request: Request<Streaming<ApplyVpcRequest>>,
    ) -> Result<Response<ApplyVpcResponse>, Status> {
        Ok(Response::new(self.apply(request.into_inner()).await?))
    }

    async fn remove_vpc(&self, request: Request<RemoveVpcRequest>) -> Result<Response<RemoveVpcResponse>, Status> {
        Ok(Response::new(self.remove(request.into_inner()).await?))
    }

    async fn list_vpcs(&self, _: Request<ListVpcsRequest>) -> Result<Response<ListVpcsResponse>, Status> {
        Ok(Response::new(self.list().await?))
    }
}
