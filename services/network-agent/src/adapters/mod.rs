//! The switch, the devices and the DHCP responder's socket. No rules.

pub mod devices;
pub mod dhcp;
pub mod ovs;
