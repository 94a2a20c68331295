//! Joining and mutual TLS: the real gateway, `cloud-agent-join` and the storage-agent as processes, and certificates of every wrong kind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agents;
mod ca;
mod gateways;
mod public;
mod renewal;
mod revocation;
mod support;
mod tokens;
mod walk;
