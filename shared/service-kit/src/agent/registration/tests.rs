use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use cloud_contracts::agent::{
    ComputeCapacity, HeartbeatResponse, HeartbeatsRequest, HeartbeatsResponse, JoinRequest, JoinResponse,
    RegisterResponse, RenewRequest, RenewResponse,
    host_service_server::{HostService, HostServiceServer},
};
use cloud_domain::HostId;
use futures::TryStreamExt as _;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Streaming, codegen::BoxStream, service::Routes};

use super::*;
use crate::{
    listen::{BindPolicy, Listener},
    server::{self, ServerOptions},
    service,
};

/// A gateway that counts what it hears.
#[derive(Clone)]
struct Gateway {
    cloud: CloudId,
    forgetful: Arc<AtomicBool>,
    registered: watch::Sender<Vec<RegisterRequest>>,
    beats: watch::Sender<Vec<HeartbeatRequest>>,
    /// As of release 0.1: it has no stream of heartbeats.
    calls: bool,
}

impl Gateway {
    fn hears(&self, beat: HeartbeatRequest) -> HeartbeatResponse {
        self.beats.send_modify(|all| all.push(beat));
        HeartbeatResponse { register_again: self.forgetful.load(Ordering::SeqCst), renew: false }
    }
}

#[tonic::async_trait]
impl HostService for Gateway {
    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        self.registered.send_modify(|all| all.push(request.into_inner()));
        self.forgetful.store(false, Ordering::SeqCst);
        let answer = RegisterResponse { cloud_id: self.cloud.to_string(), heartbeat_interval_ms: 20 };
        Ok(Response::new(answer))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        assert!(self.calls, "the stream is used where there is one");
        Ok(Response::new(self.hears(request.into_inner())))
    }

    type HeartbeatsStream = BoxStream<HeartbeatsResponse>;

    async fn heartbeats(
        &self,
        request: Request<Streaming<HeartbeatsRequest>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        if self.calls {
            return Err(Status::unimplemented("there is no such method"));
        }
        let this = self.clone();
        let answers = request
            .into_inner()
            .map_ok(move |beat| HeartbeatsResponse { heartbeat: beat.heartbeat.map(|beat| this.hears(beat)) });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

impl Gateway {
    fn new() -> Self {
        Self {
            cloud: CloudId::random(),
            forgetful: Arc::default(),
            registered: watch::Sender::new(vec![]),
            beats: watch::Sender::new(vec![]),
            calls: false,
        }
    }

    async fn serve(&self, socket: &Path) -> (CancellationToken, JoinHandle<()>) {
        let address = Address::Unix(socket.to_owned());
        let listener = Listener::bind(&address, BindPolicy::default()).await.unwrap();
        let router = service::into_router(Routes::new(HostServiceServer::new(self.clone())));
        let stop = CancellationToken::new();
        let serving = server::serve(listener, router, ServerOptions::default(), stop.clone());
        (stop, tokio::spawn(async { serving.await.unwrap() }))
    }
}

struct Backend(watch::Receiver<Result<(), String>>);

#[async_trait]
impl CapacitySource for Backend {
    async fn capacity(&self) -> (Capacity, Result<(), String>) {
        let compute = ComputeCapacity { vcpus: 2, ..ComputeCapacity::default() };
        (Capacity { compute: Some(compute), ..Capacity::default() }, self.0.borrow().clone())
    }
}

struct Running {
    readiness: Readiness,
    cloud: watch::Receiver<Option<CloudId>>,
    backend: watch::Sender<Result<(), String>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn start(sockets: &[&Path]) -> Running {
    let (backend, source) = watch::channel(Ok(()));
    let (publish, cloud) = watch::channel(None);
    let (readiness, stop) = (Readiness::new(&[BACKEND, GATEWAY]), CancellationToken::new());
    let registration = Registration {
        role: AgentRole::Compute,
        host: HostIdentity { id: HostId::random(), name: "h1".parse().unwrap() },
        session: SessionId::random(),
        endpoint: Address::Unix("/compute.sock".into()),
        agent_version: "0.1.0".into(),
        boot_id: "boot".into(),
    };
    let gateways: Vec<_> = sockets.iter().map(|socket| Address::Unix((*socket).to_owned())).collect();
    let (ready, ending) = (readiness.clone(), stop.clone());
    let task = tokio::spawn(async move {
        let renew = Arc::new(tokio::sync::Notify::new());
        let gateways = Gateways::plain(gateways);
        run_registration(gateways, registration, Arc::new(Backend(source)), ready, publish, renew, ending).await;
    });
    Running { readiness, cloud, backend, stop, task }
}

/// Waits until what is watched is as wanted.
async fn until<T: Clone>(sender: &watch::Sender<T>, wanted: impl FnMut(&T) -> bool) -> T {
    let mut seen = sender.subscribe();
    let value = time::timeout(Duration::from_secs(20), seen.wait_for(wanted)).await.expect("in time");
    value.unwrap().clone()
}

#[tokio::test]
async fn registers_beats_and_comes_back_when_the_gateway_does() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("host.sock");
    let gateway = Gateway::new();
    // The agent starts first, and finds nobody.
    let agent = start(&[&socket]);
    let (stop, serving) = gateway.serve(&socket).await;
    let first = until(&gateway.registered, |all| !all.is_empty()).await.remove(0);
    assert_eq!((first.host_name.as_str(), first.endpoint.as_str()), ("h1", "unix:/compute.sock"));
    assert_eq!(first.capacity.unwrap().compute.unwrap().vcpus, 2);
    let beats = until(&gateway.beats, |all| all.len() >= 2).await;
    assert!(beats.iter().all(|b| b.session_id == first.session_id && b.backend_healthy));
    assert_eq!(*agent.cloud.borrow(), Some(gateway.cloud));
    assert!(agent.readiness.is_ready());

    stop.cancel();
    serving.await.unwrap();
    let mut away = agent.readiness.watch();
    time::timeout(Duration::from_secs(20), away.wait_for(|ready| !ready)).await.expect("in time").unwrap();
    let (stop, serving) = gateway.serve(&socket).await;
    let again = until(&gateway.registered, |all| all.len() >= 2).await.remove(1);
    assert_eq!((again.session_id, again.host_id), (first.session_id, first.host_id));
    until(&gateway.beats, |all| all.len() > beats.len() + 1).await;

    agent.stop.cancel();
    agent.task.await.unwrap();
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn beats_by_calls_where_the_gateway_is_of_an_earlier_release() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("host.sock");
    let gateway = Gateway { calls: true, ..Gateway::new() };
    let (stop, serving) = gateway.serve(&socket).await;
    let agent = start(&[&socket]);
    until(&gateway.beats, |all| all.len() >= 2).await;
    gateway.forgetful.store(true, Ordering::SeqCst);
    until(&gateway.registered, |all| all.len() == 2).await;
    assert!(agent.readiness.is_ready());
    agent.stop.cancel();
    agent.task.await.unwrap();
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn registers_again_when_told_and_reports_a_broken_backend() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("host.sock");
    let gateway = Gateway::new();
    let (stop, serving) = gateway.serve(&socket).await;
    let agent = start(&[&socket]);
    until(&gateway.beats, |all| !all.is_empty()).await;
    gateway.forgetful.store(true, Ordering::SeqCst);
    until(&gateway.registered, |all| all.len() == 2).await;

    agent.backend.send(Err("libvirtd is away".into())).unwrap();
    let beats = until(&gateway.beats, |all| all.last().is_some_and(|b| !b.backend_healthy)).await;
    assert_eq!(beats.last().unwrap().backend_error, "libvirtd is away");
    assert!(!agent.readiness.is_ready());
    agent.stop.cancel();
    agent.task.await.unwrap();
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn turns_to_another_gateway_when_its_own_does_not_answer() {
    let directory = tempfile::tempdir().unwrap();
    let sockets = [directory.path().join("one.sock"), directory.path().join("two.sock")];
    let (one, two) = (Gateway::new(), Gateway::new());
    let (stop_one, serving_one) = one.serve(&sockets[0]).await;
    let (stop_two, serving_two) = two.serve(&sockets[1]).await;
    let agent = start(&[&sockets[0], &sockets[1]]);
    let is_one = tokio::select! {
        _ = until(&one.beats, |all| !all.is_empty()) => true,
        _ = until(&two.beats, |all| !all.is_empty()) => false,
    };
    let (its, serving, other) = if is_one {
        (stop_one, serving_one, (&two, stop_two, serving_two))
    } else {
        (stop_two, serving_two, (&one, stop_one, serving_one))
    };
    its.cancel();
    serving.await.unwrap();
    until(&other.0.registered, |all| !all.is_empty()).await;
    until(&other.0.beats, |all| all.len() >= 2).await;
    assert!(agent.readiness.is_ready());
    agent.stop.cancel();
    agent.task.await.unwrap();
    other.1.cancel();
    other.2.await.unwrap();
}
