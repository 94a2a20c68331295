//! Between the contract's messages and the model.

use std::{fmt::Display, net::Ipv4Addr, str::FromStr};

use cloud_contracts::agent;
use cloud_domain::{CloudId, VpcId};
use cloud_service_kit::{ServiceError, error::Code};

use crate::core::{
    error::EngineError,
    model::{ModelError, Order, Place, Port, Subnet, VpcSlice},
    ports::{BackendError, PluggedPort, VpcState},
};

/// A text as what it stands for, or which field is wrong.
pub fn parse<T: FromStr<Err: Display>>(field: impl Into<String>, text: &str) -> Result<T, ServiceError> {
    text.parse().map_err(|error| {
        let shown: String = text.chars().take(80).collect();
        ServiceError::invalid(field, format!("`{shown}`: {error}"))
    })
}

/// A slice from its parts.
pub fn slice(
    header: &agent::VpcHeader,
    epoch: u64,
    subnets: Vec<agent::SubnetSlice>,
    ports: Vec<agent::PortSlice>,
) -> Result<VpcSlice, ServiceError> {
    let vni = header.vni.try_into().map_err(|error| ServiceError::invalid("vni", format!("{error}")))?;
    let subnets = subnets.into_iter().enumerate().map(|(i, s)| subnet(i, &s)).collect::<Result<_, _>>()?;
    let ports = ports.into_iter().enumerate().map(|(i, p)| port(i, p)).collect::<Result<_, _>>()?;
    let order = Order { epoch, generation: header.generation };
    VpcSlice::new(parse("vpc_id", &header.vpc_id)?, vni, order, header.mtu, subnets, ports)
        .map_err(|error| ServiceError::invalid(field_of(&error), error.to_string()))
}

fn subnet(index: usize, wire: &agent::SubnetSlice) -> Result<Subnet, ServiceError> {
    let field = |name| format!("subnets[{index}].{name}");
    let dns = wire.dns_servers.iter().enumerate();
    Ok(Subnet {
        id: parse(field("id"), &wire.id)?,
        cidr: parse(field("cidr"), &wire.cidr)?,
        gateway: parse(field("gateway"), &wire.gateway)?,
        dns: dns
            .map(|(n, text)| parse(format!("subnets[{index}].dns_servers[{n}]"), text))
            .collect::<Result<_, _>>()?,
    })
}

fn port(index: usize, wire: agent::PortSlice) -> Result<Port, ServiceError> {
    let field = |name| format!("ports[{index}].{name}");
    let place = if wire.local { Place::Local } else { Place::Remote(tunnel_end(field("tunnel_address"), &wire)?) };
    Ok(Port {
        id: parse(field("id"), &wire.id)?,
        subnet: parse(field("subnet_id"), &wire.subnet_id)?,
        instance: parse(field("instance_id"), &wire.instance_id)?,
        mac: parse(field("mac"), &wire.mac)?,
        ip: parse(field("ip"), &wire.ip)?,
        hostname: wire.hostname,
        place,
    })
}

/// Empty where the other host has none: that host's operator can change it, nobody else can.
fn tunnel_end(field: String, wire: &agent::PortSlice) -> Result<Ipv4Addr, ServiceError> {
    if wire.tunnel_address.is_empty() {
        let message = format!(
            "port {} is on another host, and that host has no tunnel address: start its network-agent with --tunnel-address",
            wire.id
        );
        return Err(ServiceError::failed_precondition("NO_TUNNEL_ADDRESS", message));
    }
    parse(field, &wire.tunnel_address)
}

const fn field_of(error: &ModelError) -> &'static str {
    match error {
        ModelError::Mtu(_) => "mtu",
        ModelError::Gateway(..) | ModelError::Overlap(..) => "subnets",
        _ => "ports",
    }
}

/// A local port for the wire.
pub fn plugged(port: PluggedPort) -> agent::PluggedPort {
    agent::PluggedPort { id: port.port.to_string(), device: port.device, ofport: port.ofport.get().into() }
}

/// A VPC's state for the wire.
pub fn state(cloud: CloudId, state: VpcState) -> agent::VpcState {
    let owner = |cloud: CloudId, vpc: VpcId| agent::Owner {
        cloud_id: cloud.to_string(),
        resource_id: vpc.to_string(),
        incarnation: String::new(),
    };
    agent::VpcState {
        owner: Some(owner(cloud, state.vpc)),
        vni: state.vni.get(),
        epoch: state.order.epoch,
        generation: state.order.generation,
        ports: state.ports.into_iter().map(plugged).collect(),
    }
}

/// What the caller is told of an error.
pub fn error(error: EngineError) -> ServiceError {
    let message = error.to_string();
    match error {
        EngineError::Stale { .. } => ServiceError::failed_precondition("STALE_CALL", message),
        EngineError::Vni { .. } => ServiceError::failed_precondition("VNI_CONFLICT", message),
        EngineError::PortTaken { .. } => ServiceError::failed_precondition("PORT_CONFLICT", message),
        EngineError::NoTunnel(_) => ServiceError::failed_precondition("NO_TUNNEL_ADDRESS", message),
        EngineError::Full => ServiceError::resource_exhausted("host/switch-ports", message),
        EngineError::Cloud(_) => ServiceError::failed_precondition("WRONG_CLOUD", message),
        EngineError::Unregistered => ServiceError::unavailable("NOT_REGISTERED", message),
        EngineError::Ending => ServiceError::unavailable("ENDING", message),
        EngineError::Backend(error) => backend(message, error),
    }
}

fn backend(message: String, error: BackendError) -> ServiceError {
    match error {
        BackendError::Refused(_) => ServiceError::failed_precondition("NOT_OURS", message),
        BackendError::Unavailable { .. } => ServiceError::unavailable("SWITCH_UNAVAILABLE", message).with_source(error),
        BackendError::Failed { .. } => ServiceError::new(Code::Internal, "SWITCH_FAILED", message).with_source(error),
    }
}
