//! network-agents.

use async_trait::async_trait;
use cloud_contracts::agent::{self as wire, apply_vpc_request::Message, network_service_client::NetworkServiceClient};
use cloud_core::{
    model::AgentRole,
    ports::{BackendError, FoundVpc, NetworkBackend, PluggedPort, SlicePort, SliceSubnet, VpcSlice},
};
use cloud_domain::{HostId, VpcId};
use cloud_service_kit::channel::AgentChannel;

use super::{
    Agents,
    clients::{Found, odd, request},
};

/// Ports in one message of a slice.
const PART: usize = 1000;

fn client(found: &Found) -> NetworkServiceClient<AgentChannel> {
    NetworkServiceClient::new(found.channel.clone())
}

fn subnet(s: &SliceSubnet) -> wire::SubnetSlice {
    wire::SubnetSlice {
        id: s.id.to_string(),
        cidr: s.cidr.to_string(),
        gateway: s.cidr.gateway().to_string(),
        dns_servers: s.dns_servers.iter().map(ToString::to_string).collect(),
    }
}

fn port(p: &SlicePort) -> wire::PortSlice {
    wire::PortSlice {
        id: p.id.to_string(),
        subnet_id: p.subnet.to_string(),
        instance_id: p.instance.to_string(),
        mac: p.mac.to_string(),
        ip: p.ip.to_string(),
        local: p.local,
        tunnel_address: p.tunnel_address.clone(),
        hostname: p.hostname.clone(),
    }
}

/// The header, then the subnets, then the ports a thousand at a time.
fn messages(slice: &VpcSlice, context: wire::CallContext) -> Vec<wire::ApplyVpcRequest> {
    let header = wire::VpcHeader {
        context: Some(context),
        vpc_id: slice.vpc.to_string(),
        vni: slice.vni.get(),
        generation: slice.generation,
        mtu: slice.mtu,
    };
    let part = |part| Message::Part(part);
    let subnets = wire::VpcPart { subnets: slice.subnets.iter().map(subnet).collect(), ports: Vec::new() };
    let ports =
        slice.ports.chunks(PART).map(|c| wire::VpcPart { subnets: Vec::new(), ports: c.iter().map(port).collect() });
    [Message::Header(header), part(subnets)]
        .into_iter()
        .chain(ports.map(part))
        .map(|m| wire::ApplyVpcRequest { message: Some(m) })
        .collect()
}

fn found_vpc(state: &wire::VpcState) -> Result<FoundVpc, BackendError> {
    let owner = state.owner.as_ref().ok_or_else(|| odd("a VPC without an owner"))?;
    let port = |p: &wire::PluggedPort| p.id.parse().map_err(|_| odd("a port whose id is not a UUID"));
    Ok(FoundVpc {
        id: owner.resource_id.parse().map_err(|_| odd("a VPC whose id is not a UUID"))?,
        vni: state.vni,
        order: (state.epoch, state.generation),
        ports: state.ports.iter().map(port).collect::<Result<_, _>>()?,
    })
}

#[async_trait]
impl NetworkBackend for Agents {
    async fn apply(&self, host: HostId, slice: &VpcSlice) -> Result<Vec<PluggedPort>, BackendError> {
        let found = self.find(host, AgentRole::Network)?;
        let messages = messages(slice, self.context(&found, slice.generation, String::new()));
        let call = async { client(&found).apply_vpc(request(futures::stream::iter(messages))).await };
        let plugged = self.call(host, &found, call).await?.ports;
        let port = |p: wire::PluggedPort| {
            let id = p.id.parse().map_err(|_| odd("a port whose id is not a UUID"))?;
            Ok(PluggedPort { id, device: p.device })
        };
        plugged.into_iter().map(port).collect()
    }

    async fn remove(&self, host: HostId, vpc: VpcId, generation: u64) -> Result<(), BackendError> {
        let found = self.find(host, AgentRole::Network)?;
        let context = Some(self.context(&found, generation, String::new()));
        let message = wire::RemoveVpcRequest { context, vpc_id: vpc.to_string(), generation };
        self.call(host, &found, client(&found).remove_vpc(request(message))).await?;
        Ok(())
    }

    async fn list_vpcs(&self, host: HostId) -> Result<Vec<FoundVpc>, BackendError> {
        let found = self.find(host, AgentRole::Network)?;
        let call = async { client(&found).list_vpcs(request(wire::ListVpcsRequest {})).await };
        self.call(host, &found, call).await?.vpcs.iter().map(found_vpc).collect()
    }
}
