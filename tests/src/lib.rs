//! What tests and benchmarks of the whole cloud share.
#![warn(missing_docs)]

pub mod backup;
pub mod chaos;
pub mod cloud;
pub mod fuzz;
pub mod hosts;
pub mod instances;
pub mod machine;
pub mod real;

pub use cloud::{Setup, TestCloud};
pub use hosts::HostsCloud;
pub use instances::Instances;
pub use real::RealCloud;
