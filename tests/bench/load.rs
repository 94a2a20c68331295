//! Load: clients in this process that call as fast as they are answered.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

/// How many clients call at the same time.
pub const CLIENTS: usize = 32;

/// How often and how long each side of a comparison is measured.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    /// How often.
    pub rounds: usize,
    /// How long each time.
    pub time: Duration,
}

/// What came of calling for a while.
#[derive(Debug)]
pub struct Outcome {
    /// Answers per second.
    pub per_second: f64,
    /// Latencies in microseconds.
    pub latency: Histogram<u64>,
}

/// The gateway's flag that lifts the quotas: what is measured is not how soon one is used up.
pub fn no_quotas() -> String {
    let none = ["instances", "vcpus", "memory_mib", "volume_gib", "vpcs"].map(|of| format!("{of}=none"));
    format!("--quota={}", none.join(","))
}

/// A histogram of microseconds, up to a minute, with three digits.
pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// Latency in whole microseconds.
pub fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Calls `call` from each of `clients` one after the other for `time`. The first error ends it.
pub async fn drive<C, F>(clients: Vec<C>, time: Duration, call: fn(C) -> F) -> anyhow::Result<Outcome>
where
    C: Send + 'static,
    F: Future<Output = anyhow::Result<C>> + Send + 'static,
{
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let mut latency = histogram()?;
            while begun.elapsed() < time {
                let sent = Instant::now();
                client = call(client).await?;
                latency.saturating_record(micros(sent));
            }
            anyhow::Ok(latency)
        });
    }
    let mut latency = histogram()?;
    while let Some(done) = tasks.join_next().await {
        latency.add(done??)?;
    }
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let per_second = latency.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Outcome { per_second, latency })
}

/// An HTTP/1.1 connection that asks for one path again and again.
pub struct Http {
    sender: SendRequest<Empty<Bytes>>,
    path: String,
    authorization: String,
}

impl Http {
    /// [`CLIENTS`] connections to `127.0.0.1:port`.
    pub async fn connect(port: u16, path: &str, key: &str) -> anyhow::Result<Vec<Self>> {
        let mut clients = Vec::with_capacity(CLIENTS);
        for _ in 0..CLIENTS {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Ends with its sender.
            tokio::spawn(connection);
            clients.push(Self { sender, path: path.to_owned(), authorization: format!("Bearer {key}") });
        }
        Ok(clients)
    }

    /// One GET; anything but 200 is an error. Returns the body's length too.
    async fn get(mut self) -> anyhow::Result<(Self, usize)> {
        self.sender.ready().await?;
        let request = Request::get(&self.path)
            .header(header::HOST, "127.0.0.1")
            .header(header::AUTHORIZATION, &self.authorization)
            .body(Empty::new())?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok((self, body.len()))
    }

    /// One GET.
    pub async fn call(self) -> anyhow::Result<Self> {
        Ok(self.get().await.context("GET failed")?.0)
    }
}
