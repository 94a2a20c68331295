//! Fuzzers of the real gateway with simulated hosts: gRPC over the descriptors, and HTTP as no client sends it. They need cargo (after
//! `cargo build --bins`) and `qemu-img`. `CLOUD_CHAOS_SEED`, `CLOUD_CHAOS_SECONDS` and `CLOUD_CHAOS_CASE` repeat a run, or one case of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod grpc;
mod rest;

use cloud_tests::{Setup, TestCloud};

/// A cloud in which no call waits for long.
async fn hasty_cloud() -> anyhow::Result<TestCloud> {
    let args = ["--stop-wait=3", "--stop-grace=1"].map(str::to_owned).to_vec();
    TestCloud::with(Setup { hosts: 2, args, ..Setup::default() }).await
}
