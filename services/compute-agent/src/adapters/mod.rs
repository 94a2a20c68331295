//! Everything that touches the machine: libvirt, QEMU, files, `/proc`. No rules here.

pub mod accelerator;
pub mod host;
mod kvm_access;
pub mod libvirt;
