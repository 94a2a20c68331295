//! The storage-agent over real thin volumes: on a machine with the device mapper (`tests/lab` runs this on one), as root, in a volume group that is named by
//! `CLOUD_LAB_VG`, that has at least 1 GiB free and nothing of value. Each test makes a pool of its own there. Where the
//! agent's binary is elsewhere than it was built, `CLOUD_STORAGE_AGENT` says where.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "shared with the tests of directories")]
#[path = "../host_storage/agent.rs"]
mod agent;
mod crashes;
#[path = "../host_storage/gateway.rs"]
mod gateway;
mod group;
mod limits;
mod volumes;
