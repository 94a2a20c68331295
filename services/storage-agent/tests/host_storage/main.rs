//! The storage-agent as it runs: its own binary, a gateway that it registers with, and the real `qemu-img`, `qemu-io` and
//! mount(8). Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod crashes;
mod gateway;
mod images;
mod pool;
mod snapshots;
mod volumes;
