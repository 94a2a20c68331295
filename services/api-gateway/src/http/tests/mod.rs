//! The whole public port over a real database, without agents.

mod auth;
mod console;
mod errors;
mod fixture;
mod golden;
mod grpc;
mod identity;
mod requests;
mod surface;
mod watch;
