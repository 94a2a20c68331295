//! The vocabulary of the cloud: ids, names, addresses, sizes and the instance lifecycle. Pure: no I/O, no clock, no wire format.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod address;
mod id;
mod identity;
pub mod join;
mod lifecycle;
mod limits;
mod name;
mod size;

pub use address::{AddressError, Cidr, MacAddr, Vni};
pub use id::{
    ApiKeyId, CloudId, EventId, HostId, IdError, ImageId, Incarnation, InstanceId, PortId, ProjectId, SecurityGroupId,
    SessionId, SnapshotId, SubnetId, VolumeId, VpcId,
};
pub use identity::{Daemon, Identity, IdentityError};
pub use lifecycle::{InstanceStatus, TransitionError};
pub use limits::DiskLimits;
pub use name::{HostName, NameError, ResourceName};
pub use size::{Gib, Mib, SizeError};
