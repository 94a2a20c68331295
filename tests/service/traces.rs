//! One trace from a request to the calls it causes, in this process and as a collector sees it.

use std::time::Duration;

use cloud_testkit::{Effect, Method, sim::Rule, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// What the launch of an instance calls, on each of the three agents.
const CALLS: [Method; 4] = [Method::PutImage, Method::EnsureVolume, Method::ApplyVpc, Method::EnsureInstance];
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Launches an instance as part of [`TRACE`], and sees that each agent was called as part of it. Returns the span ids of the calls.
async fn launch_traced(cloud: &TestCloud) -> anyhow::Result<Vec<String>> {
    // Else its first inventory may be what tells the host of the VPC, on nobody's behalf.
    until("the host's inventory to be taken", PATIENCE, || async {
        let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
        anyhow::Ok(if host["inventoried_at"].is_string() { Ok(()) } else { Err(host.to_string()) })
    })
    .await?;
    let header = http::HeaderName::from_static("traceparent");
    let rest = cloud.rest.clone().with_header(header, &format!("00-{TRACE}-{PARENT}-01"))?;
    rest.post("/instances", &json!({"name": "web-01", "image": IMAGE})).await?.expect(201)?;
    cloud.becomes("web-01", "RUNNING").await?;
    let mut spans = Vec::new();
    for method in CALLS {
        // An inventory may have told the host of the VPC too, on nobody's behalf.
        let traces = cloud.host().traceparents(method);
        let trace = traces.iter().find(|trace| trace.contains(TRACE));
        let trace = trace.unwrap_or_else(|| panic!("{method} was not called in the request's trace: {traces:?}"));
        let parts: Vec<_> = trace.split('-').collect();
        assert_ne!(parts[2], PARENT, "{method} is called by a span of the gateway's own");
        spans.push(parts[2].to_owned());
    }
    Ok(spans)
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_called_in_the_trace_of_the_request() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let fails = Rule::on(Method::EnsureVolume, Effect::FailBefore(tonic::Code::Unavailable)).once();
    cloud.host().faults().inject(fails);
    launch_traced(&cloud).await?;
    // What went wrong after the answer is found by the request's trace.
    let log = cloud.gateway.log()?;
    let line = log.lines().find(|line| line.contains("injected fault")).expect("the fault is in the log");
    assert!(line.contains(TRACE), "{line}");
    Ok(())
}

struct Collector(mpsc::Sender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        for span in spans.filter(|span| hex::encode(&span.trace_id) == TRACE) {
            self.0.send(span).await.map_err(|e| Status::internal(e.to_string()))?;
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_sent_the_whole_trace() -> anyhow::Result<()> {
    let (sender, mut received) = mpsc::channel(1024);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("--otlp-endpoint=http://{}", listener.local_addr()?);
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    // Ends with the test's runtime.
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let mut cloud = TestCloud::with(Setup { args: vec![endpoint], ..Setup::default() }).await?;
    let callers = launch_traced(&cloud).await?;
    // The last spans are sent before it ends.
    cloud.gateway.process().unwrap().terminate(Duration::from_secs(15)).await?;
    let mut spans = Vec::new();
    until("the spans that called the agents", PATIENCE, || {
        while let Ok(span) = received.try_recv() {
            spans.push(span);
        }
        let missing = callers.iter().find(|id| spans.iter().all(|s| hex::encode(&s.span_id) != **id)).cloned();
        async move { anyhow::Ok(missing.map_or(Ok(()), Err)) }
    })
    .await?;
    let request = spans.iter().find(|s| hex::encode(&s.parent_span_id) == PARENT).expect("the request's span");
    assert!(request.name.contains("/instances"), "{}", request.name);
    // Every other span descends from the request's: nothing in this trace hangs in the air.
    for span in spans.iter().filter(|s| s.span_id != request.span_id) {
        let parent = spans.iter().find(|s| s.span_id == span.parent_span_id);
        assert!(parent.is_some(), "`{}` has no parent among {:?}", span.name, spans.iter().map(|s| &s.name));
    }
    Ok(())
}
