//! What tests and benchmarks of the whole cloud share.
#![warn(missing_docs)]

pub mod cloud;

pub use cloud::{Setup, TestCloud};
