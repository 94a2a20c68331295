//! Packets through the real pipeline: an Open vSwitch of the test's own, guests as network namespaces, and the agent in this process
//! behind its socket. Needs root, Open vSwitch, iproute2, ethtool, ping and busybox; fails without them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dhcp;
mod isolation;
mod lifecycle;
mod program;
mod recovery;
mod spoofing;
mod support;
mod tunnels;
