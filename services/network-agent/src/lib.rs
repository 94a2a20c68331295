//! The network-agent: the virtual networks of one host, on Open vSwitch.
//!
//! `handlers` speak the wire, `core` has the rules (the pipeline is where to begin), `adapters` talk to the switch and the kernel.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod adapters;
pub mod agent;
pub mod config;
pub mod core;
pub mod handlers;
pub mod metrics;
