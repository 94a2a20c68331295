//! Generates everything that follows from `proto/`, without protoc: types, services, JSON, REST, validation, OpenAPI.
use std::{env, error::Error, fs, path::PathBuf};

use cloud_rest_build::{Names, descriptors, generate, openapi::Info, package_files, proto_files};

/// Where the contracts are, beneath `proto/`.
const DIRS: &[&str] = &["cloud/v1", "cloud/agent/v1", "cloud/options/v1", "google/api", "google/rpc"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", root.display());
    let bytes = descriptors(&[&root], &proto_files(&root, DIRS)?)?;
    let pool = prost_reflect::DescriptorPool::decode(bytes.as_slice())?;
    fs::write(out.join("descriptors.bin"), &bytes)?;

    tonic_prost_build::configure().bytes(".").compile_fds(package_files(&pool, "cloud.agent.v1"))?;
    // A method that is not built is UNIMPLEMENTED without anyone writing that down.
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .generate_default_stubs(true)
        .compile_fds(package_files(&pool, "cloud.v1"))?;

    let info = Info {
        title: "The Cloud".to_owned(),
        version: env::var("CARGO_PKG_VERSION")?,
        description: "A private cloud on your own hosts: instances, volumes, images, networks.".to_owned(),
    };
    let generated = generate(&pool, &Names::new("cloud.v1", "crate::v1"), &info)?;
    fs::write(out.join("json.rs"), generated.json)?;
    fs::write(out.join("routes.rs"), generated.routes)?;
    fs::write(out.join("checks.rs"), generated.checks)?;
    fs::write(out.join("openapi.json"), generated.openapi)?;
    Ok(())
}
