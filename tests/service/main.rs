//! Service tests: the real gateway as a process, over REST and gRPC, with simulated hosts. They need nothing but cargo (and `cargo build --bins`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod capacity;
mod console;
mod crash;
mod faults;
mod hosts;
mod images;
mod input;
mod launch;
mod lifecycle;
mod networks;
mod support;
mod surface;
mod volumes;
