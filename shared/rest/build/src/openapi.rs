//! The OpenAPI 3.1 document: what the generated routes take and answer, with the contract's comments.
use anyhow::{Context, Result};
use prost_reflect::MessageDescriptor;
use serde_json::{Map, Value, json};

use crate::{
    api::{Api, Body, Method, Parameter, Route, Service, field, parameters},
    comments::{Comments, first_sentence},
    options::{FieldRules, required},
    schema::{Schemas, Way, masked},
    template::param_name,
};

/// What the document says of itself.
#[derive(Debug, Clone)]
pub struct Info {
    /// The API's name.
    pub title: String,
    /// Its release.
    pub version: String,
    /// What it is.
    pub description: String,
}

/// Generates the document.
///
/// # Errors
/// Descriptors that contradict themselves.
pub fn generate(api: &Api, info: &Info) -> Result<Value> {
    let files = api.services.iter().map(|service| service.descriptor.parent_pool()).next();
    let comments = Comments::read(files.iter().flat_map(|pool| pool.files()));
    let package = api.services.first().map(|service| service.descriptor.package_name().to_owned()).unwrap_or_default();
    let outputs: Vec<_> = api.routed().map(|(_, method)| method.descriptor.output()).collect();
    let mut schemas = Schemas::new(&comments, &package, outputs.into_iter());
    schemas.add("Error", error_schema());
    let mut paths: Map<String, Value> = Map::new();
    for (service, method) in api.routed() {
        for (i, route) in method.routes.iter().enumerate() {
            let operation = operation(service, method, route, i, &comments, &mut schemas)?;
            let path = paths.entry(route.template.openapi()).or_insert_with(|| json!({}));
            path[&route.verb] = operation;
        }
    }
    let served = |service: &&Service| service.methods.iter().any(|method| !method.routes.is_empty());
    let tags: Vec<_> = api.services.iter().filter(served).collect();
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": info.title,
            "version": info.version,
            "description": info.description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}, {"url": "/v1"}],
        "security": [{"bearer": []}],
        "tags": tags.iter().map(|service| json!({
            "name": service.descriptor.name(),
            "description": comments.of(&service.descriptor.parent_file(), service.descriptor.path()),
        })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "An API key."}},
            "responses": {"Error": {
                "description": "An error.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }},
            "schemas": schemas.finish(),
        },
    }))
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "description": "What every failed call answers with.",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["code", "status", "message", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "status": {"type": "string", "description": "The gRPC code, such as `NOT_FOUND`."},
                "message": {"type": "string", "description": "What was wrong, with which value, and what to do."},
                "details": {
                    "type": "array",
                    "description": "google.rpc details: BadRequest, ResourceInfo, QuotaFailure, RetryInfo, ErrorInfo.",
                    "items": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
                },
            },
        }},
    })
}

fn operation(
    service: &Service,
    method: &Method,
    route: &Route,
    index: usize,
    comments: &Comments,
    schemas: &mut Schemas<'_>,
) -> Result<Value> {
    let descriptor = &method.descriptor;
    let input = descriptor.input();
    let about = comments.of(&descriptor.parent_service().parent_file(), descriptor.path());
    let id = format!("{}_{}", service.descriptor.name(), descriptor.name());
    let mut operation = json!({
        "operationId": if index == 0 { id } else { format!("{id}_{index}") },
        "tags": [service.descriptor.name()],
        "summary": first_sentence(about),
        "description": about,
        "responses": responses(method, schemas),
    });
    let parameters = all_parameters(method, route, &input, schemas)?;
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some((body, needed)) = body(route, &input, schemas)? {
        operation["requestBody"] = json!({"required": needed, "content": {"application/json": {"schema": body}}});
    }
    if method.options.unauthenticated {
        operation["security"] = json!([]);
    }
    Ok(operation)
}

fn responses(method: &Method, schemas: &mut Schemas<'_>) -> Value {
    let output = schemas.message(&method.descriptor.output(), Way::Out);
    let success = if method.descriptor.is_server_streaming() {
        json!({
            "description": "Server-Sent Events; the data of each is a message, an event called `error` is the last.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "x-event-data": output}},
        })
    } else {
        json!({"description": "Success.", "content": {"application/json": {"schema": output}}})
    };
    let error = json!({"$ref": "#/components/responses/Error"});
    let mut responses = Map::new();
    responses.insert(method.success().to_string(), success);
    for code in ["400", "401", "404", "default"] {
        responses.insert(code.to_owned(), error.clone());
    }
    responses.into()
}

fn all_parameters(
    method: &Method,
    route: &Route,
    input: &MessageDescriptor,
    schemas: &mut Schemas<'_>,
) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for name in route.template.params() {
        let schema = schemas.field(&field(input, name)?, Way::In);
        all.push(parameter("path", &param_name(name), true, schema));
    }
    for Parameter { path, field, .. } in parameters(input, route) {
        if !FieldRules::read(&field).not_built {
            let schema = in_query(schemas.field(&field, Way::In));
            all.push(parameter("query", &path, required(&field), schema));
        }
    }
    let mut header = |name: &str, field: &str| {
        if let Some(field) = input.get_field_by_name(field).filter(|field| !FieldRules::read(field).not_built) {
            let schema = schemas.field(&field, Way::In);
            all.push(parameter("header", name, false, schema));
        }
    };
    if route.verb != "get" {
        header("Idempotency-Key", "request_id");
    }
    header("Last-Event-ID", &method.options.resume_field);
    Ok(all)
}

/// A parameter, whose description is its own and not its schema's.
fn parameter(place: &str, name: &str, required: bool, mut schema: Value) -> Value {
    let about = schema.as_object_mut().and_then(|schema| schema.remove("description")).unwrap_or_else(|| "".into());
    json!({"name": name, "in": place, "required": required, "description": about, "schema": schema})
}

/// A query has no null and no strings beside numbers.
fn in_query(mut schema: Value) -> Value {
    let about = schema.get("description").cloned();
    if let Some(first) = schema.pointer("/anyOf/0").cloned() {
        let second = schema.pointer("/anyOf/1/type").cloned();
        let number = first["type"] == "integer" && second == Some("string".into());
        if number || second == Some("null".into()) {
            schema = first;
        }
    }
    if let Some(about) = about {
        schema["description"] = about;
    }
    schema
}

/// The schema of the body, and whether there must be one.
fn body(route: &Route, input: &MessageDescriptor, schemas: &mut Schemas<'_>) -> Result<Option<(Value, bool)>> {
    match &route.body {
        Body::None => Ok(None),
        Body::Whole => {
            let in_path: Vec<_> = route.template.params().collect();
            let needed = input.fields().any(|field| required(&field) && !in_path.contains(&field.name()));
            Ok(Some((schemas.body(input, &in_path), needed)))
        }
        Body::Field(name) => {
            let inner = field(input, name)?;
            let kind = inner.kind();
            let message = kind.as_message().context("a body that is not a message")?;
            let way = if masked(input) { Way::Patch } else { Way::In };
            Ok(Some((schemas.message(message, way), required(&inner))))
        }
    }
}
