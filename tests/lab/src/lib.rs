//! The lab: a cloud whose hosts are virtual machines with a stock Debian kernel, on any developer's machine.
//!
//! What a host of the lab has is what a host of a real cloud has: systemd, LVM on a disk of its own, libvirt, KVM, Open vSwitch in the kernel,
//! and our agents from our own packages. Where the machine itself has a KVM that works and can be nested, the lab uses it; elsewhere QEMU
//! emulates an AMD processor with its virtualization, on which the kernel's `kvm-amd` runs: slower, and the same in every other way.
//!
//! ```text
//! this machine ── NAME-gw ──┐
//!                           ├── bridge `mgmt`      .1 the gateway, .254 this machine, .11 .12 .13 the hosts
//!         gateway ──────────┘
//!                               bridge `underlay`  .11 .12 .13: tunnels between the hosts alone
//! ```
//!
//! Both bridges, the gateway and the QEMU processes are in one network namespace, which is called after the lab. That is also how all of it is
//! found again: whatever runs in that namespace is the lab's, and goes with it, whoever started it and however that one ended.
//!
//! A lab begins from a snapshot of the whole: memory and disks of all hosts, and the gateway's state (database, keys, images) of the same moment.
//! The snapshot is kept under a hash of all that went into it, so that another image, another build of a daemon or another way to set a host
//! up makes another one. Only the first start boots hosts and installs packages; the others take a few seconds.
//!
//! What can be done to a host is what can happen to one: its power is cut ([`Host::power_cut`]), its cables are cut or pulled out, its disk fills or
//! breaks, its clock is wrong, it stands still. Commands reach it through QEMU's guest agent, so cut cables do not matter to the test.
//!
//! A power cut is SIGKILL to QEMU. What the host had written by then is in this machine's page cache and stays, so it shows what a crash does to file
//! systems and programs, and not whether anybody syncs honestly.

pub mod accelerator;
mod channel;
mod command;
pub mod courier;
mod faults;
pub mod gateway;
pub mod host;
pub mod image;
mod lab;
mod machine;
mod packages;
mod provision;
mod site;
mod snapshot;
mod wires;

pub use faults::Wire;
pub use host::{Host, Output};
pub use lab::{Config, Lab};
pub use packages::gateway_package;
pub use site::Site;
