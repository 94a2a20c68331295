//! A panic of a handler becomes INTERNAL, in the caller's protocol, and is logged.

use std::any::Any;

use axum::{body::Body, response::Response};
use cloud_service_kit::{ServiceError, service::error_response};
use tower_http::catch_panic::CatchPanicLayer;

type Answer = fn(Box<dyn Any + Send>) -> Response<Body>;

/// For gRPC.
pub(super) fn grpc() -> CatchPanicLayer<Answer> {
    CatchPanicLayer::custom(|panic| answer(true, panic.as_ref()))
}

/// For REST.
pub(super) fn rest() -> CatchPanicLayer<Answer> {
    CatchPanicLayer::custom(|panic| answer(false, panic.as_ref()))
}

fn answer(grpc: bool, panic: &(dyn Any + Send)) -> Response<Body> {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of an unknown kind");
    error_response(grpc, ServiceError::internal(format!("panic: {text}")))
}
