//! The lifecycle of an instance: which status may follow which.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What users see of an instance. Source: the specification, section 2, and the states it needs beside those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InstanceStatus {
    /// Accepted; being provisioned or started.
    Starting,
    /// Runs on the hypervisor.
    Running,
    /// Asked to stop; the guest is shutting down.
    Stopping,
    /// Does not run; its disk is kept.
    Stopped,
    /// Stands still with its memory kept.
    Paused,
    /// Could not be provisioned, or lost its data; the reason says which.
    Error,
    /// Being deleted.
    Deleting,
    /// Gone from its host; the row is kept for a while.
    Deleted,
}

/// A change that the lifecycle does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance that is {from} cannot become {to}")]
pub struct TransitionError {
    /// The status it has.
    pub from: InstanceStatus,
    /// The status that was asked for.
    pub to: InstanceStatus,
}

use InstanceStatus::{Deleted, Deleting, Error, Paused, Running, Starting, Stopped, Stopping};

impl InstanceStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [Starting, Running, Stopping, Stopped, Paused, Error, Deleting, Deleted];

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Starting => "STARTING",
            Running => "RUNNING",
            Stopping => "STOPPING",
            Stopped => "STOPPED",
            Paused => "PAUSED",
            Error => "ERROR",
            Deleting => "DELETING",
            Deleted => "DELETED",
        }
    }

    /// Whether `to` may follow. Staying is always allowed.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        if self == to {
            return true;
        }
        match self {
            Starting => matches!(to, Running | Stopping | Stopped | Error | Deleting),
            Running => matches!(to, Starting | Stopping | Stopped | Paused | Error | Deleting),
            Stopping => matches!(to, Stopped | Starting | Error | Deleting),
            Stopped => matches!(to, Starting | Running | Error | Deleting),
            Paused => matches!(to, Running | Starting | Stopping | Stopped | Error | Deleting),
            Error => matches!(to, Starting | Running | Stopping | Stopped | Deleting),
            Deleting => matches!(to, Deleted),
            Deleted => false,
        }
    }

    /// `to`, where it may follow.
    ///
    /// # Errors
    /// Where it may not.
    pub fn transition(self, to: Self) -> Result<Self, TransitionError> {
        if self.may_become(to) { Ok(to) } else { Err(TransitionError { from: self, to }) }
    }

    /// Whether a name, an address and capacity are still held.
    #[must_use]
    pub const fn is_live(self) -> bool {
        !matches!(self, Deleted)
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for InstanceStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| format!("`{text}` is not an instance status"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn status() -> impl Strategy<Value = InstanceStatus> {
        select(InstanceStatus::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn nothing_returns_from_deletion(path in proptest::collection::vec(status(), 0..20)) {
            let mut now = Starting;
            let mut deleting = false;
            for next in path {
                if let Ok(to) = now.transition(next) {
                    now = to;
                }
                deleting |= matches!(now, Deleting | Deleted);
                prop_assert!(!deleting || matches!(now, Deleting | Deleted));
            }
        }

        #[test]
        fn everything_live_can_be_deleted(s in status()) {
            prop_assert_eq!(s.may_become(Deleting), s.is_live());
        }

        #[test]
        fn names_are_read_back(s in status()) {
            prop_assert_eq!(s.as_str().parse::<InstanceStatus>().unwrap(), s);
        }
    }
}
