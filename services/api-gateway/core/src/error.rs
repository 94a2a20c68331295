//! What a call can come to instead of its result. Handlers turn these into status codes; the messages are for users.

use std::fmt;

use crate::{model::Shortage, ports::StoreError};

/// A kind of resource, as users call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An instance.
    Instance,
    /// An instance type.
    InstanceType,
    /// A volume.
    Volume,
    /// An image.
    Image,
    /// A VPC.
    Vpc,
    /// A subnet.
    Subnet,
    /// A port.
    Port,
    /// A host.
    Host,
    /// A project.
    Project,
    /// An API key.
    ApiKey,
    /// A project's limits.
    Quota,
    /// A security group.
    SecurityGroup,
    /// A snapshot.
    Snapshot,
    /// An SSH key.
    SshKey,
    /// Something on a host that no row knows there.
    Orphan,
    /// The cloud's own database.
    Database,
    /// What lets a host join.
    JoinToken,
    /// A host's certificate.
    Certificate,
    /// What certificates come from.
    Authority,
}

impl Kind {
    /// The word for it, lower case; also its name in the work table and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::InstanceType => "instance type",
            Self::Volume => "volume",
            Self::Image => "image",
            Self::Vpc => "vpc",
            Self::Subnet => "subnet",
            Self::Port => "port",
            Self::Host => "host",
            Self::Project => "project",
            Self::ApiKey => "api key",
            Self::Quota => "quota",
            Self::SecurityGroup => "security group",
            Self::Snapshot => "snapshot",
            Self::SshKey => "ssh key",
            Self::Orphan => "orphan",
            Self::Database => "database",
            Self::JoinToken => "join token",
            Self::Certificate => "certificate",
            Self::Authority => "authority",
        }
    }
}

impl Kind {
    /// Whether its deletion is remembered for longer than its row: it has objects on hosts, and what turns up there again is removed only where
    /// this database knows that it was deleted.
    #[must_use]
    pub const fn leaves_tombstone(self) -> bool {
        matches!(self, Self::Instance | Self::Volume | Self::Snapshot | Self::Vpc)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// There is none, or the caller may not see it.
    #[error("no {kind} `{name}`")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// By which id or name.
        name: String,
    },
    /// The name is taken.
    #[error("there is already a {kind} called `{name}`")]
    AlreadyExists {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The request id is another call's.
    #[error("request id `{id}` was used for another call: use a new id for a new call")]
    RequestReused {
        /// The id.
        id: String,
    },
    /// A field of the request cannot be used.
    #[error("`{field}`: {message}")]
    Invalid {
        /// The request's field, as in the contract.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// Not in this state.
    #[error("{message}")]
    Precondition {
        /// Stable, for programs.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// The caller's etag is not the resource's.
    #[error("the {kind} `{name}` has changed since it was read: read it again")]
    StaleEtag {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// No room.
    #[error("{message}")]
    Exhausted {
        /// Stable, for programs.
        reason: &'static str,
        /// What there was no room for, host by host.
        message: String,
    },
    /// A limit of the project.
    #[error("{}", over(.project, .shortages))]
    QuotaExceeded {
        /// The project's name.
        project: String,
        /// Each limit that does not suffice.
        shortages: Vec<Shortage>,
    },
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// The caller is nobody known.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// It goes on, and did not end in time.
    #[error("{0}")]
    Deadline(String),
    /// A watch cannot go on from its resume token.
    #[error("{0}")]
    CannotResume(String),
    /// The consumer of a watch does not keep up.
    #[error("changes came faster than they were taken: watch again with the last resume token")]
    TooSlow,
    /// Something the call needs does not answer now.
    #[error("{message}")]
    Unavailable {
        /// What does not answer.
        message: String,
    },
    /// A fault of the cloud itself.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What users read of limits that do not suffice.
fn over(project: &str, shortages: &[Shortage]) -> String {
    let all: Vec<_> = shortages.iter().map(ToString::to_string).collect();
    format!("the quota of project `{project}` does not suffice: {}", all.join("; "))
}

impl CoreError {
    /// There is no such resource.
    pub fn not_found(kind: Kind, name: impl Into<String>) -> Self {
        Self::NotFound { kind, name: name.into() }
    }

    /// A field of the request cannot be used.
    pub fn invalid(field: &'static str, message: impl fmt::Display) -> Self {
        Self::Invalid { field, message: message.to_string() }
    }

    /// Not in this state.
    pub fn precondition(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Precondition { reason, message: message.into() }
    }
}

impl From<StoreError> for CoreError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                Self::Unavailable { message: "the database does not answer: try again".to_owned() }
            }
            // A write that lost against another one: the caller may repeat the whole call.
            StoreError::Stale => Self::Unavailable { message: "another call changed the same thing: try again".into() },
            StoreError::Repeated => {
                Self::Unavailable { message: "another call with this request id is being made: try again".into() }
            }
            other => Self::Internal(Box::new(other)),
        }
    }
}
