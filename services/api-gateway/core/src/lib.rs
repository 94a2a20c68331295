//! The business of the cloud: what its resources are, which calls are allowed, and how intent becomes fact.
//!
//! Nothing here does I/O. [`services`] is what a caller may ask for; each call commits intent in one transaction. [`reconcile`] drives the
//! hosts until they are as intended. Both see the world through [`ports`]: a store, and the three agents of every host.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod authorization;
mod error;
pub mod filter;
pub mod model;
pub mod ports;
pub mod reconcile;
pub mod retention;
pub mod services;

pub use error::{CoreError, Kind};
