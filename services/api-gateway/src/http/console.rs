//! The console of an instance in a browser: a page with a small terminal, and the WebSocket behind it. Both are opened by the token in the
//! path alone, so the page sets nothing, loads nothing and tells no other site where it is.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{
        Path, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use cloud_core::{
    model::Timestamp,
    ports::Store,
    services::{ConsoleService, Services},
};
use cloud_service_kit::server::Connection;
use futures::{SinkExt, StreamExt, stream::SplitSink};
use http::{HeaderValue, header};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, interval, sleep, timeout};

use super::rest_response;
use crate::handlers::{self, ConsoleLine, Consoles};

const PAGE: &str = include_str!("console.html");
/// How often a silent browser is asked whether it is still there, and how long it may take to take what it is sent.
const PING: Duration = Duration::from_secs(20);
/// The largest message of keystrokes: a paste.
const MAX_INPUT: usize = 64 << 10;

/// Close codes for the page: RFC 6455 leaves 4000 to 4999 to applications.
const ENDED: u16 = 4000;
const EXPIRED: u16 = 4001;

struct Console<S> {
    tickets: ConsoleService<S>,
    consoles: Arc<dyn Consoles>,
}

impl<S: Clone> Clone for Console<S> {
    fn clone(&self) -> Self {
        Self { tickets: self.tickets.clone(), consoles: Arc::clone(&self.consoles) }
    }
}

pub(super) fn router<S: Store>(services: Services<S>, consoles: Arc<dyn Consoles>) -> Router {
    let console = Console { tickets: services.console, consoles };
    Router::new()
        .route("/console/{token}", get(page::<S>))
        .route("/console/{token}/ws", get(socket::<S>))
        .with_state(console)
}

async fn page<S: Store>(State(console): State<Console<S>>, Path(token): Path<String>) -> Response {
    let name = match console.tickets.redeem(&token).await {
        Ok(instance) => instance.meta.name,
        Err(error) => return secure(unavailable(&handlers::status(error))),
    };
    // Names are lower-case letters, digits and hyphens, but the page does not depend on that.
    let html = PAGE.replace("{{name}}", &escape(&name));
    let mut response = Response::new(Body::from(html));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    secure(response)
}

/// A plain page that says why there is no console.
fn unavailable(status: &tonic::Status) -> Response {
    let code = rest_response(status).status();
    let html = format!(
        "<!doctype html><meta charset=utf-8><title>Console</title><body style=\"font:16px sans-serif;margin:3em\"><h1>No \
         console</h1><p>{}</p>",
        escape(status.message())
    );
    let mut response = (code, html).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// What the page may do: run its own script, and open its own WebSocket.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let script = PAGE.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>")).map_or("", |(s, _)| s);
    let hash = BASE64_STANDARD.encode(Sha256::digest(script));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    for (name, value) in [
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

async fn socket<S: Store>(
    State(console): State<Console<S>>,
    Path(token): Path<String>,
    connection: Option<axum::Extension<Arc<Connection>>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let instance = match console.tickets.redeem(&token).await {
        Ok(instance) => instance,
        Err(error) => return rest_response(&handlers::status(error)),
    };
    let line = match console.consoles.open(instance.host, instance.id()).await {
        Ok(line) => line,
        Err(error) => return rest_response(&handlers::backend(error)),
    };
    let left = expires(&token).since(Timestamp::now());
    let shutdown = connection.map(|axum::Extension(connection)| connection.shutdown.clone()).unwrap_or_default();
    upgrade.max_message_size(MAX_INPUT).on_upgrade(move |socket| async move {
        shutdown.run_until_cancelled(bridge(socket, line, Instant::now() + left)).await;
    })
}

/// When a token ends: it says so itself, and its signature has been checked.
fn expires(token: &str) -> Timestamp {
    let expiry = token.split('.').nth(1).and_then(|text| i64::from_str_radix(text, 16).ok());
    Timestamp(expiry.unwrap_or(0))
}

/// Carries bytes both ways until one side ends, or the token does.
async fn bridge(socket: WebSocket, line: ConsoleLine, until: Instant) {
    let ConsoleLine { input, mut output } = line;
    let (mut to_browser, mut from_browser) = socket.split();
    let mut ping = interval(PING);
    let mut heard = Instant::now();
    let end = sleep(until.saturating_duration_since(Instant::now()));
    tokio::pin!(end);
    let (code, reason) = loop {
        tokio::select! {
            () = &mut end => break (EXPIRED, "this console link has ended"),
            data = output.next() => match data {
                Some(Ok(data)) => if !send(&mut to_browser, Message::Binary(data)).await { return },
                Some(Err(error)) => {
                    tracing::debug!(%error, "a console ended");
                    break (ENDED, "the console was lost");
                }
                None => break (ENDED, "the guest has ended"),
            },
            message = from_browser.next() => {
                heard = Instant::now();
                let data = match message {
                    Some(Ok(Message::Binary(data))) => data,
                    Some(Ok(Message::Text(text))) => Bytes::from(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                // A guest that does not read holds up its own typist only, and not for ever.
                match timeout(PING, input.send(data)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => break (ENDED, "the console takes no input"),
                }
            },
            _ = ping.tick() => {
                let gone = heard.elapsed() > 3 * PING;
                if gone || !send(&mut to_browser, Message::Ping(Bytes::new())).await { return }
            },
        }
    };
    send(&mut to_browser, Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
}

/// Whether the browser took it in time.
async fn send(to: &mut SplitSink<WebSocket, Message>, message: Message) -> bool {
    matches!(timeout(PING, to.send(message)).await, Ok(Ok(())))
}
