//! The simulated network-agent.

use cloud_contracts::agent::{
    ApplyVpcRequest, ApplyVpcResponse, ListVpcsRequest, ListVpcsResponse, RemoveVpcRequest, RemoveVpcResponse, VpcPart,
    apply_vpc_request::Message, network_service_server::NetworkService,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Method, Role, agent::Agent, fence::Kind, model::SimVpc, status::invalid};

#[async_trait::async_trait]
impl NetworkService for Agent {
    async fn apply_vpc(
        &self,
        request: Request<Streaming<ApplyVpcRequest>>,
    ) -> Result<Response<ApplyVpcResponse>, Status> {
        let mut plan = self.begin(Method::ApplyVpc).await?;
        let mut incoming = request.into_inner();
        let Some(Message::Header(header)) = incoming.message().await?.and_then(|m| m.message) else {
            return Err(invalid("header", "must be the first message"));
        };
        let mut whole = VpcPart::default();
        while let Some(message) = incoming.message().await? {
            let Some(Message::Part(part)) = message.message else {
                return Err(invalid("part", "must follow the header"));
            };
            whole.subnets.extend(part.subnets);
            whole.ports.extend(part.ports);
        }
        let ports = {
            let mut model = self.host.model();
            let fence = model.fences.of(Role::Network);
            let context = fence.admit_as(header.context.clone(), &header.vpc_id, header.generation, Kind::Change)?;
            let owner = Agent::owner(&context, &header.vpc_id, "");
            model.apply_vpc(owner, &header, context.epoch, whole)?
        };
        plan.after().await?;
        Ok(Response::new(ApplyVpcResponse { ports }))
    }

    async fn remove_vpc(&self, request: Request<RemoveVpcRequest>) -> Result<Response<RemoveVpcResponse>, Status> {
        self.call(Method::RemoveVpc, |model| {
            let RemoveVpcRequest { context, vpc_id, generation } = request.into_inner();
            model.fences.of(Role::Network).admit_as(context, &vpc_id, generation, Kind::Removal)?;
            model.remove_vpc(&vpc_id).map(|()| RemoveVpcResponse {})
        })
        .await
    }

    async fn list_vpcs(&self, _request: Request<ListVpcsRequest>) -> Result<Response<ListVpcsResponse>, Status> {
        self.call(Method::ListVpcs, |model| {
            let ours = model.is.vpcs.values().filter(|v| model.is_ours(&v.owner));
            Ok(ListVpcsResponse { vpcs: ours.map(SimVpc::wire).collect() })
        })
        .await
    }
}
