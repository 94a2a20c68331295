//! What the rules need from the world.

use std::time::Duration;

use async_trait::async_trait;
use cloud_domain::{InstanceId, Mib, VolumeId};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::broadcast,
};

use super::{Disk, Found, Guest, GuestSpec, HypervisorError, Tag};

/// Bytes both ways, such as a console.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// What the hypervisor tells by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HypervisorEvent {
    /// The domain with this instance's name was defined, started, stopped, paused, tagged or removed.
    Changed(InstanceId),
    /// Its guest started over, by itself or by request.
    Rebooted(InstanceId),
    /// A connection was made; everything may have changed before it.
    Connected,
    /// The connection was lost; changes are not told until the next `Connected`.
    Lost,
}

/// The hypervisor of this host. Every method has a deadline and may be repeated.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// The domain with this instance's UUID or name. `None` only where a working hypervisor says so.
    async fn find(&self, id: InstanceId) -> Result<Option<Found>, HypervisorError>;

    /// Every domain with a cloud's tag.
    async fn list(&self) -> Result<Vec<Guest>, HypervisorError>;

    /// Writes the seed and the record, and defines the domain, or defines it anew where it is off. Starts nothing.
    async fn define(&self, spec: &GuestSpec, tag: &Tag) -> Result<(), HypervisorError>;

    /// Starts a defined domain.
    async fn start(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Writes the tag on the domain.
    async fn write_tag(&self, tag: &Tag) -> Result<(), HypervisorError>;

    /// Presses the power button.
    async fn shutdown(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Asks the guest to start over; tells [`HypervisorEvent::Rebooted`] when it does.
    async fn reboot(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Presses the reset button.
    async fn reset(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Pulls the plug.
    async fn power_off(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Has a running guest see that a disk is larger, and where the disk is a file that the hypervisor has open, grows it.
    async fn resize_disk(&self, id: InstanceId, volume: VolumeId, size: Mib) -> Result<(), HypervisorError>;

    /// Gives a running guest a disk with its limits, or where it has it, gives it these limits; in what it will have at a start of the hypervisor's own, too.
    async fn attach_disk(&self, id: InstanceId, disk: &Disk) -> Result<(), HypervisorError>;

    /// Asks a running guest to release a disk, and waits a few seconds for it; takes it from one that is off. Whether neither has it any more.
    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<bool, HypervisorError>;

    /// Removes a domain that is off, and everything that the hypervisor keeps for it.
    async fn undefine(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// The record that is kept of the guest; empty where there is none.
    async fn record(&self, id: InstanceId) -> Result<String, HypervisorError>;

    /// Keeps another record.
    async fn keep_record(&self, id: InstanceId, record: &str) -> Result<(), HypervisorError>;

    /// Removes the files made for the guest (seed, record, console log).
    async fn remove_files(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// The end of what the serial console said, `max_bytes` at most.
    async fn console_log(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HypervisorError>;

    /// The serial console. Any number of viewers may have it at once.
    async fn open_serial(&self, id: InstanceId) -> Result<Box<dyn ByteStream>, HypervisorError>;

    /// The screen, speaking RFB.
    async fn open_screen(&self, id: InstanceId) -> Result<Box<dyn ByteStream>, HypervisorError>;

    /// Events from now on; a receiver that is too slow misses some and is told so.
    fn events(&self) -> broadcast::Receiver<HypervisorEvent>;

    /// Whether there is a connection now.
    fn is_connected(&self) -> bool;

    /// How long a guest has to follow a reboot before it is reset.
    fn reboot_grace(&self) -> Duration {
        Duration::from_secs(15)
    }
}
