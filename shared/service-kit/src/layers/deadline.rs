//! Deadlines of requests: `grpc-timeout` for gRPC, `Request-Timeout` (seconds, or with a unit: `500ms`, `5s`, `1m`) for REST.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use futures::future::Either;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tower::{Layer, Service};

use crate::{
    context::{self, RequestContext},
    error::ServiceError,
    service::{error_response, is_grpc},
};

/// The longest deadline that is taken literally; a later one is as good as none.
const FOREVER: Duration = Duration::from_secs(365 * 86400);

/// Ends requests at the deadline that their caller set: DEADLINE_EXCEEDED in gRPC, streams included, 504 in REST. The rest of the code
/// sees the deadline in its [`RequestContext`].
#[must_use]
pub fn deadline_layer() -> DeadlineLayer {
    DeadlineLayer
}

/// See [`deadline_layer`].
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService { inner }
    }
}

/// See [`deadline_layer`].
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    inner: S,
}

type BoxedResponse = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<S> Service<Request> for DeadlineService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, BoxedResponse>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let grpc = is_grpc(request.headers());
        let timeout = match requested(request.headers(), grpc) {
            Ok(None) => return Either::Left(self.inner.call(request)),
            Ok(Some(timeout)) => timeout.min(FOREVER),
            Err(error) => return Either::Right(Box::pin(async move { Ok(error_response(grpc, error)) })),
        };
        let at = Instant::now() + timeout;
        let current = context::current().unwrap_or_else(RequestContext::random);
        let context = RequestContext { deadline: Some(at), ..current };
        request.extensions_mut().insert(context.clone());
        let calling = context::sync_scope(context.clone(), || self.inner.call(request));
        Either::Right(Box::pin(async move {
            let sleep = Box::pin(tokio::time::sleep_until(at));
            match tokio::time::timeout_at(at, context::scope(context.clone(), calling)).await {
                Err(_) => Ok(error_response(grpc, exceeded())),
                Ok(response) => {
                    Ok(response?.map(|body| Body::new(DeadlineBody { body, sleep, grpc, context, ended: false })))
                }
            }
        }))
    }
}

fn exceeded() -> ServiceError {
    ServiceError::deadline_exceeded(
        "the deadline that came with the request has passed; what the request started may go on: read the resource to see",
    )
}

/// The timeout that a request carries.
fn requested(headers: &HeaderMap, grpc: bool) -> Result<Option<Duration>, ServiceError> {
    let name = if grpc { "grpc-timeout" } else { "request-timeout" };
    let Some(value) = headers.get(name) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(if grpc { parse_grpc } else { parse_rest });
    parsed.map(Some).ok_or_else(|| {
        let form =
            if grpc { "up to 8 digits and one of H, M, S, m, u, n" } else { "seconds, or a number with ms, s or m" };
        ServiceError::invalid(name, format!("`{}` is not a timeout: write {form}", value.to_str().unwrap_or("…")))
    })
}

/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>: at most eight digits and a unit.
pub(super) fn parse_grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn parse_rest(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text.strip_suffix('s').unwrap_or(text), 1.0)
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

/// A timeout in the form of `grpc-timeout`, rounded down, so that the callee never believes to have more than the caller gives.
#[must_use]
pub(super) fn format_grpc(timeout: Duration) -> String {
    const MOST: u128 = 99_999_999;
    if timeout.as_micros() <= MOST {
        format!("{}u", timeout.as_micros())
    } else if timeout.as_millis() <= MOST {
        format!("{}m", timeout.as_millis())
    } else {
        format!("{}S", u128::from(timeout.as_secs()).min(MOST))
    }
}

/// A response body that ends at the deadline.
struct DeadlineBody {
    body: Body,
    sleep: Pin<Box<Sleep>>,
    grpc: bool,
    context: RequestContext,
    ended: bool,
}

impl HttpBody for DeadlineBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let body = &mut this.body;
        if let Poll::Ready(frame) = context::sync_scope(this.context.clone(), || Pin::new(body).poll_frame(cx)) {
            return Poll::Ready(frame);
        }
        std::task::ready!(this.sleep.as_mut().poll(cx));
        this.ended = true;
        if !this.grpc {
            return Poll::Ready(Some(Err(axum::Error::new(exceeded()))));
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(tonic::Code::DeadlineExceeded as i32));
        trailers.insert("grpc-message", HeaderValue::from_static("the deadline has passed"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_both_protocols_are_read() {
        for (text, millis) in
            [("1H", 3_600_000), ("2M", 120_000), ("3S", 3000), ("4m", 4), ("5000u", 5), ("9000000n", 9)]
        {
            assert_eq!(parse_grpc(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "1", "S", "123456789S", "1s", "-1S", "é"] {
            assert_eq!(parse_grpc(text), None, "{text}");
        }
        for (text, millis) in [("1", 1000), ("0.5", 500), ("2s", 2000), ("30ms", 30), ("1m", 60_000)] {
            assert_eq!(parse_rest(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1", "1h", "inf", "1e3", "1.2.3"] {
            assert_eq!(parse_rest(text), None, "{text}");
        }
    }

    #[test]
    fn a_written_timeout_is_read_back_and_never_longer() {
        for timeout in [Duration::ZERO, Duration::from_nanos(1_234_567), Duration::from_secs(200), FOREVER] {
            let read = parse_grpc(&format_grpc(timeout)).unwrap();
            assert!(read <= timeout && timeout - read < Duration::from_secs(1), "{timeout:?} {read:?}");
        }
    }
}
