//! The protobuf contracts as Rust types: `cloud.v1` (public) and `cloud.agent.v1` (gateway and agents).

/// Gateway and agents: `cloud.agent.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod agent {
    tonic::include_proto!("cloud.agent.v1");
}

/// Every contract as an encoded `google.protobuf.FileDescriptorSet`, options and comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
