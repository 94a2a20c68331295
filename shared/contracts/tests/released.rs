//! No release breaks those who use an earlier one. `proto/released/` has the descriptors of each; they are written by
//! `cargo run -p cloud-contracts --example release-descriptors`.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::{fs, path::Path};

use cloud_contract_lint::breaking;
use prost_reflect::DescriptorPool;

#[test]
fn every_release_is_still_served() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/released");
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let releases: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    let releases: Vec<_> = releases.iter().filter(|path| path.extension().is_some_and(|e| e == "binpb")).collect();
    assert!(!releases.is_empty(), "{} has no release to compare with", dir.display());
    let now = DescriptorPool::decode(cloud_contracts::DESCRIPTORS).unwrap();
    for path in releases {
        let then = DescriptorPool::decode(fs::read(path).unwrap().as_slice()).unwrap();
        assert!(then.get_service_by_name("cloud.v1.InstanceService").is_some(), "{} is a release", path.display());
        let broken = breaking(&then, &now, &["cloud.v1", "cloud.agent.v1"]);
        assert!(broken.is_empty(), "clients of {} would break:\n{broken:#?}", path.display());
    }
}
