//! One span, one request id and one measurement per request.

use std::{
    any::Any,
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    response::Response,
};
use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tower::{Layer, Service};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{
    context::{self, RequestContext, RequestId, TraceContext, X_REQUEST_ID},
    error::{ServiceError, status_name},
    metrics::{Metrics, RouteLabel},
    server::Connection,
    service::{error_response, is_grpc},
    telemetry,
};

/// Makes a span per request (with `request_id` and `trace_id`, its parent from `traceparent`), sets `x-request-id` on every response,
/// and records outcome and latency. It also ends, at shutdown, streams that wait for something to happen: a gRPC stream with
/// UNAVAILABLE, another body by its end.
#[must_use]
pub fn trace_layer(metrics: &Metrics) -> TraceLayer {
    TraceLayer { metrics: metrics.clone() }
}

/// See [`trace_layer`].
#[derive(Clone)]
pub struct TraceLayer {
    metrics: Metrics,
}

impl<S> Layer<S> for TraceLayer {
    type Service = TraceService<S>;

    fn layer(&self, inner: S) -> TraceService<S> {
        TraceService { inner, metrics: self.metrics.clone() }
    }
}

/// See [`trace_layer`].
#[derive(Clone)]
pub struct TraceService<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Service<Request> for TraceService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let grpc = is_grpc(request.headers());
        let matched = request.extensions().get::<MatchedPath>();
        let label = self.metrics.route_label(request.method(), request.uri().path(), matched.map(MatchedPath::as_str));
        let (context, span) = open(&request, &label);
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        request.extensions_mut().insert(context.clone());
        let metrics = self.metrics.clone();
        let mut observation =
            Observation { metrics, label, started: Instant::now(), grpc, code: None, span: span.clone() };
        let calling = context::sync_scope(context.clone(), || span.in_scope(|| self.inner.call(request)));
        // A panic is a fault of one request; without this it would end the connection, and all other requests on it.
        let calling = AssertUnwindSafe(context::scope(context.clone(), calling)).catch_unwind();
        let calling = tracing::Instrument::instrument(calling, span.clone());
        Box::pin(async move {
            let response = match calling.await {
                Ok(response) => response?,
                Err(panic) => {
                    span.in_scope(|| error_response(grpc, ServiceError::internal(panic_message(panic.as_ref()))))
                }
            };
            let (mut parts, body) = response.into_parts();
            if let Some(id) = context.request_id.to_header() {
                parts.headers.insert(X_REQUEST_ID, id);
            }
            observation.answered(&parts);
            let body = ObservedBody { body, context, observation, connection, shutdown: None, ended: false };
            Ok(Response::from_parts(parts, Body::new(body)))
        })
    }
}

/// The context and the span of a request.
fn open(request: &Request, label: &RouteLabel) -> (RequestContext, Span) {
    let headers = request.headers();
    let id = headers.get(X_REQUEST_ID).and_then(|v| v.to_str().ok()).and_then(RequestId::from_client);
    let request_id = id.unwrap_or_else(RequestId::random);
    let parent = TraceContext::from_headers(headers);
    // At level ERROR, so that lines of every level carry the ids whatever the log level is.
    let span = tracing::error_span!(
        "request",
        otel.name = label.as_str(),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        method = %request.method(),
        path = request.uri().path(),
        request_id = request_id.as_str(),
        trace_id = tracing::field::Empty,
        code = tracing::field::Empty,
    );
    if let Some(parent) = parent.filter(|_| telemetry::exports()) {
        // Fails only where the span is not exported, and then there is nothing to join.
        let _unexported = span.set_parent(parent.to_opentelemetry());
    }
    let trace =
        TraceContext::of_span(&span).or_else(|| parent.map(TraceContext::child)).unwrap_or_else(TraceContext::random);
    span.record("trace_id", tracing::field::display(format_args!("{:032x}", trace.trace_id)));
    (RequestContext { request_id, trace, deadline: None }, span)
}

fn grpc_code(headers: &HeaderMap) -> Option<std::borrow::Cow<'static, str>> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(status_name(tonic::Code::from_i32(code)).into())
}

/// Measures one request; recorded when dropped.
struct Observation {
    metrics: Metrics,
    label: RouteLabel,
    started: Instant,
    grpc: bool,
    code: Option<std::borrow::Cow<'static, str>>,
    span: Span,
}

impl Observation {
    /// Takes what the head of the answer says.
    fn answered(&mut self, head: &http::response::Parts) {
        if self.grpc {
            self.code = grpc_code(&head.headers);
        } else if let Some(method) = head.extensions.get::<cloud_rest::RpcMethod>() {
            // A method of the contract, over REST: measured under the same name and the same codes as over gRPC.
            let code = head.extensions.get().copied().unwrap_or(tonic::Code::Ok);
            self.label = RouteLabel::of_contract(method.0);
            self.code = Some(status_name(code).into());
        } else {
            self.code = Some(head.status.as_str().to_owned().into());
        }
    }

    fn finish(&self) {
        // No answer yet, or a gRPC answer that was not read to its trailers: the client is gone.
        let code = self.code.as_deref().unwrap_or("CANCELLED");
        let elapsed = self.started.elapsed();
        self.metrics.observe(&self.label, if self.grpc { "grpc" } else { "http" }, code, elapsed);
        let failed = matches!(code, "INTERNAL" | "UNKNOWN" | "DATA_LOSS") || code.starts_with('5');
        self.span.record("code", code);
        if failed {
            self.span.record("otel.status_code", "ERROR");
        }
        self.span.in_scope(|| match failed {
            true => tracing::warn!(code, elapsed_ms = elapsed.as_secs_f64() * 1e3, "request failed"),
            false => tracing::debug!(code, elapsed_ms = elapsed.as_secs_f64() * 1e3, "request served"),
        });
    }
}

/// A response body that is polled in its request's context, and whose end is the request's end.
struct ObservedBody {
    body: Body,
    context: RequestContext,
    observation: Observation,
    connection: Option<Arc<Connection>>,
    shutdown: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
}

impl ObservedBody {
    /// The stream is idle: ends it if the server shuts down.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(connection) = &self.connection else { return Poll::Pending };
        let waiting = || Box::pin(connection.shutdown.clone().cancelled_owned());
        ready!(self.shutdown.get_or_insert_with(waiting).as_mut().poll(cx));
        self.ended = true;
        if !self.observation.grpc {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(tonic::Code::Unavailable as i32));
        trailers.insert("grpc-message", HeaderValue::from_static("the server is shutting down: call again"));
        self.observation.code = grpc_code(&trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let polled = {
            let (body, span) = (&mut this.body, &this.observation.span);
            let poll = || span.in_scope(|| Pin::new(body).poll_frame(cx));
            context::sync_scope(this.context.clone(), poll)
        };
        match polled {
            Poll::Pending => this.poll_shutdown(cx),
            Poll::Ready(frame) => {
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(code) = frame.trailers_ref().and_then(grpc_code) {
                            this.observation.code = Some(code);
                        }
                    }
                    Some(Err(_)) => this.observation.code = Some("UNKNOWN".into()),
                    None => {}
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.finish();
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("no message"))
}
