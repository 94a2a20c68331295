//! A contract with one of everything that the REST generator does; its tests are in `tests/`.

/// The messages and the service.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("testing.v1");
}

/// The routes.
#[allow(clippy::all, clippy::pedantic)]
pub mod rest {
    include!(concat!(env!("OUT_DIR"), "/routes.rs"));
}

/// The validation.
#[allow(clippy::all, clippy::pedantic)]
pub mod checked {
    include!(concat!(env!("OUT_DIR"), "/checks.rs"));
}

#[allow(clippy::all, clippy::pedantic)]
mod json {
    include!(concat!(env!("OUT_DIR"), "/json.rs"));
}

/// The document.
pub const OPENAPI: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));
