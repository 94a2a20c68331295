//! What tests and benchmarks of the whole cloud share.
#![warn(missing_docs)]

pub mod chaos;
pub mod cloud;
pub mod fuzz;
pub mod real;

pub use cloud::{Setup, TestCloud};
pub use real::RealCloud;
