//! Why something could not be done.

use std::{path::PathBuf, time::Duration};

use cloud_domain::{Incarnation, InstanceId, VolumeId};

use super::SpecError;

/// A refusal or a failure, as handlers tell it to the gateway.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// A healthy hypervisor has no such guest.
    #[error("there is no guest {0} on this host")]
    NotFound(InstanceId),
    /// The name or UUID is taken by a domain that is not ours.
    #[error("the domain for instance {id} is not this cloud's and is left alone: {what}")]
    Foreign {
        /// The instance.
        id: InstanceId,
        /// What is there.
        what: String,
    },
    /// Another start of the same instance still runs.
    #[error("instance {id} already runs as incarnation {running}; stop it before starting incarnation {asked}")]
    OtherIncarnationRunning {
        /// The instance.
        id: InstanceId,
        /// The one there.
        running: Incarnation,
        /// The one asked for.
        asked: Incarnation,
    },
    /// The same incarnation was asked for with something else.
    #[error("incarnation {incarnation} of instance {id} exists with another specification: {difference}")]
    SpecDiffers {
        /// The instance.
        id: InstanceId,
        /// The incarnation.
        incarnation: Incarnation,
        /// What differs, both values named.
        difference: String,
    },
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] SpecError),
    /// Another call works on the same instance for too long.
    #[error("another call is still working on instance {0}; try again")]
    Busy(InstanceId),
    /// The volume is no disk of the guest.
    #[error("volume {volume} is no disk of instance {id}")]
    NoDisk {
        /// The instance.
        id: InstanceId,
        /// The volume.
        volume: VolumeId,
    },
    /// The guest does not run, so there is nothing to connect to, and nobody to see a change.
    #[error("instance {0} does not run: it has no live console, and its disks are not open")]
    NotRunning(InstanceId),
    /// The hypervisor failed.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
}

/// What the hypervisor, or the files beside it, refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HypervisorError {
    /// No connection, or it was lost during the call: nothing is known.
    #[error("the hypervisor is not reachable: {0}")]
    Unavailable(String),
    /// It did not answer in time: nothing is known.
    #[error("the hypervisor did not answer within {} s to: {action}", .limit.as_secs())]
    Deadline {
        /// What was asked.
        action: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The host has not enough memory.
    #[error("the host cannot give the guest its memory: {0}")]
    NoMemory(String),
    /// A disk's file is not there.
    #[error("a file of the guest is missing on this host: {0}")]
    MissingFile(String),
    /// The hypervisor's user may not open a file.
    #[error("the hypervisor may not open a file of the guest: {0}")]
    FileAccess(String),
    /// Another process holds a disk.
    #[error("a disk of the guest is in use by another process: {0}")]
    DiskLocked(String),
    /// The tap device is not there.
    #[error("a network device of the guest is missing or in use on this host: {0}")]
    NetworkDevice(String),
    /// The domain went away in the meantime.
    #[error("the domain is gone")]
    Gone,
    /// The domain is not in the state the action needs, such as asking a guest to shut down that is off.
    #[error("the guest is not in a state for this: {0}")]
    WrongState(String),
    /// The agent's own files for the guest.
    #[error("cannot write the guest's files at `{path}`: {problem}", path = .path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// Anything else, in the hypervisor's words.
    #[error("the hypervisor failed to {action}: {message}")]
    Failed {
        /// What was asked.
        action: &'static str,
        /// Its words.
        message: String,
    },
}
