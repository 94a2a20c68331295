//! The agents of the hosts, as the business sees them. Implemented by gRPC clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use async_trait::async_trait;
use cloud_domain::{
    DiskLimits, HostId, ImageId, Incarnation, InstanceId, MacAddr, PortId, SnapshotId, SubnetId, Vni, VolumeId, VpcId,
};
use futures::stream::BoxStream;

use super::ImageFile;
use crate::model::{Copied, Timestamp, VolumeSource};

/// Why an agent did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The host does not answer, or not in time: nothing is known. Try again.
    #[error("{0}")]
    Unreachable(String),
    /// The agent's backend says that there is none.
    #[error("{0}")]
    NotFound(String),
    /// The host has data missing that was there: for a person.
    #[error("{0}")]
    DataMissing(String),
    /// The host has no room.
    #[error("{0}")]
    Exhausted(String),
    /// The call is older than another one, or for another run of the agent: read again, try again.
    #[error("{0}")]
    Stale(String),
    /// Not in this state, which may pass.
    #[error("{0}")]
    Precondition(String),
    /// The agent will never do it: the request itself is wrong.
    #[error("{0}")]
    Refused(String),
    /// The agent failed.
    #[error("{0}")]
    Failed(String),
}

impl BackendError {
    /// Whether trying again cannot help.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::DataMissing(_) | Self::Exhausted(_))
    }
}

/// Which object a call is about, and how new its intent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestTarget {
    /// Where.
    pub host: HostId,
    /// The instance.
    pub id: InstanceId,
    /// The row's version.
    pub version: u64,
    /// The start it is at.
    pub incarnation: Incarnation,
}

/// A guest to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSpec {
    /// The instance's name.
    pub name: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Disks, the boot disk first.
    pub disks: Vec<DiskSpec>,
    /// NICs, in order.
    pub nics: Vec<NicSpec>,
    /// Public keys.
    pub ssh_keys: Vec<String>,
    /// user-data.
    pub user_data: String,
    /// Reboots asked for.
    pub boot_generation: u64,
    /// What [`ComputeBackend::record`] shall answer.
    pub record: String,
}

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The volume.
    pub volume: VolumeId,
    /// Where the storage-agent put it.
    pub path: String,
    /// `qcow2` or `raw`.
    pub format: String,
    /// How much the guest may do with it in a second.
    pub limits: DiskLimits,
}

/// A NIC of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpec {
    /// The port.
    pub port: PortId,
    /// Its MAC address.
    pub mac: MacAddr,
    /// The tap that the network-agent made.
    pub device: String,
    /// In bytes.
    pub mtu: u32,
}

/// What a guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuestPower {
    /// Runs.
    Running,
    /// Does not run.
    Shutoff,
    /// Stands still.
    Paused,
    /// Ended in a fault.
    Crashed,
}

/// Why a guest does what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuestReason {
    /// The hypervisor does not say.
    Unknown,
    /// Shut itself down, or followed a request to.
    GuestShutdown,
    /// Powered off from outside.
    Destroyed,
    /// Crashed.
    Crashed,
    /// Could not be started.
    Failed,
    /// An I/O error, such as a full disk.
    IoError,
    /// Never started.
    NeverStarted,
}

/// A guest as its hypervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guest {
    /// The instance.
    pub id: InstanceId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// What it does.
    pub power: GuestPower,
    /// Why.
    pub reason: GuestReason,
    /// The boot generation last carried out.
    pub boot_generation: u64,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// Its disks, the boot disk first: those that it may have open.
    pub volumes: Vec<VolumeId>,
    /// The limits of the disks that it has as it runs. An agent of an earlier release sets none, and says nothing of them.
    pub limits: BTreeMap<VolumeId, DiskLimits>,
}

impl Guest {
    /// Whether a process holds its disks.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self.power, GuestPower::Running | GuestPower::Paused)
    }

    /// Whether it may have a volume open.
    #[must_use]
    pub fn may_have_open(&self, volume: VolumeId) -> bool {
        self.is_active() && self.volumes.contains(&volume)
    }

    /// Whether it has a disk with these limits.
    #[must_use]
    pub fn is_limited(&self, volume: VolumeId, limits: DiskLimits) -> bool {
        self.limits.get(&volume).copied().unwrap_or_default() == limits
    }
}

/// Guests on hosts.
#[async_trait]
pub trait ComputeBackend: Send + Sync {
    /// Makes the guest exist and run as specified.
    async fn ensure(&self, target: GuestTarget, spec: GuestSpec) -> Result<Guest, BackendError>;
    /// Asks it to stop, or (`force`) powers it off. None: there is no such guest.
    async fn stop(&self, target: GuestTarget, force: bool) -> Result<Option<Guest>, BackendError>;
    /// Removes it and all that was made for it. What is gone is success.
    async fn remove(&self, target: GuestTarget) -> Result<(), BackendError>;
    /// Has a running guest see that a disk of it is larger, and grows a disk that only its hypervisor may change. Precondition where it does
    /// not run.
    async fn resize_disk(&self, target: GuestTarget, volume: VolumeId, size_bytes: u64) -> Result<(), BackendError>;
    /// Gives a running guest a disk, unless it has it, and its limits in any case, and has this record kept. Precondition where it does not run.
    async fn attach_disk(&self, target: GuestTarget, disk: DiskSpec, record: String) -> Result<Guest, BackendError>;
    /// Asks a running guest to release a disk, and answers with the guest after a few seconds, which may have it still: then it is to be asked again. Takes it
    /// from a guest that does not run. When it is no disk of the guest any more, this record is kept. None: there is no such guest.
    async fn detach_disk(
        &self,
        target: GuestTarget,
        volume: VolumeId,
        record: String,
    ) -> Result<Option<Guest>, BackendError>;
    /// The guest; none only where a healthy hypervisor says so.
    async fn get(&self, host: HostId, id: InstanceId) -> Result<Option<Guest>, BackendError>;
    /// The record that is kept of a guest; empty where it has none. None: there is no such guest.
    async fn record(&self, host: HostId, id: InstanceId) -> Result<Option<String>, BackendError>;
    /// Every guest of this cloud on a host.
    async fn list(&self, host: HostId) -> Result<Vec<Guest>, BackendError>;
    /// Instances whose state changed, as it happens. Ends with the connection.
    async fn watch(&self, host: HostId) -> Result<BoxStream<'static, InstanceId>, BackendError>;
    /// The end of a guest's console log.
    async fn console_log(&self, host: HostId, id: InstanceId, max_bytes: u32) -> Result<Vec<u8>, BackendError>;
}

/// A volume to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Where.
    pub host: HostId,
    /// The volume.
    pub id: VolumeId,
    /// The row's version.
    pub version: u64,
    /// In bytes.
    pub size_bytes: u64,
    /// What it starts as.
    pub source: VolumeSource,
    /// The pool; empty: the default one.
    pub pool: String,
    /// The row says CREATING.
    pub may_create: bool,
}

/// A volume on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVolume {
    /// The volume.
    pub id: VolumeId,
    /// What a hypervisor there opens.
    pub path: String,
    /// `qcow2` or `raw`.
    pub format: String,
    /// The pool it is in.
    pub pool: String,
}

/// A volume as its host's pool lists it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FoundVolume {
    /// The volume.
    pub id: VolumeId,
    /// Its size in bytes, as a guest sees it.
    pub size_bytes: u64,
    /// The image that it was made from.
    pub image: Option<ImageId>,
    /// What it was copied from, where that is no image; without its name.
    pub copied: Option<Copied>,
    /// The pool it is in.
    pub pool: String,
    /// What a hypervisor there opens.
    pub path: String,
    /// `qcow2` or `raw`.
    pub format: String,
}

/// A snapshot to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// Where.
    pub host: HostId,
    /// The snapshot.
    pub id: SnapshotId,
    /// The row's version.
    pub version: u64,
    /// The volume that it is of.
    pub volume: VolumeId,
    /// The pool; empty: the default one.
    pub pool: String,
    /// The row says CREATING.
    pub may_create: bool,
}

/// A snapshot on a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FoundSnapshot {
    /// The snapshot.
    pub id: SnapshotId,
    /// The volume that it is of.
    pub volume: VolumeId,
    /// Its size in bytes, as a guest would see it.
    pub size_bytes: u64,
    /// The pool it is in.
    pub pool: String,
}

/// Volumes, snapshots and cached images on hosts.
#[async_trait]
pub trait StorageBackend: Send + Sync {
    /// Whether a pool of the host has the image.
    async fn has_image(&self, host: HostId, pool: &str, image: ImageId) -> Result<bool, BackendError>;
    /// Sends the image to a pool of the host. Takes as long as it takes, as long as it moves.
    async fn put_image(
        &self,
        host: HostId,
        pool: &str,
        image: ImageId,
        version: u64,
        file: ImageFile,
    ) -> Result<(), BackendError>;
    /// Removes a cached image from every pool; Precondition while volumes or snapshots stand on it.
    async fn remove_image(&self, host: HostId, image: ImageId, version: u64) -> Result<(), BackendError>;
    /// Makes a volume exist as specified.
    async fn ensure_volume(&self, spec: VolumeSpec) -> Result<StoredVolume, BackendError>;
    /// Removes a volume. What is gone is success.
    async fn remove_volume(&self, host: HostId, id: VolumeId, version: u64) -> Result<(), BackendError>;
    /// Grows a volume. Precondition where only its hypervisor can, as a guest has it open.
    async fn resize_volume(
        &self,
        host: HostId,
        id: VolumeId,
        version: u64,
        size_bytes: u64,
    ) -> Result<(), BackendError>;
    /// Makes a snapshot exist as specified.
    async fn ensure_snapshot(&self, spec: SnapshotSpec) -> Result<FoundSnapshot, BackendError>;
    /// Removes a snapshot. What is gone is success.
    async fn remove_snapshot(&self, host: HostId, id: SnapshotId, version: u64) -> Result<(), BackendError>;
    /// Every snapshot of this cloud on a host whose data are there. One that cannot be read is left out.
    async fn list_snapshots(&self, host: HostId) -> Result<Vec<FoundSnapshot>, BackendError>;
    /// Every volume of this cloud on a host whose data are there. One that cannot be read is left out.
    async fn list_volumes(&self, host: HostId) -> Result<Vec<FoundVolume>, BackendError>;
}

/// What a host is told of a VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcSlice {
    /// The VPC.
    pub vpc: VpcId,
    /// Its network identifier.
    pub vni: Vni,
    /// How new this is.
    pub generation: u64,
    /// Bytes a guest may send in one packet.
    pub mtu: u32,
    /// Its subnets.
    pub subnets: Vec<SliceSubnet>,
    /// Its NICs, on this host and on others.
    pub ports: Vec<SlicePort>,
}

/// A subnet, as hosts are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceSubnet {
    /// The subnet.
    pub id: SubnetId,
    /// Its range.
    pub cidr: cloud_domain::Cidr,
    /// Resolvers told to guests.
    pub dns_servers: Vec<Ipv4Addr>,
}

/// A NIC, as hosts are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The port.
    pub id: PortId,
    /// Its subnet.
    pub subnet: SubnetId,
    /// The instance that has it.
    pub instance: InstanceId,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Whether it is on the host that is told.
    pub local: bool,
    /// Where the tunnel to its host ends, if it is on another one.
    pub tunnel_address: String,
    /// The name told to the guest.
    pub hostname: String,
}

/// A NIC as plugged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluggedPort {
    /// The port.
    pub id: PortId,
    /// The tap that a hypervisor uses.
    pub device: String,
}

/// What a host has of a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FoundVpc {
    /// The VPC.
    pub id: VpcId,
    /// Its network identifier.
    pub vni: u32,
    /// Epoch and generation that the agent last applied; zero where it was restarted since.
    pub order: (u64, u64),
    /// The ports that are plugged there.
    pub ports: BTreeSet<PortId>,
}

/// Virtual networks on hosts.
#[async_trait]
pub trait NetworkBackend: Send + Sync {
    /// Replaces what the host knows of a VPC. Returns when its switch forwards by it.
    async fn apply(&self, host: HostId, slice: &VpcSlice) -> Result<Vec<PluggedPort>, BackendError>;
    /// Makes the host forget a VPC.
    async fn remove(&self, host: HostId, vpc: VpcId, generation: u64) -> Result<(), BackendError>;
    /// What a host has of every VPC of this cloud.
    async fn list_vpcs(&self, host: HostId) -> Result<Vec<FoundVpc>, BackendError>;
}
