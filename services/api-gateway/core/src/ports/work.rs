//! Work: what the reconcilers are given.

use std::time::Duration;

use uuid::Uuid;

/// A kind of work: one reconciler each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkKind {
    /// Make an instance as intended.
    Instance,
    /// Make a volume as intended.
    Volume,
    /// Make a snapshot as intended.
    Snapshot,
    /// Make an image as intended.
    Image,
    /// Tell every host of a VPC its state.
    Vpc,
    /// Remove from a host what no row knows there.
    Orphan,
    /// See a host out that is drained or dead, and back in.
    Host,
}

impl WorkKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Instance, Self::Volume, Self::Snapshot, Self::Image, Self::Vpc, Self::Orphan, Self::Host];

    /// The name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
            Self::Image => "image",
            Self::Vpc => "vpc",
            Self::Orphan => "orphan",
            Self::Host => "host",
        }
    }
}

/// A piece of work that a worker holds the lease of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkItem {
    /// Which reconciler.
    pub kind: WorkKind,
    /// Which resource.
    pub id: Uuid,
    /// Proves the lease.
    pub lease: Uuid,
    /// Goes up with every enqueue; completion clears only what was read.
    pub sequence: i64,
    /// Tries since the last success.
    pub attempts: u32,
    /// The trace of the call that caused it (W3C traceparent), where there was one.
    pub trace: Option<String>,
}

/// How work stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkState {
    /// How long until it is due; none: there is nothing to do.
    pub due_in: Option<Duration>,
    /// Whether a worker has it now.
    pub is_under_way: bool,
    /// Tries since the last success.
    pub attempts: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
}
