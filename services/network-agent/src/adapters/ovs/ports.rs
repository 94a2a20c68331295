//! Ports as rows of the switch's database, and the tags they carry.

use std::net::Ipv4Addr;

use cloud_domain::CloudId;
use serde_json::{Value, json};

use super::ovsdb::{Row, as_map, as_set, map};
use crate::core::{
    flow::OfPort,
    ports::{NewPort, SwitchPort},
};

/// Tag: whose it is. On bridges, ports and interfaces.
pub const CLOUD: &str = "cloud-id";
/// Tag: the bridge of a guest's port.
pub const BRIDGE: &str = "cloud-bridge";
/// Beginning of a bridge's tags that name VPCs; the rest is the VPC's id, the value its virtual network identifier.
pub const VPC_NOTE: &str = "cloud-vpc/";
const PORT: &str = "cloud-port-id";
const VPC: &str = "cloud-vpc-id";
const VNI: &str = "cloud-vni";
const INSTANCE: &str = "cloud-instance-id";

/// Adds the operations that make a port of one interface; returns the reference to it.
fn port(operations: &mut Vec<Value>, index: usize, name: &str, tags: &Value, mut interface: Value) -> Value {
    interface["name"] = json!(name);
    interface["external_ids"] = tags.clone();
    let (interface_name, port_name) = (format!("interface{index}"), format!("port{index}"));
    operations.push(json!({"op": "insert", "table": "Interface", "uuid-name": interface_name, "row": interface}));
    operations.push(json!({
        "op": "insert", "table": "Port", "uuid-name": port_name,
        "row": {"name": name, "interfaces": ["named-uuid", interface_name], "external_ids": tags},
    }));
    json!(["named-uuid", port_name])
}

/// A port that is a device of the host's own.
pub fn internal(
    operations: &mut Vec<Value>,
    index: usize,
    name: &str,
    ofport: Option<OfPort>,
    cloud: CloudId,
) -> Value {
    let mut interface = json!({"type": "internal"});
    if let Some(ofport) = ofport {
        interface["ofport_request"] = json!(ofport.get());
    }
    port(operations, index, name, &map([(CLOUD, cloud.to_string())]), interface)
}

/// The port of all Geneve tunnels: flows say where to and for which network.
pub fn tunnel(operations: &mut Vec<Value>, index: usize, name: &str, local: Ipv4Addr, cloud: CloudId) -> Value {
    let options = map([("remote_ip", "flow"), ("key", "flow"), ("local_ip", &local.to_string())]);
    let interface = json!({"type": "geneve", "options": options, "ofport_request": OfPort::TUNNEL.get()});
    port(operations, index, name, &map([(CLOUD, cloud.to_string())]), interface)
}

/// A guest's port.
pub fn guest(operations: &mut Vec<Value>, index: usize, new: &NewPort, cloud: CloudId, bridge: &str) -> Value {
    let tags = map([
        (CLOUD, cloud.to_string()),
        (BRIDGE, bridge.to_owned()),
        (PORT, new.port.to_string()),
        (VPC, new.vpc.to_string()),
        (VNI, new.vni.to_string()),
        (INSTANCE, new.instance.to_string()),
    ]);
    port(operations, index, &new.device, &tags, json!({"ofport_request": new.ofport.get()}))
}

/// A guest's port from its interface's row; none where it is not one.
pub fn read(row: &Row) -> Option<SwitchPort> {
    let tags = as_map(&row["external_ids"]);
    let number = as_set(&row["ofport"]).first().and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
    Some(SwitchPort {
        device: row["name"].as_str()?.to_owned(),
        ofport: number.and_then(OfPort::guest),
        error: as_set(&row["error"]).first().and_then(Value::as_str).map(str::to_owned),
        port: tags.get(PORT)?.parse().ok()?,
        vpc: tags.get(VPC)?.parse().ok()?,
    })
}
