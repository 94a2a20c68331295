//! VPCs, their subnets, and ports.

use std::net::Ipv4Addr;

use cloud_domain::{Cidr, HostId, InstanceId, MacAddr, PortId, SubnetId, Vni, VpcId};
use serde::{Deserialize, Serialize};

use super::{Meta, Value, meta::resource};
use crate::filter::{Field, FieldKind, ID, LABELS, NAME};

/// An isolated network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    /// What every row has.
    pub meta: Meta,
    /// The range its subnets lie in.
    pub cidr: Cidr,
    /// Its virtual network identifier.
    pub vni: Vni,
    /// Whether a launch that names no VPC uses it.
    pub is_default: bool,
}

impl Vpc {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> VpcId {
        self.meta.id.into()
    }
}

// The column `generation` is the store's alone: see `Tx::bump_generation`.
resource!(Vpc, Vpc, "vpcs", |row| {
    "vni": Value::Int(row.vni.get().into()),
}, fields: &[
    ID,
    NAME,
    LABELS,
    Field::new("cidr", FieldKind::Text, &["cidr"]),
    Field::new("vni", FieldKind::Whole, &["vni"]),
    Field::new("is_default", FieldKind::Flag, &["is_default"]),
]);

/// A range of a VPC's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// What every row has.
    pub meta: Meta,
    /// Its VPC.
    pub vpc: VpcId,
    /// The VPC's name.
    pub vpc_name: String,
    /// Its range.
    pub cidr: Cidr,
    /// Resolvers told to guests.
    pub dns_servers: Vec<Ipv4Addr>,
}

impl Subnet {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> SubnetId {
        self.meta.id.into()
    }
}

// The column `cursor` is the store's alone: see `Tx::claim_address`.
resource!(Subnet, Subnet, "subnets", |row| {
    "vpc_id": Value::Text(row.vpc.to_string()),
}, fields: &[ID, NAME, LABELS, Field::new("cidr", FieldKind::Text, &["cidr"])]);

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// What every row has. A port's name is its id.
    pub meta: Meta,
    /// Its VPC.
    pub vpc: VpcId,
    /// The VPC's name.
    pub vpc_name: String,
    /// Its subnet.
    pub subnet: SubnetId,
    /// The subnet's name.
    pub subnet_name: String,
    /// Its MAC address, unique in its VPC.
    pub mac: MacAddr,
    /// Its address, unique in its subnet.
    pub ip: Ipv4Addr,
    /// The instance that has it.
    pub instance: InstanceId,
    /// The instance's name.
    pub instance_name: String,
    /// The host it is plugged on.
    pub host: HostId,
    /// That host's name.
    pub host_name: String,
    /// Being unplugged: no longer part of what hosts are told, its address still held.
    pub removing: bool,
}

impl Port {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> PortId {
        self.meta.id.into()
    }
}

resource!(Port, Port, "ports", |row| {
    "vpc_id": Value::Text(row.vpc.to_string()),
    "subnet_id": Value::Text(row.subnet.to_string()),
    "instance_id": Value::Text(row.instance.to_string()),
    "host_id": Value::Text(row.host.to_string()),
    "host_name": Value::Text(row.host_name.clone()),
    "ip": Value::Int(u32::from(row.ip).into()),
    "mac": Value::Text(row.mac.to_string()),
}, fields: &[
    ID,
    Field::new("vpc", FieldKind::Text, &["vpc_name"]),
    Field::new("subnet", FieldKind::Text, &["subnet_name"]),
    Field::new("instance", FieldKind::Text, &["instance_name"]),
    Field::new("host", FieldKind::Text, &["host_name"]).column("host_name"),
    Field::new("ip", FieldKind::Text, &["ip"]),
    Field::new("mac", FieldKind::Text, &["mac"]).column("mac"),
]);
