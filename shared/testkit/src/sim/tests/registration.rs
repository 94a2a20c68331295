//! How a simulated host makes itself known.

use std::sync::{Arc, Mutex};

use cloud_contracts::agent::{
    HeartbeatRequest, HeartbeatResponse, HeartbeatsRequest, HeartbeatsResponse, JoinRequest, JoinResponse,
    RegisterRequest, RegisterResponse, RenewRequest, RenewResponse,
    host_service_server::{HostService, HostServiceServer},
};
use futures::TryStreamExt as _;
use tonic::{Request, Response, Streaming, codegen::BoxStream, service::Routes};

use super::*;

/// A gateway that remembers what it was told.
#[derive(Debug, Clone, Default)]
struct Gateway {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    registered: Vec<RegisterRequest>,
    heartbeats: Vec<HeartbeatRequest>,
    forgetful: bool,
}

#[async_trait::async_trait]
impl HostService for Gateway {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let mut seen = self.seen.lock().unwrap();
        seen.registered.push(request.into_inner());
        seen.forgetful = false;
        Ok(Response::new(RegisterResponse { cloud_id: CLOUD.into(), heartbeat_interval_ms: 10 }))
    }

    type HeartbeatsStream = BoxStream<HeartbeatsResponse>;

    async fn heartbeats(
        &self,
        request: Request<Streaming<HeartbeatsRequest>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let seen = Arc::clone(&self.seen);
        let answers = request.into_inner().map_ok(move |beat| {
            let mut seen = seen.lock().unwrap();
            seen.heartbeats.extend(beat.heartbeat);
            HeartbeatsResponse { heartbeat: Some(HeartbeatResponse { register_again: seen.forgetful, renew: false }) }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        Err(Status::unimplemented("agents send a stream"))
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("not built"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("not built"))
    }
}

struct Setup {
    gateway: Gateway,
    host: SimHost,
    _server: serve::Owned,
    _dir: TempDir,
}

/// A gateway that listens on a socket until the second part is dropped.
fn gateway(dir: &TempDir, name: &str) -> (Gateway, serve::Owned, String) {
    let (gateway, server, socket) = (Gateway::default(), serve::Owned::default(), dir.path().join(name));
    serve::unix(&server, &socket, Routes::new(HostServiceServer::new(gateway.clone())).prepare(), |_, _| ()).unwrap();
    (gateway, server, format!("unix:{}", socket.display()))
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let (gateway, server, address) = gateway(&dir, "host.sock");
    let host = SimHost::start(SimHostConfig::new("h1", dir.path(), Some(address))).unwrap();
    Setup { gateway, host, _server: server, _dir: dir }
}

impl Setup {
    async fn until(&self, what: &str, holds: impl Fn(&Seen) -> bool) {
        until_true(what, PATIENCE, || holds(&self.gateway.seen.lock().unwrap())).await.unwrap();
    }

    fn heartbeats(&self) -> usize {
        self.gateway.seen.lock().unwrap().heartbeats.len()
    }
}

#[tokio::test]
async fn three_agents_of_one_host_register_and_live() {
    let s = setup();
    s.until("three registrations", |seen| seen.registered.len() == 3).await;
    s.until("heartbeats", |seen| seen.heartbeats.len() > 10).await;
    let seen = s.gateway.seen.lock().unwrap();
    assert!(seen.registered.iter().all(|r| r.host_id == s.host.id() && r.host_name == "h1"));
    let roles: std::collections::BTreeSet<_> = seen.registered.iter().map(|r| r.role).collect();
    assert_eq!(roles.len(), 3);
    assert!(seen.heartbeats.iter().all(|h| h.backend_healthy));
}

#[tokio::test]
async fn a_forgetful_gateway_is_told_again_and_a_restart_is_a_new_session() {
    let s = setup();
    s.until("three registrations", |seen| seen.registered.len() == 3).await;
    s.gateway.seen.lock().unwrap().forgetful = true;
    s.until("another registration", |seen| seen.registered.len() > 3).await;
    s.host.restart_agent(Role::Storage).unwrap();
    let session = s.host.session(Role::Storage);
    s.until("the new session", |seen| seen.registered.iter().any(|r| r.session_id == session)).await;
}

#[tokio::test]
async fn a_cut_network_is_silent_and_a_mended_one_is_not() {
    let s = setup();
    s.until("heartbeats", |seen| seen.heartbeats.len() > 3).await;
    s.host.cut_network();
    // What was on its way when the network was cut: one heartbeat of each agent.
    let cut = s.heartbeats();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(s.heartbeats() <= cut + 3, "{} after {cut}", s.heartbeats());
    s.host.mend_network();
    let mended = s.heartbeats();
    s.until("heartbeats", |seen| seen.heartbeats.len() > mended + 10).await;
}

#[tokio::test]
async fn new_capacity_and_a_broken_backend_are_told() {
    let s = setup();
    s.host.set_capacity(SimCapacity { vcpus: 3, ..SimCapacity::default() });
    s.host.set_backend_error(Role::Network, Some("ovsdb-server is gone"));
    let vcpus = |h: &HeartbeatRequest| h.capacity.as_ref().and_then(|c| c.compute.as_ref()).map(|c| c.vcpus);
    s.until("the capacity", |seen| seen.heartbeats.iter().any(|h| vcpus(h) == Some(3))).await;
    s.until("the error", |seen| seen.heartbeats.iter().any(|h| h.backend_error == "ovsdb-server is gone")).await;
}

#[tokio::test]
async fn an_agent_whose_gateway_is_gone_turns_to_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (first, server, one) = gateway(&dir, "one.sock");
    let (second, _server, other) = gateway(&dir, "other.sock");
    let host = SimHost::start(SimHostConfig::new("h1", dir.path(), [one, other])).unwrap();
    let registered = |gateway: &Gateway| gateway.seen.lock().unwrap().registered.len();
    until_true("three registrations", PATIENCE, || registered(&first) == 3).await.unwrap();
    assert_eq!(registered(&second), 0, "the first one answers");
    drop(server);
    until_true("three registrations with the other", PATIENCE, || registered(&second) >= 3).await.unwrap();
    let sessions = |gateway: &Gateway| -> std::collections::BTreeSet<String> {
        gateway.seen.lock().unwrap().registered.iter().map(|r| r.session_id.clone()).collect()
    };
    assert_eq!(sessions(&first), sessions(&second), "the agents are the same ones");
    assert_eq!(host.name(), "h1");
}
