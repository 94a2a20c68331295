//! Rules of the contracts: how things are called and documented ([`lint()`]), and what a later contract may not
//! change ([`breaking()`]). Both name every problem; an empty list is a pass.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod breaking;
mod descriptors;
mod lint;
mod names;
mod routes;

pub use breaking::breaking;
pub use descriptors::without_comments;
pub use lint::{Rules, lint};

#[cfg(test)]
mod tests;
