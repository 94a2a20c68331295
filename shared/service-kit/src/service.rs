//! A set of gRPC services as an axum router that can carry other routes beside them.

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, Uri, header};
use tonic::{Status, service::Routes};

use crate::error::{ServiceError, rest_response};

/// The services of `routes`, with fallbacks that answer in the caller's own protocol: a gRPC call of an unknown service is
/// UNIMPLEMENTED, an unknown path is 404 and a wrong method 405, with the REST error body.
///
/// tonic's own fallback answers every unknown path with 200 and a gRPC status, which no REST client understands.
pub fn into_router(routes: Routes) -> Router {
    with_fallbacks(routes.into_axum_router().reset_fallback())
}

/// Sets the fallbacks of [`into_router`] on any router. Call it after all routes were added: the answer for a wrong method is set
/// on the routes there are.
pub fn with_fallbacks(router: Router) -> Router {
    router.fallback(unknown).method_not_allowed_fallback(wrong_method)
}

/// Whether a request is a gRPC or gRPC-Web call.
pub fn is_grpc(headers: &http::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// A status as the answer to a request of either protocol.
#[must_use]
pub fn error_response(grpc: bool, error: ServiceError) -> Response {
    let status = Status::from(error);
    if grpc { status.into_http::<axum::body::Body>() } else { rest_response(&status) }
}

async fn unknown(request: Request) -> Response {
    let grpc = is_grpc(request.headers());
    let path = shown(request.uri());
    let error = if grpc {
        ServiceError::unimplemented(format!("this server has no method `{path}`")).with_reason("UNKNOWN_METHOD")
    } else {
        ServiceError::new(
            tonic::Code::NotFound,
            "UNKNOWN_PATH",
            format!("this server has no path `{path}`: GET /openapi.json lists them, where there is a REST API"),
        )
    };
    error_response(grpc, error)
}

async fn wrong_method(method: Method, uri: Uri, headers: http::HeaderMap) -> Response {
    let message = format!("`{}` does not accept {method}", shown(&uri));
    if is_grpc(&headers) {
        return error_response(true, ServiceError::unimplemented(message));
    }
    // No gRPC code stands for 405.
    let body = serde_json::json!({"error": {
        "code": 405, "status": "METHOD_NOT_ALLOWED", "message": message, "details": [],
    }});
    (http::StatusCode::METHOD_NOT_ALLOWED, axum::Json(body)).into_response()
}

/// A path for a message: whatever a client sent, but not all of it.
fn shown(uri: &Uri) -> String {
    uri.path().chars().take(200).collect()
}

/// Adds gRPC reflection, v1 and v1alpha (which older clients speak), for the given services of the contracts and for health and
/// reflection themselves.
///
/// # Errors
/// The descriptors that are compiled in are damaged.
pub fn add_reflection(routes: Routes, services: &[&str]) -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(cloud_contracts::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let all = services.iter().copied().chain(["grpc.health.v1.Health"]);
        all.fold(builder, |builder, name| builder.with_service_name(name))
    };
    Ok(routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}
