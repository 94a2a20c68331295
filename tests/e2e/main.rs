//! End to end: the real daemons, hypervisor, switch and guests. Needs root, libvirtd, Open vSwitch and the image `tiny`
//! (deploy/services.sh start, images/tiny/build.sh). One cloud at a time: run with `--test-threads 1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acceptance;
mod fuzz;
mod kills;
mod network;
mod restore;
mod storm;
mod volumes;
