//! gRPC on the wire, done by hand: frames and headers that no gRPC library would send.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use super::Case;

/// How long an endless answer is listened to.
const LISTEN: Duration = Duration::from_millis(100);

/// Where a server listens: `127.0.0.1:8080` or `unix:/path`.
#[derive(Debug, Clone)]
pub struct Target(pub String);

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The HTTP status.
    pub http: u16,
    /// `grpc-status`, of the headers or the trailers.
    pub code: Option<i32>,
    /// `grpc-message`.
    pub message: String,
    /// It went on, and was left.
    pub cut_off: bool,
}

impl Target {
    /// Makes a call on a connection of its own: what breaks one breaks no other.
    ///
    /// # Errors
    /// No connection, or it breaks before there is an answer.
    pub async fn call(&self, case: &Case) -> anyhow::Result<Answer> {
        match self.0.strip_prefix("unix:") {
            Some(path) => call(UnixStream::connect(path).await?, case).await,
            None => call(TcpStream::connect(&self.0).await?, case).await,
        }
    }
}

async fn call(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, case: &Case) -> anyhow::Result<Answer> {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.context("no HTTP/2")?;
    let connection = tokio::spawn(connection);
    let answer = exchange(&mut sender, case).await;
    connection.abort();
    answer
}

async fn exchange(sender: &mut http2::SendRequest<Full<Bytes>>, case: &Case) -> anyhow::Result<Answer> {
    let mut request = Request::post(format!("http://fuzz{}", case.path)).body(Full::new(case.body.clone()))?;
    *request.headers_mut() = case.headers.clone();
    let (parts, mut body) =
        sender.send_request(request).await.context("the connection broke before the answer")?.into_parts();
    let mut answer = Answer { http: parts.status.as_u16(), code: None, message: String::new(), cut_off: false };
    answer.take(&parts.headers);
    let read = async {
        while let Some(frame) = body.frame().await {
            if let Some(trailers) = frame.context("the answer broke off")?.trailers_ref() {
                answer.take(trailers);
            }
        }
        anyhow::Ok(())
    };
    if case.streams {
        // Over in time or not, both are right.
        match tokio::time::timeout(LISTEN, read).await {
            Ok(read) => read?,
            Err(_) => answer.cut_off = true,
        }
    } else {
        read.await?;
    }
    Ok(answer)
}

impl Answer {
    fn take(&mut self, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        if let Some(code) = text("grpc-status") {
            // One that is no number is no code: `judge` finds it.
            self.code = Some(code.parse().unwrap_or(-1));
            self.message = text("grpc-message").unwrap_or_default().to_owned();
        }
    }
}

/// Frames a message, sometimes wrongly; false where it was done wrongly.
pub fn frame(random: &mut StdRng, message: &[u8], into: &mut Vec<u8>) -> bool {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let (flag, said) = match random.random_range(0..100) {
        // Says that it is compressed, and is not.
        0 => (1, length),
        // No such flag.
        1 => (7, length),
        2 => (0, u32::MAX),
        3 => (0, length.wrapping_add(1)),
        4 => (0, length.wrapping_sub(1)),
        _ => (0, length),
    };
    into.push(flag);
    into.extend(said.to_be_bytes());
    into.extend(message);
    flag == 0 && said == length
}

/// The headers of a call.
pub struct Headers {
    /// They.
    pub headers: HeaderMap,
    /// They say that this is gRPC.
    pub grpc: bool,
    /// They are more than any server takes.
    pub large: bool,
}

/// Headers, mostly right.
pub fn headers(random: &mut StdRng, key: Option<&str>) -> Headers {
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &[u8]| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    };
    let content_type = match random.random_range(0..60) {
        0 => "application/grpc+proto",
        1 => "application/grpc+json",
        2 => "application/json",
        3 => "text/plain",
        4 => "application/grpc-web+proto",
        5 => "",
        _ => "application/grpc",
    };
    let grpc = matches!(content_type, "application/grpc" | "application/grpc+proto");
    set("content-type", content_type.as_bytes());
    set("te", b"trailers");
    if let Some(key) = key {
        match random.random_range(0..40) {
            0 => {}
            1 => set("authorization", b"Bearer wrong"),
            2 => set("authorization", b"Bearer \xff\xfe\x80"),
            3 => set("authorization", b"Basic YWRtaW46YWRtaW4="),
            4 => set("authorization", &[b'x'; 8_000]),
            5 => {
                set("authorization", b"Bearer wrong");
                set("authorization", format!("Bearer {key}").as_bytes());
            }
            _ => set("authorization", format!("Bearer {key}").as_bytes()),
        }
    }
    if random.random_bool(0.2) {
        let timeouts = ["1S", "100m", "1m", "0n", "1n", "99999999H", "123456789S", "-1S", "S", "", "1x", "٣S"];
        set("grpc-timeout", timeouts.choose(random).copied().unwrap_or_default().as_bytes());
    }
    if random.random_bool(0.1) {
        let encodings = ["identity", "gzip", "deflate", "zstd", "nonsense", ","];
        set("grpc-encoding", encodings.choose(random).copied().unwrap_or_default().as_bytes());
        set("grpc-accept-encoding", encodings.choose(random).copied().unwrap_or_default().as_bytes());
    }
    if random.random_bool(0.1) {
        let names = [
            "x-request-id",
            "traceparent",
            "tracestate",
            "x-project",
            "idempotency-key",
            "x-forwarded-for",
            "last-event-id",
        ];
        let values: [&[u8]; 6] = [
            b"",
            b"00-00000000000000000000000000000000-0000000000000000-01",
            b"\xff\xfe",
            b"default",
            &[b'y'; 4_000],
            b"a,b;c=d",
        ];
        set(
            names.choose(random).copied().unwrap_or("x-request-id"),
            values.choose(random).copied().unwrap_or_default(),
        );
    }
    if random.random_bool(0.03) {
        set("nonsense-bin", b"!!! no base64 !!!");
    }
    let large = random.random_bool(0.01);
    if large {
        for _ in 0..10 {
            set("x-large", &[b'z'; 8_000]);
        }
    }
    Headers { headers, grpc, large }
}
