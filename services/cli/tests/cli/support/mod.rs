//! A gateway that answers by script, and a way to run `cloud` against it.

mod gateway;
mod run;
mod terminal;

pub use gateway::{Fake, change, instance, status};
pub use run::{Ended, Run};
pub use terminal::terminal;

/// One of a gateway's instances on its way through these states: each look takes it one further, and it stays in the last.
pub type Script = std::collections::VecDeque<cloud_contracts::v1::Instance>;
