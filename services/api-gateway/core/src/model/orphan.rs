//! Orphans: what a host has with this cloud's tag and no row says is there.

use cloud_domain::{HostId, ImageId, VolumeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AgentRole, Copied, Instance, Meta, Value, meta::resource};
use crate::Kind;

/// What an orphan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrphanKind {
    /// A guest.
    Instance,
    /// A volume.
    Volume,
    /// A snapshot.
    Snapshot,
    /// A VPC's ports and flows.
    Vpc,
}

impl OrphanKind {
    /// The kind of resource that it would be.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Instance => Kind::Instance,
            Self::Volume => Kind::Volume,
            Self::Snapshot => Kind::Snapshot,
            Self::Vpc => Kind::Vpc,
        }
    }

    /// The agent that sees it.
    #[must_use]
    pub const fn role(self) -> AgentRole {
        match self {
            Self::Instance => AgentRole::Compute,
            Self::Volume | Self::Snapshot => AgentRole::Storage,
            Self::Vpc => AgentRole::Network,
        }
    }
}

/// Something on a host that no row says is there. The row ends when it is gone from the host, or when a row knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// What every row has. Its name is the id in the object's tag.
    pub meta: Meta,
    /// What it is.
    pub kind: OrphanKind,
    /// The id in its tag.
    pub object: Uuid,
    /// Where it is.
    pub host: HostId,
    /// That host's name.
    pub host_name: String,
    /// What is known of it, in words.
    pub detail: String,
    /// A guest: whether it runs, or stands still.
    pub active: bool,
    /// A guest: its disks.
    pub volumes: Vec<VolumeId>,
    /// A volume or a snapshot: its size in bytes.
    pub size_bytes: u64,
    /// A volume or a snapshot: its pool.
    pub pool: String,
    /// A volume: the image that it was made from.
    pub image: Option<ImageId>,
    /// A volume: what it was copied from, where that is no image; without its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Copied>,
    /// A guest: what it was when it was last started, where its host knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Box<Instance>>,
    /// A VPC: the generation last applied.
    pub generation: u64,
    /// To be removed from its host.
    pub removing: bool,
    /// Because this database remembers to have deleted it, rather than because an operator said so.
    pub by_tombstone: bool,
}

impl Orphan {
    /// Whether what is known of the object is still the same.
    #[must_use]
    pub fn shows(&self, other: &Self) -> bool {
        let seen = |o: &Self| {
            let start = o.kept.as_ref().map(|kept| (kept.incarnation, kept.boot_generation));
            (o.detail.clone(), o.active, o.volumes.clone(), o.size_bytes, o.generation, start)
        };
        seen(self) == seen(other)
    }
}

resource!(Orphan, Orphan, "orphans", |row| {
    "host_id": Value::Text(row.host.to_string()),
    "object_id": Value::Text(row.object.to_string()),
});
