//! The rules: what a VPC looks like on a host. No I/O; the switch and the network devices are behind the traits of [`ports`].

pub mod dhcp;
pub mod diff;
pub mod engine;
pub mod error;
#[cfg(test)]
mod fixtures;
pub mod flow;
pub mod model;
pub mod ofports;
pub mod pipeline;
pub mod ports;
pub mod service;
