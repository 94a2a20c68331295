//! A small HTTP client for tests: says what it got, judges nothing.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::sse::SseStream;

/// How long an answer may take; longer than the gateway's own deadline for a stop.
const DEADLINE: Duration = Duration::from_secs(75);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A string of the JSON body by its pointer, such as `/error/status`; empty where there is none.
    #[must_use]
    pub fn at(&self, pointer: &str) -> String {
        self.json().pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The body, where the status is the one expected.
    ///
    /// # Errors
    /// Another status; says which, and the body.
    pub fn expect(self, status: u16) -> anyhow::Result<Value> {
        anyhow::ensure!(self.status.as_u16() == status, "wanted {status}, got {}: {}", self.status, self.text());
        Ok(self.json())
    }
}

/// Calls the REST API at one base URL, with one API key or none. Connections are kept.
#[derive(Debug, Clone)]
pub struct RestClient {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    headers: HeaderMap,
}

impl RestClient {
    /// Calls `base`, such as `http://127.0.0.1:8080`, without a key.
    #[must_use]
    pub fn new(base: impl Into<String>) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { base: base.into(), client, headers: HeaderMap::new() }
    }

    /// With this header in every request.
    ///
    /// # Errors
    /// The value is none of a header.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> anyhow::Result<Self> {
        self.headers.insert(name, HeaderValue::from_str(value)?);
        Ok(self)
    }

    /// With this API key.
    ///
    /// # Errors
    /// The key cannot stand in a header.
    pub fn with_key(self, key: &str) -> anyhow::Result<Self> {
        self.with_header(header::AUTHORIZATION, &format!("Bearer {key}"))
    }

    /// Sends any body with any content type.
    ///
    /// # Errors
    /// No answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
        }
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(body.into()))?;
        let whole = async {
            let answer = self.client.request(request).await?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(DEADLINE, whole).await.with_context(|| format!("no answer to {path} in time"))?
    }

    /// GET.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, None, Bytes::new()).await
    }

    /// GET of Server-Sent Events, after the event with this id where there is one. Where the answer is no stream, the answer.
    ///
    /// # Errors
    /// No answer.
    pub async fn events(&self, path: &str, last_event_id: &str) -> anyhow::Result<Result<SseStream, Answer>> {
        let mut request = Request::get(format!("{}{path}", self.base));
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
        }
        if !last_event_id.is_empty() {
            request = request.header("last-event-id", last_event_id);
        }
        let answer = self.client.request(request.body(Full::new(Bytes::new()))?);
        let answer = tokio::time::timeout(DEADLINE, answer).await;
        SseStream::of(answer.with_context(|| format!("no answer to {path} in time"))??).await
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// No answer.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, Some("application/json"), serde_json::to_vec(body)?).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// No answer.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path, None, Bytes::new()).await
    }
}
