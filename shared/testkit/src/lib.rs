//! What tests and benchmarks of the cloud are made of: simulated hosts, faults to break them with, and the real gateway as a child process.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod grpc;
pub mod ports;
pub mod process;
pub mod rest;
pub mod sim;
pub mod sse;
pub mod wait;

pub use grpc::GrpcClient;
pub use ports::free_port;
pub use process::{DaemonProcess, GatewayConfig, GatewayProcess, PostgresServer, S3Server};
pub use rest::RestClient;
pub use sim::{Effect, Faults, Method, Role, SimHost, SimHostConfig};
pub use wait::until;
