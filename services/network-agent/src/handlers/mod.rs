//! The wire: requests to model, results to responses. No rules.

mod convert;
mod network;

pub use network::NetworkHandler;
