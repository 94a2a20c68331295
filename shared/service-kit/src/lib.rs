//! What every daemon shares: addresses, listeners, the server loop, errors on the wire, telemetry, health, configuration,
//! child processes and the life of an agent. No business rule lives here.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod address;
pub mod agent;
pub mod channel;
pub mod config;
pub mod context;
pub mod error;
pub mod exec;
pub mod health;
pub mod layers;
pub mod listen;
pub mod metrics;
pub mod server;
pub mod service;
pub mod shutdown;
pub mod telemetry;
pub mod tls;

pub use address::{Address, AddressError};
pub use error::ServiceError;
