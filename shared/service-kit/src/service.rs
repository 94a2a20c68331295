//! A set of gRPC services as an axum router that can carry other routes beside them.

use std::sync::{Arc, LazyLock};

use axum::{Router, response::Response};
use http::header;
use tonic::{Status, service::Routes};

use crate::error::{ServiceError, rest_error_body};

/// The services of `routes`, with fallbacks that answer in the caller's own protocol: a gRPC call of an unknown service is
/// UNIMPLEMENTED, an unknown path is 404 and a wrong method 405, with the REST error body.
///
/// tonic's own fallback answers every unknown path with 200 and a gRPC status, which no REST client understands.
pub fn into_router(routes: Routes) -> Router {
    with_fallbacks(routes.into_axum_router())
}

/// Sets the fallbacks of [`into_router`] on any router, in place of its own. Call it after all routes were added: the answer for a
/// wrong method is set on the routes there are.
pub fn with_fallbacks(router: Router) -> Router {
    cloud_rest::with_fallbacks(router, &rest_config())
}

/// How REST is served with this crate's errors; for the routers of `cloud_contracts::rest`.
#[must_use]
pub fn rest_config() -> Arc<cloud_rest::Config> {
    static CONFIG: LazyLock<Arc<cloud_rest::Config>> =
        LazyLock::new(|| Arc::new(cloud_rest::Config::new(rest_error_body)));
    CONFIG.clone()
}

/// Whether a request is a gRPC or gRPC-Web call.
pub fn is_grpc(headers: &http::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// A status as the answer to a request of either protocol.
#[must_use]
pub fn error_response(grpc: bool, error: ServiceError) -> Response {
    let status = Status::from(error);
    if grpc { status.into_http::<axum::body::Body>() } else { cloud_rest::error_response(&rest_config(), &status) }
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
        all.fold(builder, tonic_reflection::server::Builder::with_service_name)
    };
    Ok(routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}
