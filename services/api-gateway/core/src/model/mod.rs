//! The cloud's resources as rows: what is remembered of each.

mod host;
mod identity;
mod image;
mod instance;
mod join;
mod meta;
mod network;
mod orphan;
mod quota;
mod request;
mod snapshot;
mod volume;

pub(crate) use host::STATE;
pub use host::{Agent, AgentRole, Host, HostCapacity, HostLimits, HostMode, Pool};
pub use identity::{ApiKey, Caller, Event, NewEvent, OldSecret, Project, Role};
pub use image::{ARCHITECTURES, Image, ImageFormat, ImageSource, ImageStatus, Visibility};
pub use instance::{
    Desired, Disk, DiskChange, Instance, InstanceType, MAX_DISKS, Nic, Placed, PlacedCandidate, RestartPolicy,
};
pub use join::{Authority, HostCertificate, JoinToken};
pub use meta::{Labels, Meta, Resource, Timestamp, Value};
pub use network::{Port, Subnet, Vpc};
pub use orphan::{Orphan, OrphanKind};
pub use quota::{
    Amounts, Limited, NO_LIMIT, Quota, Shortage, default_limits, held_by_instance, held_by_snapshot, held_by_volume,
};
pub use request::{DoneRequest, RequestKey};
pub use snapshot::{Snapshot, SnapshotStatus};
pub use volume::{Copied, DEFAULT_POOL, Volume, VolumeLimits, VolumeSource, VolumeStatus};
