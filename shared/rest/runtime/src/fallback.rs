//! What no route takes.
use std::sync::Arc;

use axum::{Router, extract::Request, response::Response};
use http::{StatusCode, header};
use tonic::Code;

use crate::{config::Config, failure::status, respond};

/// Makes a router answer an unknown route with 404 and a wrong method with 405, both in the shape of every other
/// error; a gRPC call of an unknown method is UNIMPLEMENTED. Call it once, on the merged router, whose own fallback
/// it replaces: tonic's would answer everything with 200.
pub fn with_fallbacks(router: Router, config: &Arc<Config>) -> Router {
    let (missing, wrong) = (Arc::clone(config), Arc::clone(config));
    router
        .reset_fallback()
        .fallback(move |request: Request| std::future::ready(not_found(&missing, &request)))
        .method_not_allowed_fallback(move |request: Request| std::future::ready(not_allowed(&wrong, &request)))
}

fn not_found(config: &Config, request: &Request) -> Response {
    let path = request.uri().path();
    let content_type = request.headers().get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        return status(Code::Unimplemented, "NO_METHOD", format!("there is no method {path}")).into_http();
    }
    let message = format!("there is no route {path}; GET /openapi.json lists the routes");
    respond::error_response(config, &status(Code::NotFound, "NO_ROUTE", message))
}

fn not_allowed(config: &Config, request: &Request) -> Response {
    let message = format!("{} does not take {}; see the Allow header", request.uri().path(), request.method());
    respond::failure(
        config,
        &status(Code::Unimplemented, "METHOD_NOT_ALLOWED", message),
        Some(StatusCode::METHOD_NOT_ALLOWED),
    )
}
