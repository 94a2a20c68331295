//! Generates the test contract as `cloud-contracts` generates the real one.
use std::{env, error::Error, fs, path::PathBuf};

use cloud_rest_build::{Names, descriptors, generate, openapi::Info, package_files, proto_files};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let (own, shared) = (here.join("proto"), here.join("../../../proto"));
    println!("cargo:rerun-if-changed={}", own.display());
    println!("cargo:rerun-if-changed={}", shared.join("google").display());
    println!("cargo:rerun-if-changed={}", shared.join("cloud/options").display());
    let bytes = descriptors(&[&own, &shared], &proto_files(&own, &["testing/v1"])?)?;
    let pool = prost_reflect::DescriptorPool::decode(bytes.as_slice())?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .generate_default_stubs(true)
        .compile_fds(package_files(&pool, "testing.v1"))?;
    let info = Info { title: "Testing".into(), version: "1".into(), description: "A test.".into() };
    let generated = generate(&pool, &Names::new("testing.v1", "crate::v1"), &info)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("json.rs"), generated.json)?;
    fs::write(out.join("routes.rs"), generated.routes)?;
    fs::write(out.join("checks.rs"), generated.checks)?;
    fs::write(out.join("openapi.json"), generated.openapi)?;
    Ok(())
}
