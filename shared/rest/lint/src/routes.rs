//! The rules of REST routes.
use std::collections::HashMap;

use cloud_rest_build::{
    api::{Api, Body, Method, Route, field},
    options::{http_rules, required},
};
use prost_reflect::{DescriptorPool, Kind, MethodDescriptor};

/// What is wrong in the routes of a package.
pub fn lint(pool: &DescriptorPool, package: &str) -> Vec<String> {
    let api = match Api::read(pool, package) {
        Ok(api) => api,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut problems = Vec::new();
    let mut taken: HashMap<String, String> = HashMap::new();
    for method in api.services.iter().flat_map(|service| &service.methods) {
        let name = method.descriptor.full_name();
        let of_grpc = method.descriptor.is_client_streaming() || streams_bytes(&method.descriptor);
        if !of_grpc && http_rules(&method.descriptor).is_empty() {
            problems.push(format!("{name} has no google.api.http"));
        }
        if method.descriptor.name().starts_with("Create") && method.success() != 201 {
            problems.push(format!("{name} creates and answers {}", method.success()));
        }
        for route in &method.routes {
            let key = format!("{} {}", route.verb.to_uppercase(), route.template.shape());
            if let Some(other) = taken.insert(key.clone(), name.to_owned()) {
                problems.push(format!("{name} has the route {key} of {other}"));
            }
            check(method, route, &mut problems);
        }
    }
    problems
}

/// Whether it answers with a stream of nothing but bytes, which cannot be sent as events.
fn streams_bytes(method: &MethodDescriptor) -> bool {
    method.is_server_streaming() && method.output().fields().all(|field| field.kind() == Kind::Bytes)
}

fn check(method: &Method, route: &Route, problems: &mut Vec<String>) {
    let (name, input) = (method.descriptor.full_name(), method.descriptor.input());
    for param in route.template.params() {
        if !field(&input, param).is_ok_and(|field| required(&field)) {
            problems.push(format!("{name} has `{param}` in its path, which is not REQUIRED"));
        }
    }
    let reads = matches!(route.verb.as_str(), "get" | "delete");
    if !reads && route.body == Body::None {
        problems.push(format!("{name} is a {} without a body", route.verb.to_uppercase()));
    }
    let verb = method.descriptor.name();
    let wanted = match () {
        () if ["Get", "List", "Watch"].iter().any(|prefix| verb.starts_with(prefix)) => "get",
        () if verb.starts_with("Delete") => "delete",
        () if verb.starts_with("Update") => "patch",
        () if verb.starts_with("Create") => "post",
        () => return,
    };
    if route.verb != wanted {
        problems.push(format!("{name} is a {} instead of a {}", route.verb.to_uppercase(), wanted.to_uppercase()));
    }
}
