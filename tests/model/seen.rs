//! Resources on the wire as the checker sees them.

use std::collections::BTreeMap;

use cloud_contracts::v1;

use crate::history::{Claims, Key, Kind, Seen};

/// The label that says which call made a resource.
pub const LABEL: &str = "op";

/// Whether it is a root disk. Those come and go with their instances: no call makes or deletes them.
pub fn is_root(seen: &Seen) -> bool {
    seen.key.kind == Kind::Volume && seen.key.name.starts_with("root-")
}

fn made_by(labels: &BTreeMap<String, String>) -> Option<u32> {
    labels.get(LABEL)?.parse().ok()
}

fn version(etag: &str) -> u64 {
    etag.parse().unwrap_or_default()
}

pub fn instance(row: v1::Instance) -> Seen {
    let port = row.ports.first().cloned().unwrap_or_default();
    let claims = Claims {
        host: row.host.clone(),
        vcpus: row.vcpus.into(),
        memory_mib: row.memory_mib.into(),
        vpc: port.vpc,
        subnet: port.subnet,
        ip: port.ip,
        ports: row.ports.iter().map(|p| p.id.clone()).collect(),
        volumes: row.volumes.iter().map(|v| v.id.clone()).collect(),
    };
    Seen {
        made_by: made_by(&row.labels),
        version: version(&row.etag),
        status: row.status().as_str_name().to_owned(),
        dead: row.deleted_at.is_some(),
        key: Key::new(Kind::Instance, row.name),
        id: row.id,
        reason: row.status_reason,
        host: row.host,
        claims: Some(claims),
    }
}

pub fn volume(row: v1::Volume) -> Seen {
    Seen {
        made_by: made_by(&row.labels),
        version: version(&row.etag),
        status: row.status().as_str_name().to_owned(),
        dead: row.deleted_at.is_some(),
        key: Key::new(Kind::Volume, row.name),
        id: row.id,
        reason: row.status_reason,
        host: row.host,
        claims: None,
    }
}

pub fn vpc(row: v1::Vpc) -> Seen {
    network(Key::new(Kind::Vpc, row.name), row.id, &row.labels, &row.etag, row.deleted_at.is_some())
}

pub fn subnet(row: v1::Subnet) -> Seen {
    network(Key::subnet(row.vpc, row.name), row.id, &row.labels, &row.etag, row.deleted_at.is_some())
}

fn network(key: Key, id: String, labels: &BTreeMap<String, String>, etag: &str, dead: bool) -> Seen {
    Seen {
        key,
        id,
        made_by: made_by(labels),
        version: version(etag),
        status: String::new(),
        reason: String::new(),
        dead,
        claims: None,
        host: String::new(),
    }
}
