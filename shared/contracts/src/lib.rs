//! The contracts as Rust: `cloud.v1` (public) with its REST side, and `cloud.agent.v1` (gateway and agents).
//!
//! All of it is generated from `proto/` by the build script; nothing here is a second description.

/// Gateway and agents: `cloud.agent.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod agent {
    tonic::include_proto!("cloud.agent.v1");
}

/// The public contract: `cloud.v1`. Messages have serde, as protobuf JSON under proto field names.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("cloud.v1");
}

/// The REST side of `cloud.v1`: a router per service, which calls the tonic service in process.
#[allow(clippy::all, clippy::pedantic)]
pub mod rest {
    include!(concat!(env!("OUT_DIR"), "/routes.rs"));
}

/// The validation of requests, and [`checked::Checked`], which applies it to any service.
#[allow(clippy::all, clippy::pedantic)]
pub mod checked {
    include!(concat!(env!("OUT_DIR"), "/checks.rs"));
}

#[allow(clippy::all, clippy::pedantic)]
mod json {
    include!(concat!(env!("OUT_DIR"), "/json.rs"));
}

/// Every contract as an encoded `google.protobuf.FileDescriptorSet`, options and comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The OpenAPI 3.1 document of the REST routes, as JSON text.
pub const OPENAPI: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// The OpenAPI 3.1 document of the REST routes, for adding routes that are not in the contract.
#[must_use]
pub fn openapi() -> serde_json::Value {
    serde_json::from_str(OPENAPI).unwrap_or_default()
}
