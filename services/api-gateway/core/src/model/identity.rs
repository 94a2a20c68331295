//! Who calls, and what happened.

use cloud_domain::{ApiKeyId, ProjectId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Meta, RequestKey, Timestamp, Value, meta::resource};
use crate::Kind;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// What every row has. Its `project` is nil: projects belong to the cloud.
    pub meta: Meta,
}

resource!(Project, Project, "projects", |row| {});

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See the project's resources.
    Viewer,
    /// Also make and change them.
    Member,
    /// Also make keys.
    Admin,
    /// Everything, in every project.
    Operator,
}

/// A key that callers authenticate with. Its secret is not kept, only the hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// What every row has.
    pub meta: Meta,
    /// The first characters of the secret.
    pub prefix: String,
    /// BLAKE3 of the secret, in hex. The secret has 256 random bits, so a fast hash is enough.
    pub hash: String,
    /// What it may do.
    pub role: Role,
    /// When it ends; none: never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

resource!(ApiKey, ApiKey, "api_keys", |row| {
    "hash": Value::Text(row.hash.clone()),
});

/// Who makes a call, in which project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key.
    pub key: ApiKeyId,
    /// The key's name.
    pub key_name: String,
    /// What the key may do.
    pub role: Role,
    /// The project the call is about.
    pub project: ProjectId,
    /// That project's name.
    pub project_name: String,
    /// The caller's address.
    pub source: String,
    /// The request's id.
    pub request_id: String,
    /// What the caller calls it, where the same call is to be made once only.
    pub once: Option<RequestKey>,
}

/// Something that happened, about to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The project; nil for what belongs to the cloud.
    pub project: ProjectId,
    /// What kind of resource.
    pub kind: Kind,
    /// Which.
    pub resource: Uuid,
    /// Its name.
    pub name: String,
    /// What happened, such as `instance.launch`.
    pub action: &'static str,
    /// A key's name, or `system`.
    pub actor: String,
    /// The caller's address.
    pub source: String,
    /// More, in words.
    pub message: String,
    /// The request that led to it.
    pub request_id: String,
    /// The call that it carries out, written down with it. A call's first event is about the resource that the call answers with.
    pub once: Option<RequestKey>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id.
    pub id: Uuid,
    /// Goes up with every event.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
    /// The project; nil for what belongs to the cloud.
    pub project: ProjectId,
    /// What kind of resource.
    pub kind: String,
    /// Which.
    pub resource: String,
    /// Its name.
    pub name: String,
    /// What happened.
    pub action: String,
    /// A key's name, or `system`.
    pub actor: String,
    /// The caller's address.
    pub source: String,
    /// `OK`, or the status code of a refusal.
    pub outcome: String,
    /// More, in words.
    pub message: String,
    /// The request that led to it.
    pub request_id: String,
}
