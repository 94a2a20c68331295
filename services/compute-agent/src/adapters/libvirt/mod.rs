//! The hypervisor port over libvirt.

mod connection;
mod disks;
mod domain_xml;
mod errors;
mod events;
mod files;
mod hypervisor;
mod iotune;
mod lookup;
mod seed;
mod serial;
mod tag_xml;

pub use hypervisor::{HostInfo, LibvirtHypervisor, LibvirtSettings};
