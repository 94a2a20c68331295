//! axum routers: one function per service, one static binding per route.
use std::fmt::Write;

use anyhow::{Result, ensure};
use prost_reflect::{Kind, MessageDescriptor};

use crate::{
    api::{self, Api, Body, Method, Parameter, Route, Service},
    json::has_option,
    names::{Names, camel, snake},
};

/// The field of a request that the header `Idempotency-Key` sets.
const IDEMPOTENCY_FIELD: &str = "request_id";

/// Generates the routers and the list of routes.
///
/// # Errors
/// Options that cannot be served, naming the method.
pub fn generate(api: &Api, names: &Names) -> Result<String> {
    let mut out = String::new();
    writeln!(out, "/// Every REST route: verb, path and gRPC method. Each is served under `/v1` too.")?;
    writeln!(out, "pub const ROUTES: &[(&str, &str, &str)] = &[")?;
    for (service, method) in api.routed() {
        for route in &method.routes {
            let (verb, path) = (route.verb.to_uppercase(), route.template.openapi());
            writeln!(out, "    ({verb:?}, {path:?}, {:?}),", rpc(service, method))?;
        }
    }
    writeln!(out, "];")?;
    for service in &api.services {
        write_service(&mut out, service, names)?;
    }
    Ok(out)
}

fn rpc(service: &Service, method: &Method) -> String {
    format!("{}/{}", service.descriptor.full_name(), method.descriptor.name())
}

fn write_service(out: &mut String, service: &Service, names: &Names) -> Result<()> {
    let (name, module) = (camel(service.descriptor.name()), snake(service.descriptor.name()));
    let path = format!("{}::{module}_server::{name}", names.module);
    writeln!(
        out,
        "/// The REST routes of `{full}`.
        #[allow(unused_mut, unused_variables)]
        pub fn {module}<S: {path}>(service: ::std::sync::Arc<S>, config: &::std::sync::Arc<::cloud_rest::Config>) -> ::axum::Router {{
            let mut router = ::axum::Router::new();",
        full = service.descriptor.full_name(),
    )?;
    for method in &service.methods {
        for route in &method.routes {
            write_route(out, service, method, route, names)?;
        }
    }
    writeln!(out, "    router\n}}")?;
    Ok(())
}

fn write_route(out: &mut String, service: &Service, method: &Method, route: &Route, names: &Names) -> Result<()> {
    let input = method.descriptor.input();
    let call = snake(method.descriptor.name());
    let serve = if method.descriptor.is_server_streaming() {
        let output = method.descriptor.output();
        let id = match method.options.event_id_field.as_str() {
            "" => "None".to_owned(),
            field => format!("Some(|m: &{}| m.{}.as_str())", names.message(&output), string_field(&output, field)?),
        };
        let kind = match method.options.event_type_field.as_str() {
            "" => "None".to_owned(),
            field => {
                let getter = enum_field(&output, field)?;
                format!("Some(|m: &{}| m.{getter}().as_str_name())", names.message(&output))
            }
        };
        format!(
            "::cloud_rest::server_stream(config, &BINDING, request, ::cloud_rest::EventFields {{ id: {id}, kind: {kind} }}, "
        )
    } else {
        "::cloud_rest::unary(config, &BINDING, request, ".to_owned()
    };
    writeln!(
        out,
        "{{
            static BINDING: ::cloud_rest::Binding<{message}> = ::cloud_rest::Binding {{
                method: {rpc:?},
                success: {success},
                body: {body},
                params: &[{params}],
                query: &[{query}],
                headers: &[{headers}],
            }};
            let (service, config) = (service.clone(), config.clone());
            let handler = move |request: ::axum::extract::Request| {{
                let (service, config) = (service.clone(), config.clone());
                {serve}move |request| async move {{ service.{call}(request).await }})
            }};
            router = router.route({path:?}, ::axum::routing::{verb}(handler.clone())).route({versioned:?}, ::axum::routing::{verb}(handler));
        }}",
        message = names.message(&input),
        rpc = rpc(service, method),
        success = method.success(),
        body = match &route.body {
            Body::None => "::cloud_rest::Body::None".to_owned(),
            Body::Whole => "::cloud_rest::Body::Whole".to_owned(),
            Body::Field(name) => format!("::cloud_rest::Body::Field({name:?})"),
        },
        params = route.template.params().map(|param| slot("Param", "", param, &input)).collect::<Result<String>>()?,
        query = api::parameters(&input, route).iter().map(query_field).collect::<String>(),
        headers = headers(method, route, &input)?,
        path = route.template.axum(),
        versioned = format!("/v1{}", route.template.axum()),
        verb = route.verb,
    )?;
    Ok(())
}

/// The Rust path of a string field without presence.
fn string_field(message: &MessageDescriptor, name: &str) -> Result<String> {
    let field = api::field(message, name)?;
    let plain =
        field.kind() == Kind::String && !field.is_list() && !has_option(&field) && field.containing_oneof().is_none();
    ensure!(plain && !name.contains('.'), "`{name}` of {} is not a plain string", message.full_name());
    Ok(snake(name))
}

/// The getter of an enum field without presence.
fn enum_field(message: &MessageDescriptor, name: &str) -> Result<String> {
    let field = api::field(message, name)?;
    let plain = matches!(field.kind(), Kind::Enum(_))
        && !field.is_list()
        && !has_option(&field)
        && field.containing_oneof().is_none();
    ensure!(plain && !name.contains('.'), "`{name}` of {} is not a plain enum", message.full_name());
    Ok(snake(name))
}

/// `Param { .. }` or `HeaderField { .. }` for a string field at a dotted path.
fn slot(kind: &str, more: &str, path: &str, input: &MessageDescriptor) -> Result<String> {
    let mut place = "m".to_owned();
    let names: Vec<_> = path.split('.').collect();
    let (last, parents) = names.split_last().map_or(("", &[][..]), |(last, parents)| (*last, parents));
    for parent in parents {
        place = format!("{place}.{}.get_or_insert_default()", snake(parent));
    }
    let field = api::field(input, path)?;
    ensure!(field.containing_oneof().is_none(), "`{path}` of {} may not be in a oneof or optional", input.full_name());
    Ok(format!("::cloud_rest::{kind} {{ {more} name: {path:?}, slot: |m| &mut {place}.{} }}, ", snake(last)))
}

fn headers(method: &Method, route: &Route, input: &MessageDescriptor) -> Result<String> {
    let mut out = String::new();
    if !method.options.resume_field.is_empty() {
        string_field(input, &method.options.resume_field)?;
        out += &slot("HeaderField", "header: \"last-event-id\",", &method.options.resume_field, input)?;
    }
    let idempotent = input.get_field_by_name(IDEMPOTENCY_FIELD).is_some() && route.verb != "get";
    if idempotent && string_field(input, IDEMPOTENCY_FIELD).is_ok() {
        out += &slot("HeaderField", "header: \"idempotency-key\",", IDEMPOTENCY_FIELD, input)?;
    }
    Ok(out)
}

fn query_field(parameter: &Parameter) -> String {
    let kind = match parameter.field.kind() {
        Kind::Bool => "Bool",
        Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Message(_) => "Text",
        _ => "Number",
    };
    format!(
        "::cloud_rest::QueryField {{ path: {:?}, camel: {:?}, kind: ::cloud_rest::QueryKind::{kind}, repeated: {} }}, ",
        parameter.path,
        parameter.camel,
        parameter.field.is_list(),
    )
}
