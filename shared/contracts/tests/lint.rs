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

/// What only reads is called so. A copy of the database changes nothing that a second one would change again, and a restore would take the record
/// of request ids away with the database: repeating it restores the same again. Everything else is made once under a request id: the generated wrapper needs the field for it.
#[test]
fn every_mutation_has_a_request_id() {
    let pool = DescriptorPool::decode(cloud_contracts::DESCRIPTORS).unwrap();
    let reads = ["Get", "List", "Watch", "Stream", "Explain", "Trace"];
    let repeatable = ["cloud.v1.AdminService.BackupDatabase", "cloud.v1.AdminService.RestoreDatabase"];
    let services = pool.services().filter(|service| service.package_name() == "cloud.v1");
    let mut mutations = 0;
    for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
        if reads.iter().any(|verb| method.name().starts_with(verb)) || repeatable.contains(&method.full_name()) {
            continue;
        }
        // The first message of an upload is its header.
        let input = match method.input().get_field_by_name("header").map(|field| field.kind()) {
            Some(prost_reflect::Kind::Message(header)) if method.is_client_streaming() => header,
            _ => method.input(),
        };
        let field = input.get_field_by_name("request_id");
        let plain =
            field.is_some_and(|f| f.kind() == prost_reflect::Kind::String && !f.is_list() && !f.supports_presence());
        assert!(plain, "{} has no `string request_id`", method.full_name());
        mutations += 1;
    }
    assert!(mutations > 40, "{mutations}");
}
