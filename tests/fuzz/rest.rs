//! HTTP/1.1 as no client sends it: written by hand, in pieces, broken. What is well formed is schemathesis' part (`schemathesis.sh`).

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cloud_tests::chaos::{Chaos, daemon_is_sound};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::hasty_cloud;

/// How long a whole request may wait for its answer.
const LIMIT: Duration = Duration::from_secs(15);
/// How long a request that is not whole is held open before it is left.
const HOLD: Duration = Duration::from_millis(50);
const CALLERS: u64 = 8;

/// A request, and whether the server has all it needs to answer it.
struct Request {
    bytes: Vec<u8>,
    whole: bool,
    /// It gives the server a millisecond.
    hasty: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn http_withstands_anything() -> anyhow::Result<()> {
    let chaos = Chaos::new("raw HTTP fuzz", 15);
    let mut cloud = hasty_cloud().await?;
    cloud.running("web-01").await?;
    let (address, key) = (format!("127.0.0.1:{}", cloud.gateway.port()), cloud.gateway.key()?);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (chaos, address, key) = (chaos.clone(), address.clone(), key.clone());
        callers.spawn(async move {
            let (mut number, mut calls, mut good) = (caller, 0_u64, 0_u64);
            while chaos.goes_on() {
                let request = request(&mut chaos.random(number), &key);
                let context = || {
                    let shown = String::from_utf8_lossy(&request.bytes[..request.bytes.len().min(600)]).into_owned();
                    format!("{} request {number}: {shown:?}", chaos.again())
                };
                let status = exchange(&address, &request).await.with_context(context)?;
                // The gateway may not have done it in the millisecond that it was given.
                let hasty = status == Some(504) && request.hasty;
                ensure!(hasty || status.is_none_or(|s| s < 500), "{}: {status:?}", context());
                calls += 1;
                good += u64::from(status.is_some_and(|s| s < 300));
                number += CALLERS;
            }
            anyhow::Ok((calls, good))
        });
    }
    let mut all = (0, 0);
    while let Some(some) = callers.join_next().await {
        let some = some?.map_err(|error| cloud.with_log(error))?;
        all = (all.0 + some.0, all.1 + some.1);
    }
    println!("{} requests, {} of them answered 2xx", all.0, all.1);
    assert!(all.1 * 50 > all.0, "{all:?}: too few requests were understood for this to test anything");
    daemon_is_sound(&mut cloud.gateway).await.map_err(|error| chaos.context(error))?;
    cloud.check()?;
    cloud.launches_something_new().await.map_err(|error| chaos.context(error))
}

/// Sends a request and reads the status of its answer; `None`: the server closed, or the request is not whole and was left.
async fn exchange(address: &str, request: &Request) -> anyhow::Result<Option<u16>> {
    let mut stream = TcpStream::connect(address).await.context("no connection")?;
    // A server that has seen enough may close before it has read all.
    let _closed_early = stream.write_all(&request.bytes).await;
    let mut answer = Vec::new();
    let read = async {
        let mut part = [0; 4096];
        while !answer.windows(2).any(|w| w == b"\r\n") {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(count) => answer.extend(&part[..count]),
            }
        }
    };
    let limit = if request.whole { LIMIT } else { HOLD };
    let in_time = tokio::time::timeout(limit, read).await.is_ok();
    ensure!(in_time || !request.whole, "no answer within {limit:?}");
    if answer.is_empty() {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|s| s.parse().ok());
    status.map(Some).with_context(|| format!("no status in `{line}`"))
}

const PATHS: [&str; 22] = [
    "/instances",
    "/instances/web-01",
    "/instances/web-01/console-log",
    "/instances/web-01/console",
    "/instances/web-01/reboot",
    "/volumes",
    "/vpcs",
    "/vpcs/default/subnets",
    "/images",
    "/images:upload?name=fuzz&format=RAW",
    "/hosts",
    "/hosts/h1",
    "/events?page_size=5",
    "/openapi.json",
    "/health/ready",
    "/metrics",
    "/console/nonesuch",
    "/console/nonesuch/stream",
    "/nonesuch",
    "/v1/instances",
    "/cloud.v1.InstanceService/ListInstances",
    "/",
];
const METHODS: [&str; 14] = [
    "GET", "GET", "GET", "POST", "POST", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT",
    "NONSENSE",
];
const BODIES: [&str; 12] = [
    "{}",
    "",
    "[]",
    "null",
    "{",
    "{\"name\":\"fuzz\",\"image\":\"tiny\"}",
    "{\"name\":\"fuzz\",\"size_gib\":1}",
    "{\"name\":1e400}",
    "{\"labels\":{\"a\":{\"b\":{}}}}",
    "{\"name\":\"\\ud800\"}",
    "{\"cidr\":\"10.9.0.0/16\",\"name\":\"fuzz\"}",
    "name=web-01",
];

fn request(random: &mut StdRng, key: &str) -> Request {
    let mut pick = |of: &[&str]| (*of.choose(random).unwrap_or(&"")).to_owned();
    let (method, mut path, body) = (pick(&METHODS), pick(&PATHS), pick(&BODIES).into_bytes());
    if random.random_bool(0.1) {
        let more = [
            "%00",
            "%zz",
            "?page_size=-1&page_size=2",
            "?%ff=1",
            "//",
            "/..;/",
            "?a=b#c",
            "?x=\u{e9}",
            "/%2e%2e/%2e%2e/etc/passwd",
        ];
        path += more.choose(random).unwrap_or(&"");
    }
    let large = random.random_bool(0.02);
    let body = if large { vec![b' '; 3 << 20] } else { body };
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n");
    if random.random_bool(0.9) {
        head += &format!("authorization: Bearer {key}\r\n");
    }
    let types = [
        "application/json",
        "application/json; charset=utf-8",
        "application/octet-stream",
        "text/plain",
        "application/grpc",
        "",
        "\u{7f}",
    ];
    if random.random_bool(0.8) {
        let content_type = if random.random_bool(0.7) { types[0] } else { types.choose(random).unwrap_or(&"") };
        head += &format!("content-type: {content_type}\r\n");
    }
    let mut whole = true;
    match random.random_range(0..24) {
        0 => {
            head += "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        }
        1 => head += &format!("x-large: {}\r\n", "z".repeat(60_000)),
        2 => head += &"x-many: 1\r\n".repeat(500),
        3 => head += "expect: 100-continue\r\n",
        4 => head += "request-timeout: nonsense\r\n",
        5 => head += "request-timeout: 1ms\r\n",
        6 => head += "x-request-id: \u{e9}\u{e9}\r\ntraceparent: 00-0-0-0\r\n",
        7 => head += "range: bytes=0-,5-1\r\nif-match: \"*\r\naccept: nonsense\r\n",
        8 => head += "accept-encoding: gzip, br;q=nonsense\r\ncontent-encoding: gzip\r\n",
        _ => {}
    }
    let mut bytes = head.into_bytes();
    match random.random_range(0..14) {
        // Chunked, right and wrong.
        0 => {
            bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
            bytes.extend(format!("{:x}\r\n", body.len()).bytes());
            bytes.extend(&body);
            bytes.extend(if body.is_empty() { &b"\r\n"[..] } else { b"\r\n0\r\n\r\n" });
        }
        1 => bytes.extend(b"transfer-encoding: chunked\r\n\r\nnonsense\r\n"),
        2 => bytes.extend(b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        3 => bytes.extend(b"content-length: 5\r\ncontent-length: 6\r\n\r\n12345"),
        4 => bytes.extend(b"content-length: -1\r\n\r\n"),
        5 => bytes.extend(b"content-length: 99999999999999999999\r\n\r\n"),
        // Less than was said.
        6 => {
            bytes.extend(format!("content-length: {}\r\n\r\n", body.len() + 10).bytes());
            bytes.extend(&body);
            whole = false;
        }
        7 => whole = false,
        _ => {
            bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend(&body);
        }
    }
    if random.random_bool(0.08) {
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..bytes.len().min(400));
            bytes[at] = random.random();
        }
        // What is broken may look unfinished.
        whole = false;
    }
    if random.random_bool(0.03) {
        bytes.truncate(random.random_range(0..bytes.len()));
        whole = false;
    }
    let hasty = bytes.windows(20).any(|w| w == b"request-timeout: 1ms");
    Request { bytes, whole, hasty }
}
