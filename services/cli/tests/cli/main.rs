//! The binary against a gateway of this process, served over a real socket: what it sends, prints, and ends with.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
mod watching;

mod connecting;
mod console;
mod errors;
mod images;
mod instances;
mod lists;
mod networks;
mod once;
mod progress;
mod tenants;
mod volumes;
