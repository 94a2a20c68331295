//! The same port over real HTTP/2, and gRPC-Web.

use std::time::Duration;

use axum::{body::Body, http::Request};
use cloud_contracts::v1::{
    self, instance_service_client::InstanceServiceClient, ssh_key_service_client::SshKeyServiceClient,
    stream_console_request::Message,
};
use cloud_service_kit::{
    Address, channel,
    listen::{BindPolicy, Listener},
    server::{self, ServerOptions},
};
use cloud_testkit::GrpcClient;
use prost::Message as _;
use tokio_util::{sync::CancellationToken, sync::DropGuard, task::AbortOnDropHandle};
use tonic::{Code, transport::Channel};

use super::fixture::{Answer, Cloud, KEY, PANIC};

pub struct Served {
    pub address: Address,
    stop: DropGuard,
    task: AbortOnDropHandle<()>,
}

pub async fn serve(cloud: &Cloud) -> Served {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), BindPolicy::default()).await.unwrap();
    let address = listener.local_addr().clone();
    let stop = CancellationToken::new();
    let (router, token) = (cloud.router.clone(), stop.clone());
    let task =
        tokio::spawn(async move { server::serve(listener, router, ServerOptions::default(), token).await.unwrap() });
    Served { address, stop: stop.drop_guard(), task: AbortOnDropHandle::new(task) }
}

impl Served {
    fn channel(&self) -> Channel {
        channel::connect_lazy(&self.address)
    }

    /// Shuts it down; what is open is drained meanwhile.
    pub fn stop(self) {
        drop(self.stop);
        drop(self.task.detach());
    }

    pub fn grpc(&self) -> GrpcClient {
        GrpcClient::new(self.channel(), KEY).unwrap()
    }
}

#[tokio::test]
async fn both_protocols_see_the_same_cloud() {
    let cloud = Cloud::with_image().await;
    let served = serve(&cloud).await;
    let mut instances = InstanceServiceClient::new(served.grpc().service());
    let request = v1::LaunchInstanceRequest {
        name: "web-01".into(),
        image: "tiny".into(),
        instance_type: "tiny".into(),
        ..Default::default()
    };
    let made = instances.launch_instance(request.clone()).await.unwrap().into_inner();
    assert_eq!(made.status(), v1::instance::Status::Starting);
    assert_eq!(cloud.get("/instances/web-01").await.json["id"], made.id);
    assert_eq!(instances.launch_instance(request).await.unwrap_err().code(), Code::AlreadyExists);
    let bad = instances.launch_instance(v1::LaunchInstanceRequest::default()).await.unwrap_err();
    assert_eq!((bad.code(), bad.message().contains("name")), (Code::InvalidArgument, true), "{bad}");
    let log = v1::GetConsoleLogRequest { id: "web-01".into(), max_bytes: 10 };
    let log = instances.get_console_log(log).await.unwrap().into_inner().log;
    assert_eq!(log, "at most 10 \u{1b}[31mbytes\u{fffd}");
}

#[tokio::test]
async fn refusals_over_grpc() {
    let cloud = Cloud::new().await;
    let served = serve(&cloud).await;
    let mut nobody = InstanceServiceClient::new(served.channel());
    let refused = nobody.list_instances(v1::ListInstancesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut keys = SshKeyServiceClient::new(served.grpc().service());
    let unbuilt = keys.list_ssh_keys(v1::ListSshKeysRequest::default()).await.unwrap_err();
    assert_eq!(unbuilt.code(), Code::Unimplemented, "{unbuilt}");
    let mut instances = InstanceServiceClient::new(served.grpc().service());
    let unbuilt = instances.pause_instance(v1::PauseInstanceRequest::default()).await.unwrap_err();
    assert_eq!(unbuilt.code(), Code::Unimplemented, "{unbuilt}");
}

#[tokio::test]
async fn health_and_reflection_are_open() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let cloud = Cloud::new().await;
    let served = serve(&cloud).await;
    cloud.readiness.set_ready("database");
    for service in ["", "cloud.v1.InstanceService", "cloud.v1.QuotaService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let health = HealthClient::new(served.channel()).check(request).await.unwrap().into_inner();
        assert_eq!(health.status, 1, "{service}");
    }
    let agents = HealthCheckRequest { service: "cloud.agent.v1.HostService".to_owned() };
    let unknown = HealthClient::new(served.channel()).check(agents).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // list_services is field 7.
        let answer = framed(&cloud, &path, "application/grpc", &[0x3a, 0x01, b'*'], None).await;
        assert!(answer.text.contains("cloud.v1.InstanceService"), "{version}: {}", answer.text);
        assert!(!answer.text.contains("cloud.agent.v1"), "{version}: {}", answer.text);
    }
}

/// A gRPC message in its frame, as one request.
async fn framed(cloud: &Cloud, path: &str, content_type: &str, message: &[u8], key: Option<&str>) -> Answer {
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let mut request = Request::post(path).header("content-type", content_type).header("te", "trailers");
    if content_type == "application/grpc" {
        request = request.version(http::Version::HTTP_2);
    }
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    Answer::read(cloud.raw(request.body(Body::from(body)).unwrap()).await).await
}

#[tokio::test]
async fn browsers_call_by_grpc_web() {
    let cloud = Cloud::with_image().await;
    cloud.launch("web-01").await;
    let path = "/cloud.v1.InstanceService/GetInstance";
    let message = v1::GetInstanceRequest { id: "web-01".into() }.encode_to_vec();
    let answer = framed(&cloud, path, "application/grpc-web+proto", &message, Some(KEY)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.contains("web-01") && answer.text.contains("grpc-status:0"), "{}", answer.text);
    let nobody = framed(&cloud, path, "application/grpc-web+proto", &message, None).await;
    assert_eq!(nobody.headers["grpc-status"], "16", "{}", nobody.text);
}

#[tokio::test]
async fn what_is_not_on_this_port_is_unimplemented_and_a_panic_is_internal() {
    let cloud = Cloud::with_image().await;
    cloud.launch("web-01").await;
    for path in
        ["/cloud.v1.NoService/Get", "/cloud.v1.InstanceService/NoMethod", "/cloud.agent.v1.HostService/Register"]
    {
        let unknown = framed(&cloud, path, "application/grpc", b"", Some(KEY)).await;
        assert_eq!((unknown.status.as_u16(), &unknown.headers["grpc-status"]), (200, &"12".parse().unwrap()), "{path}");
    }
    let message = v1::GetConsoleLogRequest { id: "web-01".into(), max_bytes: PANIC }.encode_to_vec();
    let panic =
        framed(&cloud, "/cloud.v1.InstanceService/GetConsoleLog", "application/grpc", &message, Some(KEY)).await;
    assert_eq!(panic.headers["grpc-status"], "13", "{:?}", panic.headers);
}

#[tokio::test]
async fn a_console_is_a_stream_both_ways() {
    let cloud = Cloud::with_image().await;
    let made = cloud.launch("web-01").await;
    let served = serve(&cloud).await;
    let mut instances = InstanceServiceClient::new(served.grpc().service());
    let (type_, typed) = tokio::sync::mpsc::channel(4);
    let say = |message| v1::StreamConsoleRequest { message: Some(message) };
    let asked = || tokio_stream::iter([say(Message::Id("web-01".into()))]);
    let refused = instances.stream_console(asked()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    cloud.runs(&made).await;
    type_.send(say(Message::Id("web-01".into()))).await.unwrap();
    let stream = instances.stream_console(tokio_stream::wrappers::ReceiverStream::new(typed)).await.unwrap();
    let mut stream = stream.into_inner();
    let next = async |stream: &mut tonic::Streaming<v1::StreamConsoleResponse>| {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.message()).await.unwrap().unwrap();
        next.map(|m| String::from_utf8(m.data.to_vec()).unwrap())
    };
    assert_eq!(next(&mut stream).await.unwrap(), "login: ");
    type_.send(say(Message::Data("root".into()))).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap(), "root");
    type_.send(say(Message::Data("bye".into()))).await.unwrap();
    assert_eq!(next(&mut stream).await, None, "the stream ends with the guest");
}
