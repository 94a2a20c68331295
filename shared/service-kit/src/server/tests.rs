use std::{convert::Infallible, time::Instant};

use axum::{
    extract::{
        Extension,
        ws::{WebSocket, WebSocketUpgrade},
    },
    routing::get,
};
use cloud_contracts::agent::{
    GetInstanceRequest, compute_service_client::ComputeServiceClient, host_service_server::HostServiceServer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_stream::StreamExt;
use tonic::{Code, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;
use crate::{Address, channel, context, health::Readiness, layers, listen::BindPolicy, metrics::Metrics, service};

mod deadlines;
mod tls;

const LIMIT: Duration = Duration::from_secs(20);

/// A server with gRPC health and some REST routes.
struct Running {
    address: Address,
    stop: CancellationToken,
    task: JoinHandle<()>,
    metrics: Metrics,
    readiness: Readiness,
}

fn router(metrics: &Metrics, readiness: &Readiness) -> Router {
    let routes = Routes::new(readiness.grpc(vec![])).add_service(HostServiceServer::new(deadlines::Hangs));
    let ids = || async { context::current().map(|c| format!("{} {}", c.request_id, c.trace)).unwrap_or_default() };
    let peer = |Extension(connection): Extension<Arc<Connection>>| async move { format!("{connection:?}") };
    let router = service::into_router(routes)
        .route("/ids", get(ids))
        .route("/peer", get(peer))
        .route("/refuse", axum::routing::post(|| async { http::StatusCode::SERVICE_UNAVAILABLE }))
        .route("/hang", get(std::future::pending::<String>))
        .route("/panic", get(|| async { panic!("oops") as String }))
        .route("/echo", get(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo) }))
        .route("/method", get(|| async { Extension(cloud_rest::RpcMethod("a.B/C")) }))
        .route("/slow", get(|| async { time::sleep(Duration::from_millis(200)).await }))
        .route("/events", get(events))
        .merge(metrics.router());
    layers::apply(service::with_fallbacks(router), metrics)
}

/// A stream that says one thing and then waits for ever.
async fn events() -> axum::body::Body {
    let first = futures::stream::iter([Ok::<_, Infallible>("first\n")]);
    axum::body::Body::from_stream(first.chain(futures::stream::pending()))
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

impl Running {
    async fn start(address: &str, options: ServerOptions) -> Self {
        let policy = BindPolicy { tls: options.tls.is_some(), ..BindPolicy::default() };
        let listener = Listener::bind(&address.parse().unwrap(), policy).await.unwrap();
        let address = listener.local_addr().clone();
        let (metrics, readiness) = (Metrics::new("test").unwrap(), Readiness::default());
        let router = router(&metrics, &readiness);
        let stop = CancellationToken::new();
        let serving = serve(listener, router, options, stop.clone());
        Self { address, stop, task: tokio::spawn(async { serving.await.unwrap() }), metrics, readiness }
    }

    async fn plain() -> Self {
        Self::start("127.0.0.1:0", ServerOptions::default()).await
    }

    async fn connect(&self) -> TcpStream {
        let Address::Tcp { host, port } = &self.address else { panic!("not TCP") };
        TcpStream::connect((host.as_str(), *port)).await.unwrap()
    }

    /// One HTTP/1.1 request; the whole answer as text.
    async fn http(&self, request: &str) -> String {
        match &self.address {
            Address::Unix(path) => talk(UnixStream::connect(path).await.unwrap(), request).await,
            Address::Tcp { .. } => talk(self.connect().await, request).await,
        }
    }

    async fn get(&self, path: &str, headers: &str) -> String {
        self.http(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")).await
    }

    async fn stop(self) {
        self.stop.cancel();
        time::timeout(LIMIT, self.task).await.expect("ends in time").unwrap();
    }
}

async fn talk(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("answers in time").unwrap();
    answer
}

fn check() -> HealthCheckRequest {
    HealthCheckRequest::default()
}

#[tokio::test]
async fn rest_and_grpc_share_a_port_over_tcp_and_unix() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("s").display());
    for address in ["127.0.0.1:0", &socket] {
        let server = Running::start(address, ServerOptions::default()).await;
        let answer = server.get("/ids", "x-request-id: r1\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\nx-request-id: r1\r\n"), "{answer}");
        let mut client = HealthClient::new(channel::agent_channel(&server.address));
        assert_eq!(client.check(check()).await.unwrap().into_inner().status, 1);
        let peer = server.get("/peer", "").await;
        assert!(peer.contains(if address == socket { "Unix { uid: Some(" } else { "Tcp(Some(127.0.0.1:" }), "{peer}");
        server.stop().await;
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the socket is gone");
}

#[tokio::test]
async fn unknown_paths_answer_in_the_callers_protocol() {
    let server = Running::plain().await;
    let answer = server.get("/nowhere", "").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains(r#""status":"NOT_FOUND""#), "{answer}");
    assert!(answer.contains("x-request-id: "), "{answer}");
    let answer = server.http("POST /ids HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("/ids does not take POST"), "{answer}");
    let mut client = ComputeServiceClient::new(channel::agent_channel(&server.address));
    let status = client.get_instance(GetInstanceRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("ComputeService/GetInstance"), "{status:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_trace_goes_on_and_a_bad_one_is_replaced() {
    let server = Running::plain().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\n");
    let answer = server.get("/ids", &parent).await;
    assert!(answer.contains(trace) && !answer.contains("b7ad6b7169203331"), "{answer}");
    let answer = server.get("/ids", "traceparent: zz\r\nx-request-id: not ok!\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("not ok"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_panic_ends_one_request_and_not_its_connection() {
    let server = Running::plain().await;
    let two = "GET /panic HTTP/1.1\r\nhost: x\r\n\r\nGET /ids HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = server.http(two).await;
    assert!(answers.starts_with("HTTP/1.1 500") && answers.contains("HTTP/1.1 200 OK"), "{answers}");
    assert!(answers.contains("\"INTERNAL\"") && !answers.contains("oops"), "{answers}");
    server.stop().await;
}

#[tokio::test]
async fn websockets_pass_through_the_layers() {
    let server = Running::plain().await;
    let mut socket = server.connect().await;
    let request = "GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut socket, "101 Switching Protocols").await;
    // A masked text frame, with the mask 0.
    socket.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    read_until(&mut socket, "hi").await;
    server.stop().await;
}

#[tokio::test]
async fn requests_are_counted_by_route_and_outcome() {
    let server = Running::plain().await;
    server.get("/ids", "").await;
    server.get("/made/up/1", "").await;
    server.get("/method", "").await;
    HealthClient::new(channel::agent_channel(&server.address)).check(check()).await.unwrap();
    let text = server.get("/metrics", "").await;
    for series in [
        r#"rpc_duration_seconds_count{code="200",method="GET /ids",protocol="http",service="test"} 1"#,
        r#"rpc_duration_seconds_count{code="404",method="unmatched",protocol="http",service="test"} 1"#,
        r#"rpc_duration_seconds_count{code="OK",method="a.B/C",protocol="http",service="test"} 1"#,
        r#"rpc_duration_seconds_count{code="OK",method="grpc.health.v1.Health",protocol="grpc",service="test"} 1"#,
    ] {
        assert!(text.contains(series), "{series} is missing in {text}");
    }
    assert!(!server.metrics.render().unwrap().contains("made"));
    server.stop().await;
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_ends_idle_streams() {
    let server = Running::plain().await;
    let mut client = HealthClient::new(channel::agent_channel(&server.address));
    let mut request = tonic::Request::new(check());
    request.extensions_mut().insert(layers::NoDeadline);
    let mut watch = client.watch(request).await.unwrap().into_inner();
    watch.next().await.unwrap().unwrap();
    let mut events = server.connect().await;
    events.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut events, "first").await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.readiness.set_ready("nothing");
    wait_for_tasks(&server).await;

    server.stop.cancel();
    let status = time::timeout(LIMIT, watch.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("shutting down"), "{status:?}");
    read_until(&mut events, "0\r\n\r\n").await;
    read_until(&mut slow, "HTTP/1.1 200").await;
    let address = server.address.clone();
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "nothing is left to wait for");
    assert!(Listener::bind(&address, BindPolicy::default()).await.is_ok());
}

#[tokio::test]
async fn what_hangs_is_cut_off_after_the_grace() {
    let options = ServerOptions { grace: Duration::from_millis(200), ..ServerOptions::default() };
    let server = Running::start("127.0.0.1:0", options).await;
    let mut hanging = server.connect().await;
    hanging.write_all(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // A connection that never says anything does not hold it up either.
    let _silent = server.connect().await;
    wait_for_tasks(&server).await;
    server.stop().await;
    let mut rest = Vec::new();
    // Reset or closed, without an answer.
    let _reset = hanging.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_silent_client_and_a_huge_header_are_turned_away() {
    let options = ServerOptions { header_timeout: Duration::from_millis(100), ..ServerOptions::default() };
    let server = Running::start("127.0.0.1:0", options).await;
    assert_eq!(talk(server.connect().await, "").await, "");
    let answer = talk(server.connect().await, "GET /ids HTTP/1.1\r\nhost:").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let answer = server.get("/ids", &format!("x-big: {}\r\n", "x".repeat(100_000))).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn calls_fail_with_unavailable_while_nobody_listens_and_work_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", directory.path().join("s").display());
    let mut client = HealthClient::new(channel::agent_channel(&address.parse().unwrap()));
    assert_eq!(client.check(check()).await.unwrap_err().code(), Code::Unavailable);
    for _ in 0..2 {
        let server = Running::start(&address, ServerOptions::default()).await;
        client.check(check()).await.unwrap();
        server.stop().await;
    }
}

async fn read_until(stream: &mut TcpStream, wanted: &str) {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains(wanted) {
        let read = time::timeout(LIMIT, stream.read(&mut buffer)).await.expect("in time").unwrap();
        assert!(read > 0, "the connection ended before {wanted:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

/// Waits until the server has taken every request sent so far: it takes them in order of arrival, so one more must have been
/// answered.
async fn wait_for_tasks(server: &Running) {
    server.get("/ids", "").await;
    server.get("/ids", "").await;
}

#[tokio::test]
async fn who_is_refused_before_all_was_sent_reads_why_and_goes_on() {
    let server = Running::plain().await;
    let mut stream = server.connect().await;
    let (mut reading, mut writing) = stream.split();
    let length = 8 << 20;
    let head = format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let asking = async {
        writing.write_all(head.as_bytes()).await?;
        for _ in 0..length >> 16 {
            writing.write_all(&[0; 1 << 16]).await?;
            tokio::task::yield_now().await;
        }
        writing.write_all(b"GET /ids HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await
    };
    let mut answers = String::new();
    let (asked, _) = time::timeout(LIMIT, async { tokio::join!(asking, reading.read_to_string(&mut answers)) })
        .await
        .expect("answers in time");
    asked.unwrap();
    assert!(answers.starts_with("HTTP/1.1 503") && answers.contains("HTTP/1.1 200"), "{answers}");
    server.stop().await;
}
