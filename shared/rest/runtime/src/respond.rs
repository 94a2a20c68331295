//! Answers: JSON, and errors in the one shape that the configuration renders.
use axum::{body::Body, response::Response as HttpResponse};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use tonic::{Response, Status};
use tonic_types::StatusExt;

use crate::config::Config;

/// The method that a response is from, in the extensions of every response of a generated route, for metrics and
/// logs: `cloud.v1.InstanceService/GetInstance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcMethod(pub &'static str);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) fn tagged(mut response: HttpResponse, method: &'static str) -> HttpResponse {
    response.extensions_mut().insert(RpcMethod(method));
    response
}

/// Metadata that is a header over HTTP as well.
pub(crate) fn add_headers(to: &mut HeaderMap, from: HeaderMap) {
    if to.is_empty() {
        *to = from;
    } else {
        to.extend(from);
    }
}

/// A message as JSON.
pub(crate) fn message<R: Serialize>(config: &Config, success: u16, response: Response<R>) -> HttpResponse {
    let (metadata, message, extensions) = response.into_parts();
    let body = match serde_json::to_vec(&message) {
        Ok(body) => body,
        Err(error) => return failure(config, &Status::internal(format!("cannot write the answer: {error}")), None),
    };
    let mut http = HttpResponse::new(Body::from(body));
    *http.status_mut() = StatusCode::from_u16(success).unwrap_or(StatusCode::OK);
    *http.extensions_mut() = extensions;
    add_headers(http.headers_mut(), metadata.into_headers());
    http.headers_mut().insert(header::CONTENT_TYPE, JSON);
    http
}

/// The body of an error, and its HTTP status.
pub(crate) fn error_body(config: &Config, status: &Status, code: Option<StatusCode>) -> (StatusCode, Value) {
    let (rendered, mut body) = (config.render)(status);
    let Some(code) = code else { return (rendered, body) };
    if let Some(slot) = body.pointer_mut("/error/code") {
        *slot = code.as_u16().into();
    }
    (code, body)
}

/// An error as a response: the rendered body, the error's metadata as headers, `Retry-After`, `WWW-Authenticate`. The status itself is in the
/// response's extensions, for layers.
#[must_use]
pub fn error_response(config: &Config, status: &Status) -> HttpResponse {
    failure(config, status, None)
}

pub(crate) fn failure(config: &Config, status: &Status, code: Option<StatusCode>) -> HttpResponse {
    let (code, body) = error_body(config, status, code);
    let mut response = HttpResponse::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    add_headers(headers, status.metadata().clone().into_headers());
    headers.insert(header::CONTENT_TYPE, JSON);
    if code == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        // Whole seconds, and not too early.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response.extensions_mut().insert(status.code());
    response.extensions_mut().insert(status.clone());
    response
}
