//! Request bodies: JSON, of a limited size, in limited time.
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;

use crate::{config::Config, failure::Failure};

/// How much of a body that is too large is read and thrown away, as a multiple of the limit: a client that is
/// still sending does not see an answer on a connection that is closed under it.
const DRAIN: usize = 16;

/// Refuses a content type that is not JSON. None at all is taken as JSON.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Failure> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json {
        return Ok(());
    }
    let message = format!("the content type is `{text}`; send `application/json`");
    Err(Failure::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message))
}

/// Reads a body whole.
pub(crate) async fn read(config: &Config, body: Body) -> Result<Bytes, Failure> {
    match tokio::time::timeout(config.body_timeout, collect(config.body_limit, body)).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("the body did not arrive within {} s", config.body_timeout.as_secs());
            Err(Failure::http(StatusCode::REQUEST_TIMEOUT, "BODY_TIMEOUT", message))
        }
    }
}

async fn collect(limit: usize, mut body: Body) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut total = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::bad(format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total > limit.saturating_mul(DRAIN) {
            break;
        }
        if total > limit {
            (first, rest) = (Bytes::new(), BytesMut::new());
        } else if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    if total > limit {
        let message = format!("the body is larger than the limit of {limit} bytes");
        return Err(Failure::http(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", message));
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}
