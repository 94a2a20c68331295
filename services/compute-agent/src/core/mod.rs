//! The rules: what must happen to a guest, given what is asked and what is there. No I/O; the hypervisor is a port.

mod decide;
mod difference;
mod disks;
mod error;
mod guest;
mod host_stop;
mod observe;
mod ports;
mod reboot;
mod serial_work;
mod service;

pub use decide::{EnsureStep, decide_ensure};
pub use difference::SpecRecord;
pub use error::{ComputeError, HypervisorError};
pub use guest::{
    DeviceName, Disk, DiskFormat, Ended, Found, Guest, GuestSpec, Nic, PendingReboot, Power, Reason, Seed, SpecError,
    Tag,
};
pub use host_stop::{StopError, stop_guest};
pub use ports::{ByteStream, Hypervisor, HypervisorEvent};
pub use service::Compute;

#[cfg(test)]
mod tests;
