//! The agents of every host over gRPC: the core's three backends.
//!
//! Every call is addressed to the run of the agent that registered last, carries how new its intent is, has a deadline, and takes one of a
//! bounded number of places of its host, so that a slow host keeps only its own work waiting.

mod clients;
mod compute;
mod console;
mod network;
mod status;
mod storage;

pub use clients::{Agents, TLS};
