//! The client side: what every outgoing call carries.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response};
use tonic::{Status, TimeoutExpired, body::Body};
use tower::{BoxError, Layer, Service};

use super::deadline::format_grpc;
use crate::context::{self, RequestId, TRACEPARENT, TraceContext, X_REQUEST_ID};

/// Put into a request's extensions, it exempts a long-lived stream from the channel's default deadline. A deadline of the request
/// being served still applies.
#[derive(Debug, Clone, Copy)]
pub struct NoDeadline;

/// Adds to outgoing calls: `traceparent`, `x-request-id`, and `grpc-timeout` (the least of what the call asks for, what is left to
/// the request being served and, where neither is set, the default).
#[derive(Debug, Clone, Copy)]
pub struct ClientContextLayer {
    /// The deadline of calls that have no other.
    pub default_deadline: Duration,
}

impl<S> Layer<S> for ClientContextLayer {
    type Service = ClientContext<S>;

    fn layer(&self, inner: S) -> ClientContext<S> {
        ClientContext { inner, default_deadline: self.default_deadline }
    }
}

/// See [`ClientContextLayer`].
#[derive(Debug, Clone)]
pub struct ClientContext<S> {
    inner: S,
    default_deadline: Duration,
}

impl<S> Service<Request<Body>> for ClientContext<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let expired = set_headers(&mut request, self.default_deadline).err();
        let calling = expired.is_none().then(|| self.inner.call(request));
        Box::pin(async move {
            match calling {
                Some(calling) => calling.await.map_err(|e| typed(e.into())),
                None => Err(Status::deadline_exceeded("the deadline of the request has passed").into()),
            }
        })
    }
}

/// The deadline of the request being served has passed.
struct Expired;

fn set_headers(request: &mut Request<Body>, default: Duration) -> Result<(), Expired> {
    let current = context::current();
    let trace = context::current_trace().unwrap_or_else(TraceContext::random);
    let id = current.as_ref().map_or_else(RequestId::random, |c| c.request_id.clone());
    let left = current.as_ref().and_then(context::RequestContext::remaining);
    let streams = request.extensions().get::<NoDeadline>().is_some();
    let headers = request.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
        headers.insert(TRACEPARENT, value);
    }
    if let Some(value) = id.to_header() {
        headers.insert(X_REQUEST_ID, value);
    }
    let asked = headers.get("grpc-timeout").and_then(|v| super::deadline::parse_grpc(v.to_str().ok()?));
    let timeout = match (asked, left) {
        (_, Some(Duration::ZERO)) => return Err(Expired),
        (Some(asked), Some(left)) => asked.min(left),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) if streams => return Ok(()),
        (None, None) => default,
    };
    if let Ok(value) = HeaderValue::from_str(&format_grpc(timeout)) {
        headers.insert("grpc-timeout", value);
    }
    Ok(())
}

/// tonic's channel ends a call at its `grpc-timeout` with an error that would become CANCELLED.
fn typed(error: BoxError) -> BoxError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return Status::deadline_exceeded("no answer within the call's deadline").into();
        }
        cause = error.source();
    }
    error
}
