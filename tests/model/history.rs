//! What was asked and what was answered, with times: all that the checker knows.

use std::{fmt, time::Duration};

use tonic::Code;

/// A moment of the run: time since its start, by one monotonic clock.
pub type Moment = Duration;

/// Later than all there is.
pub const NEVER: Moment = Duration::MAX;

/// What the clients make and delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Instance,
    Volume,
    Vpc,
    Subnet,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instance => "instance",
            Self::Volume => "volume",
            Self::Vpc => "VPC",
            Self::Subnet => "subnet",
        })
    }
}

/// What a name is unique in: kind, and for a subnet the VPC's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub scope: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, scope: String::new(), name: name.into() }
    }

    pub fn subnet(vpc: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: Kind::Subnet, scope: vpc.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.scope.is_empty() { "" } else { "/" };
        write!(f, "{} `{}{slash}{}`", self.kind, self.scope, self.name)
    }
}

/// Which resource a call is about: what it is called, and its id where that is what the call names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub key: Key,
    pub id: Option<String>,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Launch {
        name: String,
        vpc: String,
        subnet: String,
        volumes: Vec<String>,
    },
    /// Makes anything but an instance.
    Create(Key),
    Get(Target),
    List(Kind),
    Start(Target),
    Stop(Target),
    Reboot(Target),
    Delete(Target),
    /// Gives an instance a volume, by name.
    Attach(Target, String),
    Detach(Target, String),
}

impl Call {
    /// What the call would make.
    pub fn makes(&self) -> Option<Key> {
        match self {
            Self::Launch { name, .. } => Some(Key::new(Kind::Instance, name)),
            Self::Create(key) => Some(key.clone()),
            _ => None,
        }
    }

    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Get(target)
            | Self::Start(target)
            | Self::Stop(target)
            | Self::Reboot(target)
            | Self::Delete(target)
            | Self::Attach(target, _)
            | Self::Detach(target, _) => Some(target),
            Self::Launch { .. } | Self::Create(_) | Self::List(_) => None,
        }
    }

    /// Whether it says what an instance shall do from now on.
    pub fn is_order(&self) -> bool {
        matches!(self, Self::Launch { .. } | Self::Start(_) | Self::Stop(_) | Self::Delete(_))
    }
}

/// What an instance has claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    pub host: String,
    pub vcpus: u64,
    pub memory_mib: u64,
    pub vpc: String,
    pub subnet: String,
    pub ip: String,
    pub ports: Vec<String>,
    /// Ids, the root disk's among them.
    pub volumes: Vec<String>,
}

/// A resource as an answer showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub key: Key,
    pub id: String,
    /// The number of the call that made it, which each puts into a label.
    pub made_by: Option<u32>,
    pub version: u64,
    pub status: String,
    pub reason: String,
    pub dead: bool,
    /// Of an instance.
    pub claims: Option<Claims>,
    /// Where a volume is; empty: nowhere yet.
    pub host: String,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out, and showed these.
    Done(Vec<Seen>),
    /// It was not carried out.
    Refused { code: Code, resource: String, message: String },
    /// It may have been carried out, now or later.
    Unknown { code: Code, message: String },
}

/// A call and what it came to.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its number, unique in the run.
    pub op: u32,
    pub begun: Moment,
    pub ended: Moment,
    pub call: Call,
    pub outcome: Outcome,
}

impl Record {
    pub fn seen(&self) -> &[Seen] {
        match &self.outcome {
            Outcome::Done(seen) => seen,
            _ => &[],
        }
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown { .. })
    }
}
