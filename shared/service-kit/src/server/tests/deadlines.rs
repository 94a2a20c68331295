//! Deadlines, over both protocols and from one call to the next.

use cloud_contracts::agent::{
    HeartbeatRequest, HeartbeatResponse, HeartbeatsRequest, HeartbeatsResponse, JoinRequest, JoinResponse,
    RegisterRequest, RegisterResponse, RenewRequest, RenewResponse, host_service_client::HostServiceClient,
    host_service_server::HostService,
};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::*;

/// A service whose heartbeat never answers, and whose registration makes a call to the endpoint it is given, as a gateway does.
pub(super) struct Hangs;

#[tonic::async_trait]
impl HostService for Hangs {
    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let address: Address = request.into_inner().endpoint.parse().map_err(|e| Status::internal(format!("{e}")))?;
        HostServiceClient::new(channel::agent_channel(&address)).heartbeat(HeartbeatRequest::default()).await?;
        Ok(Response::new(RegisterResponse::default()))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        std::future::pending().await
    }

    type HeartbeatsStream = BoxStream<HeartbeatsResponse>;

    async fn heartbeats(
        &self,
        _: Request<Streaming<HeartbeatsRequest>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    /// Says what it knows of its request.
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let context = context::current().ok_or_else(|| Status::internal("no context"))?;
        let same = request.extensions().get::<context::RequestContext>().map(|c| c.request_id == context.request_id);
        let millis = context.remaining().map(|left| left.as_millis());
        let certificate = format!("{} {:032x} {millis:?} {same:?}", context.request_id, context.trace.trace_id);
        Ok(Response::new(RenewResponse { certificate, ca_certificate: String::new() }))
    }
}

fn within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

#[tokio::test]
async fn rest_ends_with_504_at_request_timeout() {
    let server = Running::plain().await;
    let answer = server.get("/hang", "request-timeout: 50ms\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("DEADLINE_EXCEEDED"), "{answer}");
    let answer = server.get("/ids", "request-timeout: soon\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("`soon` is not a timeout"), "{answer}");
    let answer = server.get("/ids", "request-timeout: 5\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn grpc_calls_and_streams_end_with_deadline_exceeded() {
    let server = Running::plain().await;
    let mut client = HostServiceClient::new(channel::agent_channel(&server.address));
    let call = within(HeartbeatRequest::default(), Duration::from_millis(50));
    assert_eq!(client.heartbeat(call).await.unwrap_err().code(), Code::DeadlineExceeded);
    // By the server alone: a plain channel without the client's own timer.
    let mut watch = HealthClient::new(channel::agent_channel(&server.address))
        .watch(within(check(), Duration::from_millis(100)))
        .await
        .unwrap()
        .into_inner();
    watch.next().await.unwrap().unwrap();
    let status = time::timeout(LIMIT, watch.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.stop().await;
}

#[tokio::test]
async fn the_server_enforces_a_deadline_whatever_the_client_does() {
    let server = Running::plain().await;
    let Address::Tcp { port, .. } = server.address else { panic!("not TCP") };
    let body = "\0\0\0\0\0";
    let request = format!(
        "POST /cloud.agent.v1.HostService/Heartbeat HTTP/1.1\r\nhost: x:{port}\r\nconnection: close\r\n\
         content-type: application/grpc\r\ngrpc-timeout: 50m\r\ncontent-length: 5\r\n\r\n{body}"
    );
    let answer = server.http(&request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\ngrpc-status: 4\r\n"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn what_is_left_of_a_deadline_is_passed_on() {
    let server = Running::plain().await;
    let mut client = HostServiceClient::new(channel::agent_channel(&server.address));
    let nested = RegisterRequest { endpoint: server.address.to_string(), ..RegisterRequest::default() };
    let started = Instant::now();
    let status = client.register(within(nested, Duration::from_millis(300))).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(started.elapsed() < channel::DEFAULT_DEADLINE / 2);
    server.stop().await;
}

#[tokio::test]
async fn a_call_carries_the_ids_and_the_deadline_of_its_request() {
    let server = Running::plain().await;
    let mut client = HostServiceClient::new(channel::agent_channel(&server.address));
    let context = context::RequestContext {
        request_id: context::RequestId::from_client("r-7").unwrap(),
        deadline: Some(tokio::time::Instant::now() + Duration::from_secs(5)),
        ..context::RequestContext::random()
    };
    let trace = format!("{:032x}", context.trace.trace_id);
    let seen = context::scope(context.clone(), client.renew(RenewRequest::default())).await.unwrap().into_inner();
    let parts: Vec<_> = seen.certificate.split(' ').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("r-7", trace.as_str(), "Some(true)"));
    let millis: u64 = parts[2].trim_start_matches("Some(").trim_end_matches(')').parse().unwrap();
    assert!((1..=5000).contains(&millis), "{seen:?}");

    let expired = context::RequestContext { deadline: Some(tokio::time::Instant::now()), ..context };
    let status = context::scope(expired, client.renew(RenewRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.stop().await;
}
