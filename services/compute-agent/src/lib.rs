//! The compute-agent: guests on one host, by libvirt.
//!
//! `core` holds the rules over a `Hypervisor` port, `handlers` translate the gRPC contract, `adapters` do the work on the machine.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod adapters;
mod capacity;
pub mod config;
pub mod core;
mod guests;
pub mod handlers;
mod serve;

pub use serve::{run, serve};
