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

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Member, Self::Admin, Self::Operator];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }
}

/// A secret that was rotated away and still opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldSecret {
    /// Its first characters.
    pub prefix: String,
    /// Its hash.
    pub hash: String,
    /// Until when it opens.
    pub ends_at: Timestamp,
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
    /// The secret before this one.
    #[serde(default)]
    pub old: Option<OldSecret>,
    /// The hashes of all secrets before this one, the newest last: a secret that was rotated away never comes back by the key's file.
    #[serde(default)]
    pub retired: Vec<String>,
}

impl ApiKey {
    /// Whether the secret with this hash opens at this moment.
    #[must_use]
    pub fn opens(&self, hash: &str, now: Timestamp) -> bool {
        let lives = self.revoked_at.is_none() && self.meta.deleted_at.is_none();
        let known = hash == self.hash || self.old.as_ref().is_some_and(|old| old.hash == hash);
        lives && known && self.ends_at(hash).is_none_or(|at| at > now)
    }

    /// When the secret with this hash opens no more, as things stand; none: never.
    #[must_use]
    pub fn ends_at(&self, hash: &str) -> Option<Timestamp> {
        let old = self.old.as_ref().filter(|old| hash != self.hash && old.hash == hash);
        self.expires_at.into_iter().chain(old.map(|old| old.ends_at)).min()
    }
}

resource!(ApiKey, ApiKey, "api_keys", |row| {
    "hash": Value::Text(row.hash.clone()),
    "old_hash": Value::text(row.old.as_ref().map(|old| &old.hash)),
    "role": Value::Text(row.role.as_str().to_owned()),
});

/// Who makes a call, in which project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key.
    pub key: ApiKeyId,
    /// The hash of the secret that was shown.
    pub hash: String,
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
    /// Which; nil where a refused call named none by its id.
    pub resource: Uuid,
    /// Its name.
    pub name: String,
    /// What happened, such as `instance.launch`.
    pub action: &'static str,
    /// A key's name, or `system`.
    pub actor: String,
    /// The caller's address.
    pub source: String,
    /// [`NewEvent::OK`], or the status code of a refusal.
    pub outcome: &'static str,
    /// More, in words.
    pub message: String,
    /// The request that led to it.
    pub request_id: String,
    /// The call that it carries out, written down with it. A call's first event is about the resource that the call answers with.
    pub once: Option<RequestKey>,
}

impl NewEvent {
    /// The outcome of what was done.
    pub const OK: &'static str = "OK";
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
