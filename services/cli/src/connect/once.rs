//! Changes are made once, however often they are sent.
//!
//! Every call that changes something goes out with a request id, so that a gateway that carried it out and could not say so does not carry it
//! out again. That makes it safe to send it again where the gateway was away for a moment: restarted, or another one behind the same
//! address took over. It stands beneath the clients, so no verb has to think of it.

use std::{
    convert::Infallible,
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::sleep;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;
use tower::Service;
use uuid::Uuid;

/// The metadata that carries the id.
const KEY: &str = "idempotency-key";
/// How often a change is sent at most.
const TRIES: u32 = 5;
/// The pause before the first repetition, where the gateway does not say; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, whatever the gateway says.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Sends changes with an id, and again where nobody was there to answer.
#[derive(Debug, Clone)]
pub struct Once<S> {
    inner: S,
    /// The id that the user gave, and whether a change has taken it.
    given: Option<(HeaderValue, Arc<AtomicBool>)>,
}

impl<S> Once<S> {
    /// Over the service that sends.
    pub fn new(inner: S, given: Option<String>) -> Self {
        let given = given.and_then(|id| HeaderValue::from_str(&id).ok()).map(|id| (id, Arc::default()));
        Self { inner, given }
    }

    /// Whether an id was given and no change has taken it.
    pub fn is_id_unused(&self) -> bool {
        self.given.as_ref().is_some_and(|(_, taken)| !taken.load(Ordering::Relaxed))
    }

    /// The id of the next change.
    fn id(&self) -> Result<HeaderValue, Status> {
        let Some((id, taken)) = &self.given else {
            let id = Uuid::new_v4().to_string();
            return HeaderValue::from_str(&id).map_err(|error| Status::internal(error.to_string()));
        };
        if taken.swap(true, Ordering::Relaxed) {
            return Err(Status::invalid_argument("--request-id is for one change, and this makes several: name one"));
        }
        Ok(id.clone())
    }
}

/// Whether a method changes something that an id makes a change once. What only reads is called so by the contract's rules; backing up and
/// restoring the database has no request id.
fn changes(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    !["Get", "List", "Watch", "Stream", "Explain", "Trace", "Backup", "Restore"]
        .iter()
        .any(|reads| method.starts_with(reads))
}

impl<S, B> Service<Request<Body>> for Once<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(status)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that was polled until it was ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        if !changes(request.uri().path()) {
            let sent = inner.call(request);
            return Box::pin(async move { sent.await.map_err(status) });
        }
        match self.id() {
            Ok(id) => request.headers_mut().insert(KEY, id),
            Err(refused) => return Box::pin(async move { Err(refused) }),
        };
        if request.uri().path().ends_with("/UploadImage") {
            // A stream of bytes is not kept to be sent again: whoever runs the command does so, with --request-id.
            let sent = inner.call(request);
            return Box::pin(async move { sent.await.map_err(status) });
        }
        Box::pin(again(inner, request))
    }
}

/// Sends a change until somebody answers it, or often enough.
async fn again<S, B>(mut inner: S, request: Request<Body>) -> Result<Response<B>, Status>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let (mut tried, mut pause) = (1, FIRST_PAUSE);
    loop {
        let body = Body::new(Full::new(bytes.clone()).map_err(|never: Infallible| -> Status { match never {} }));
        let ready = std::future::poll_fn(|context| inner.poll_ready(context)).await.map_err(status);
        let sent = match ready {
            Ok(()) => inner.call(Request::from_parts(parts.clone(), body)).await.map_err(status),
            Err(error) => Err(error),
        };
        let (answer, wait) = match sent {
            Ok(response) => {
                let said = Status::from_header_map(response.headers());
                let wait = said.filter(|s| s.code() == Code::Unavailable).map(|s| asked(&s));
                (Ok(response), wait)
            }
            Err(error) => {
                let away = matches!(error.code(), Code::Unavailable | Code::Unknown);
                (Err(error), away.then_some(None))
            }
        };
        let Some(wait) = wait.filter(|_| tried < TRIES) else { return answer };
        sleep(wait.unwrap_or(pause + jitter(pause)).min(LONGEST_PAUSE)).await;
        tried += 1;
        pause *= 2;
    }
}

/// How long the gateway asks to wait.
fn asked(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// Up to half as much: commands that were refused together do not come back together.
fn jitter(pause: Duration) -> Duration {
    let part = Uuid::new_v4().as_bytes().iter().take(4).fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    pause.mul_f64(f64::from(part) / f64::from(u32::MAX) / 2.0)
}

/// What a failure to send is.
fn status(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Status {
    Status::from_error(error.into())
}
