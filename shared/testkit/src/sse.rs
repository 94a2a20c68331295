//! Server-Sent Events, as a browser reads them.

use std::{collections::VecDeque, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use crate::rest::Answer;

/// How long an event may take to come; longer than the gateway's heartbeat.
const PATIENCE: Duration = Duration::from_secs(30);

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// Its type; `message` where it has none.
    pub kind: String,
    /// Its id; empty where it has none.
    pub id: String,
    /// Its data as JSON; `Null` where it is none.
    pub data: Value,
}

/// A stream of events that is open.
#[derive(Debug)]
pub struct SseStream {
    /// The headers.
    pub headers: HeaderMap,
    /// Comments that came: heartbeats.
    pub comments: usize,
    body: Incoming,
    unread: Vec<u8>,
    ready: VecDeque<SseEvent>,
}

impl SseStream {
    /// The stream of an answer; where it is no stream, the answer.
    ///
    /// # Errors
    /// The answer is cut off.
    pub async fn of(answer: http::Response<Incoming>) -> anyhow::Result<Result<Self, Answer>> {
        let (parts, body) = answer.into_parts();
        if parts.status == StatusCode::OK {
            let (unread, ready) = (Vec::new(), VecDeque::new());
            return Ok(Ok(Self { headers: parts.headers, comments: 0, body, unread, ready }));
        }
        let body = body.collect().await?.to_bytes();
        Ok(Err(Answer { status: parts.status, headers: parts.headers, body }))
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// The connection broke, or nothing comes.
    pub async fn next(&mut self) -> anyhow::Result<Option<SseEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.context("no event comes")?;
            let Some(frame) = frame else { return Ok(None) };
            self.read(&frame?.into_data().unwrap_or_default());
        }
    }

    fn read(&mut self, data: &Bytes) {
        self.unread.extend_from_slice(data);
        while let Some(end) = self.unread.windows(2).position(|w| w == b"\n\n") {
            let block: Vec<u8> = self.unread.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block).into_owned();
            self.block(&block);
        }
    }

    fn block(&mut self, block: &str) {
        let (mut kind, mut id, mut data) = ("message".to_owned(), String::new(), String::new());
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "event" => value.clone_into(&mut kind),
                "id" => value.clone_into(&mut id),
                "data" => data.push_str(value),
                _ => {}
            }
        }
        if !data.is_empty() {
            let data = serde_json::from_str(&data).unwrap_or(Value::Null);
            self.ready.push_back(SseEvent { kind, id, data });
        }
    }
}
