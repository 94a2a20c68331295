//! What the core's ports are implemented by.

pub mod agents;
pub mod fence;
pub mod images;
pub mod pki;
pub mod sql;
