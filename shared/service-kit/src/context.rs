//! What belongs to the request being served: its id, its trace and its deadline. Follows the request through the code as a task
//! local; the client layer of [`crate::channel`] reads it and passes it on.

use std::{fmt, future::Future, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::TraceContextExt as _;
use tokio::time::{Duration, Instant};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header of request ids, in requests and in every response.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The W3C trace context header.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// Identifies one request in logs, answers and calls to other daemons: what the client sent as `x-request-id`, or a new UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        Self(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).to_string().into())
    }

    /// The id that a client sent, if it is one: up to 128 letters, digits, `-`, `_`, `.`, `:` and `/`.
    #[must_use]
    pub fn from_client(text: &str) -> Option<Self> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
        ((1..=128).contains(&text.len()) && text.chars().all(known)).then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a header's value.
    #[must_use]
    pub fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a distributed trace, as in W3C Trace Context: a trace and the span within it. Displayed as a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never zero.
    pub trace_id: u128,
    /// The span; never zero.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// The first span of a new trace.
    #[must_use]
    pub fn random() -> Self {
        Self { trace_id: rand::random::<u128>().max(1), span_id: rand::random::<u64>().max(1), sampled: true }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: rand::random::<u64>().max(1), ..self }
    }

    /// Reads a `traceparent` (<https://www.w3.org/TR/trace-context/#traceparent-header>); `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, length| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let shaped = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        // Version ff is invalid; version 00 has exactly these parts, later ones may have more.
        if !shaped || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok()?;
        let span_id = u64::from_str_radix(span, 16).ok()?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled })
    }

    /// From the headers of a request.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
    }

    /// As OpenTelemetry's context with a remote parent.
    pub(crate) fn to_opentelemetry(self) -> opentelemetry::Context {
        use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
        let span = SpanContext::new(
            TraceId::from_bytes(self.trace_id.to_be_bytes()),
            SpanId::from_bytes(self.span_id.to_be_bytes()),
            TraceFlags::new(u8::from(self.sampled)),
            true,
            TraceState::default(),
        );
        opentelemetry::Context::new().with_remote_span_context(span)
    }

    /// The place of `span` in the exported trace; `None` where no exporter is configured.
    pub(crate) fn of_span(span: &tracing::Span) -> Option<Self> {
        if !crate::telemetry::exports() {
            return None;
        }
        let context = span.context();
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| Self {
            trace_id: u128::from_be_bytes(span.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(span.span_id().to_bytes()),
            sampled: span.is_sampled(),
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// One request, as the code that serves it sees it. Also in the request's extensions.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Its id.
    pub request_id: RequestId,
    /// Its place in a trace.
    pub trace: TraceContext,
    /// When its answer is no longer awaited.
    pub deadline: Option<Instant>,
}

impl RequestContext {
    /// A new request with a new trace and no deadline.
    #[must_use]
    pub fn random() -> Self {
        Self { request_id: RequestId::random(), trace: TraceContext::random(), deadline: None }
    }

    /// Work that goes on after the request that asked for it, in the same trace: `traceparent` and `request_id` as stored with the
    /// work item; what is missing or malformed is new.
    #[must_use]
    pub fn resumed(traceparent: Option<&str>, request_id: Option<&str>) -> Self {
        // Where spans are exported, `span` makes the child, whose parent must be a span that somebody exported.
        let child = |parent: TraceContext| if crate::telemetry::exports() { parent } else { parent.child() };
        Self {
            request_id: request_id.and_then(RequestId::from_client).unwrap_or_else(RequestId::random),
            trace: traceparent.and_then(TraceContext::parse).map_or_else(TraceContext::random, child),
            deadline: None,
        }
    }

    /// The time left, zero when the deadline has passed; `None` without a deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// A span for work in this context, with its ids as fields and, where traces are exported, its remote parent.
    #[must_use]
    pub fn span(&self, name: &'static str) -> tracing::Span {
        let span = tracing::error_span!(
            "work", otel.name = name, work = name,
            request_id = %self.request_id, trace_id = %format_args!("{:032x}", self.trace.trace_id),
        );
        if crate::telemetry::exports() {
            // Fails only where the span is not exported, and then there is nothing to join.
            let _unexported = span.set_parent(self.trace.to_opentelemetry());
        }
        span
    }
}

/// The context of the request that this task serves.
#[must_use]
pub fn current() -> Option<RequestContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Runs `work` in `context`. A task spawned by `work` starts without one: take [`current`] along.
pub async fn scope<F: Future>(context: RequestContext, work: F) -> F::Output {
    CURRENT.scope(context, work).await
}

/// Runs `work` at once in `context`; for bodies that are polled outside the request's own future.
pub fn sync_scope<R>(context: RequestContext, work: impl FnOnce() -> R) -> R {
    CURRENT.sync_scope(context, work)
}

/// The trace context that a call made now should carry, and that a work item committed now should store; its display is a
/// `traceparent`. `None` outside of a request.
#[must_use]
pub fn current_trace() -> Option<TraceContext> {
    TraceContext::of_span(&tracing::Span::current()).or_else(|| current().map(|c| c.trace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents_are_read_as_the_standard_says() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceContext::parse(text).unwrap().to_string(), text);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
        assert!(TraceContext::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-what").is_some());
    }

    #[test]
    fn a_client_cannot_put_anything_into_logs_and_headers() {
        assert!(RequestId::from_client("req/1:a_b.c-d").is_some());
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(129)] {
            assert_eq!(RequestId::from_client(bad), None, "{bad:?}");
        }
        assert!(RequestId::random().to_header().is_some());
    }

    #[test]
    fn resumed_work_stays_in_its_trace() {
        let first = TraceContext::random();
        let context = RequestContext::resumed(Some(&first.to_string()), Some("r1"));
        assert_eq!(context.trace.trace_id, first.trace_id);
        assert_ne!(context.trace.span_id, first.span_id);
        assert_eq!(context.request_id.as_str(), "r1");
        assert_ne!(RequestContext::resumed(None, None).trace.trace_id, first.trace_id);
    }

    #[tokio::test]
    async fn the_context_is_there_inside_the_scope_only() {
        let context = RequestContext::random();
        let id = context.request_id.clone();
        assert_eq!(scope(context, async { current().unwrap().request_id }).await, id);
        assert!(current().is_none());
    }
}
