//! One trace from a REST request to the call it makes, as a collector sees it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use cloud_service_kit::{
    Address, channel,
    health::Readiness,
    layers,
    listen::{BindPolicy, Listener},
    metrics::Metrics,
    server::{self, ServerOptions},
    service,
    telemetry::{self, TelemetryConfig},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        for span in spans {
            self.0.send(span).map_err(|e| Status::internal(e.to_string()))?;
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn serve(router: Router, stop: &CancellationToken) -> (Address, tokio::task::JoinHandle<()>) {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), BindPolicy::default()).await.unwrap();
    let address = listener.local_addr().clone();
    let serving = server::serve(listener, router, ServerOptions::default(), stop.clone());
    (address, tokio::spawn(async { serving.await.unwrap() }))
}

fn port(address: &Address) -> u16 {
    match address {
        Address::Tcp { port, .. } => *port,
        Address::Unix(path) => panic!("{}", path.display()),
    }
}

/// One test only: telemetry is started once per process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_sees_one_trace_from_the_request_to_the_call() {
    let (stop, stop_collector) = (CancellationToken::new(), CancellationToken::new());
    let (sender, mut spans) = mpsc::unbounded_channel();
    let (collector, collecting) =
        serve(Routes::new(TraceServiceServer::new(Collector(sender))).into_axum_router(), &stop_collector).await;
    let endpoint = format!("http://127.0.0.1:{}", port(&collector));
    let config = TelemetryConfig { otlp_endpoint: Some(endpoint), ..TelemetryConfig::default() };
    let guard = telemetry::init("kit-test", &config).unwrap();

    // Two daemons: the second answers health checks, the first makes one per request.
    let metrics = Metrics::new("kit-test").unwrap();
    let agent = service::into_router(Routes::new(Readiness::default().grpc(vec![])));
    let (agent, agent_serving) = serve(layers::apply(agent, &metrics), &stop).await;
    let client = Arc::new(HealthClient::new(channel::agent_channel(&agent)));
    let call = move || async move {
        let mut client = client.as_ref().clone();
        client.check(HealthCheckRequest::default()).await.map_or_else(|e| e.to_string(), |_| "called".to_owned())
    };
    let gateway = service::with_fallbacks(Router::new().route("/call", get(call)));
    let (gateway, gateway_serving) = serve(layers::apply(gateway, &metrics), &stop).await;

    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port(&gateway))).await.unwrap();
    let request = format!(
        "GET /call HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("called"), "{answer}");

    // Every span is complete when the servers have ended; the guard then sends them.
    stop.cancel();
    for serving in [agent_serving, gateway_serving] {
        tokio::time::timeout(Duration::from_secs(20), serving).await.expect("in time").unwrap();
    }
    let ours = |span: &Span| hex(&span.trace_id) == trace;
    guard.shutdown().await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let span = tokio::time::timeout(Duration::from_secs(20), spans.recv()).await.expect("two spans").unwrap();
        seen.extend(Some(span).filter(ours));
    }
    seen.sort_by_key(|span| span.start_time_unix_nano);
    assert_eq!(seen[0].name, "GET /call");
    assert_eq!(hex(&seen[0].parent_span_id), "b7ad6b7169203331");
    assert_eq!(seen[1].name, "grpc.health.v1.Health");
    assert_eq!(seen[1].parent_span_id, seen[0].span_id);

    stop_collector.cancel();
    tokio::time::timeout(Duration::from_secs(20), collecting).await.expect("in time").unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
