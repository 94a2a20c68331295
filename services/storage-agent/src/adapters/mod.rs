//! Kinds of pools.

pub mod directory;
