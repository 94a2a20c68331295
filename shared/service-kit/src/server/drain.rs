//! What a client still sends of a request that is answered already.
//!
//! An HTTP/1 connection that is closed while the client sends takes the answer with it where the client has not read it yet, and a client that has may use
//! the connection again just then (RFC 9112, section 9.6). So what comes is read and thrown away, up to a limit.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long it is read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much is read, in bytes.
const LIMIT: usize = 64 << 20;

/// A request whose body is read to its end after it was dropped. Over HTTP/2 a stream is refused alone: nothing to do.
pub(super) fn drained(request: Request<Incoming>, shutdown: &CancellationToken) -> Request<Body> {
    if request.version() >= Version::HTTP_2 || request.body().is_end_stream() {
        return request.map(Body::new);
    }
    request.map(|body| Body::new(Drained { body: Some(body), shutdown: shutdown.clone() }))
}

struct Drained {
    /// None: it has ended.
    body: Option<Incoming>,
    shutdown: CancellationToken,
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let shutdown = self.shutdown.clone();
        runtime.spawn(async move { shutdown.run_until_cancelled(timeout(PATIENCE, drain(body))).await });
    }
}

async fn drain(mut body: Incoming) {
    let mut left = LIMIT;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
