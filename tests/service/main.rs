//! Service tests: the real gateway as a process, over REST and gRPC, with simulated hosts. They need cargo (after `cargo build --bins`)
//! and `qemu-img`, with which the gateway probes images; those of buckets also PostgreSQL's programs and moto (`deploy/install-deps.sh --tests`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod backup;
mod buckets;
mod capacity;
mod console;
mod crash;
mod faults;
mod hosts;
mod images;
mod input;
mod launch;
mod lifecycle;
mod limits;
mod lists;
mod networks;
mod placement;
mod places;
mod requests;
mod support;
mod surface;
mod tenants;
mod traces;
mod truth;
mod volumes;
mod watching;
