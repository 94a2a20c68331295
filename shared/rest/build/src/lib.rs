//! Generates what the REST side of a gRPC service needs, from protobuf descriptors, in a build script.
//!
//! # Theory of operation
//!
//! The `.proto` files are the only description of an API. protox compiles them (no protoc), prost and tonic give
//! messages and service traits, and this crate adds, for one package:
//!
//! - serde of each message, as protobuf JSON ([`json`]; the rules are in `cloud-json`);
//! - an axum router per service that calls the tonic trait in process ([`routes`]; the runtime is `cloud-rest`);
//! - the validation of requests and a wrapper that applies it to a service ([`checks`]);
//! - the OpenAPI 3.1 document ([`openapi`]).
//!
//! The generated code is data and calls into the runtime crates, so that what it does can be read and tested there.
//!
//! Descriptors are read as a `prost_reflect::DescriptorPool`: `prost_types::FileDescriptorSet` has no place for
//! custom options, and a round trip through it would drop every `google.api.http`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod api;
pub mod checks;
pub mod comments;
pub mod json;
pub mod names;
pub mod openapi;
pub mod options;
pub mod routes;
pub mod schema;
pub mod template;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use prost_reflect::DescriptorPool;

pub use names::Names;

/// Finds the `.proto` files of directories beneath `root`, sorted. A directory that is not there has none.
///
/// # Errors
/// A directory that cannot be read.
pub fn proto_files(root: &Path, dirs: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for dir in dirs.iter().map(|dir| root.join(dir)).filter(|dir| dir.exists()) {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            files.push(entry?.path());
        }
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    Ok(files)
}

/// Compiles files beneath some roots to a descriptor set with options, comments and imports, encoded.
///
/// # Errors
/// What is wrong in the files.
pub fn descriptors(roots: &[&Path], files: &[PathBuf]) -> Result<Vec<u8>> {
    let mut compiler = protox::Compiler::new(roots)?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(compiler.encode_file_descriptor_set())
}

/// The files of one package of a pool, for prost: with the well-known types, which it must know to use its own.
#[must_use]
pub fn package_files(pool: &DescriptorPool, package: &str) -> prost_types::FileDescriptorSet {
    let files = pool.files().filter(|file| [package, "google.protobuf"].contains(&file.package_name()));
    prost_types::FileDescriptorSet { file: files.map(|file| file.file_descriptor_proto().clone()).collect() }
}

/// What is generated for one package, as Rust source and JSON text.
pub struct Generated {
    /// serde for every message: include it anywhere in the crate.
    pub json: String,
    /// A router per service: include it in a module of its own.
    pub routes: String,
    /// Validation and the `Checked` wrapper: include it in a module of its own.
    pub checks: String,
    /// The OpenAPI document.
    pub openapi: String,
}

/// Generates everything for one package.
///
/// # Errors
/// What the descriptors ask for and this generator does not do, by name.
pub fn generate(pool: &DescriptorPool, names: &Names, info: &openapi::Info) -> Result<Generated> {
    let api = api::Api::read(pool, &names.package)?;
    Ok(Generated {
        json: json::generate(pool, names)?,
        routes: routes::generate(&api, names)?,
        checks: checks::generate(pool, &api, names)?,
        openapi: serde_json::to_string_pretty(&openapi::generate(&api, info)?)?,
    })
}
