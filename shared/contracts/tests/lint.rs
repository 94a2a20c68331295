//! The contracts keep their own rules.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use cloud_contract_lint::{Rules, lint};
use prost_reflect::DescriptorPool;

fn problems(package: &str, rules: Rules) -> Vec<String> {
    let pool = DescriptorPool::decode(cloud_contracts::DESCRIPTORS).unwrap();
    assert!(pool.services().any(|service| service.package_name() == package), "{package} is there");
    lint(&pool, package, rules)
}

#[test]
fn the_public_contract() {
    let problems = problems("cloud.v1", Rules::Public);
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn the_agents_contract() {
    let problems = problems("cloud.agent.v1", Rules::Internal);
    assert!(problems.is_empty(), "{problems:#?}");
}
