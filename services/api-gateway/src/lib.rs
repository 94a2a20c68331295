//! The API gateway: owns all state and every decision.
//!
//! [`gateway::run`] puts it together. [`http`] is the public port, [`handlers`] translate wire to domain, [`adapters`] are what the core's
//! ports are implemented by; every rule is in `cloud-core`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod adapters;
pub mod admin_key;
pub mod certificates;
pub mod config;
pub mod gateway;
pub mod handlers;
pub mod http;
