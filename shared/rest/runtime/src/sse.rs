//! Server streams as Server-Sent Events.
use std::{convert::Infallible, sync::Arc};

use axum::response::{
    IntoResponse, Response as HttpResponse,
    sse::{Event, KeepAlive, Sse},
};
use futures::{Stream, StreamExt};
use http::{HeaderValue, header};
use serde::Serialize;
use tonic::{Response, Status};

use crate::{
    config::Config,
    respond::{add_headers, error_body},
};

/// What of a message is not only in an event's data.
pub struct EventFields<R> {
    /// The event's id: what `Last-Event-ID` says when the stream is resumed. An empty one leaves the last one standing.
    pub id: Option<fn(&R) -> &str>,
    /// The event's type.
    pub kind: Option<fn(&R) -> &'static str>,
}

impl<R> Clone for EventFields<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for EventFields<R> {}

/// One event per message; an error is a last event called `error`, as a stream ends after its first error.
pub(crate) fn stream<R, S>(config: Arc<Config>, response: Response<S>, fields: EventFields<R>) -> HttpResponse
where
    R: Serialize + 'static,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
{
    let (metadata, messages, extensions) = response.into_parts();
    let keep_alive = KeepAlive::new().interval(config.keep_alive).text("keep-alive");
    let events = messages.scan(false, move |ended, item| {
        let event = (!*ended).then(|| match item.and_then(|message| event(&message, fields)) {
            Ok(event) => event,
            Err(status) => {
                *ended = true;
                error_event(&config, &status)
            }
        });
        std::future::ready(event.map(Ok::<_, Infallible>))
    });
    let mut http = Sse::new(events).keep_alive(keep_alive).into_response();
    add_headers(http.headers_mut(), metadata.into_headers());
    // The stream's own type wins over what a handler may have set; proxies must not hold events back.
    http.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    http.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    http.extensions_mut().extend(extensions);
    http
}

fn event<R: Serialize>(message: &R, fields: EventFields<R>) -> Result<Event, Status> {
    let json = serde_json::to_string(message);
    let json = json.map_err(|error| Status::internal(format!("cannot write the event: {error}")))?;
    let event = match fields.kind {
        Some(kind) => Event::default().event(kind(message)).data(json),
        None => Event::default().data(json),
    };
    // An id with a line break or NUL in it would not be an id; axum refuses it by panic.
    match fields.id.map(|id| id(message)).filter(|id| !id.is_empty() && !id.contains(['\r', '\n', '\0'])) {
        Some(id) => Ok(event.id(id)),
        None => Ok(event),
    }
}

fn error_event(config: &Config, status: &Status) -> Event {
    let (_, body) = error_body(config, status, None);
    Event::default().event("error").data(body.to_string())
}
