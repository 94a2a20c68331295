//! The gRPC contract: wire to domain and back. No rules here.

mod compute;
mod console;
mod status;
mod wire;

pub use compute::ComputeHandler;
