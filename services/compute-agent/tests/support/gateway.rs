//! The part of a gateway that agents register with.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use cloud_contracts::agent::{
    ComputeCapacity, HeartbeatRequest, HeartbeatResponse, HeartbeatsRequest, HeartbeatsResponse, JoinRequest,
    JoinResponse, RegisterRequest, RegisterResponse, RenewRequest, RenewResponse,
    host_service_server::{HostService, HostServiceServer},
};
use cloud_domain::CloudId;
use futures::TryStreamExt as _;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming, async_trait, codegen::BoxStream, transport::Server};

pub struct Gateway {
    pub cloud: CloudId,
    seen: Arc<Mutex<Seen>>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    session: String,
    healthy: bool,
    error: String,
    capacity: Option<ComputeCapacity>,
}

#[derive(Clone)]
struct Service {
    cloud: CloudId,
    seen: Arc<Mutex<Seen>>,
}

impl Gateway {
    pub async fn start(socket: &Path) -> Self {
        let cloud = CloudId::random();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let service = Service { cloud, seen: seen.clone() };
        let listener = UnixListener::bind(socket).unwrap();
        let server = tokio::spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            Server::builder().add_service(HostServiceServer::new(service)).serve_with_incoming(incoming).await.unwrap();
        });
        Self { cloud, seen, _server: AbortOnDropHandle::new(server) }
    }

    pub fn session(&self) -> String {
        self.seen.lock().unwrap().session.clone()
    }

    pub fn healthy(&self) -> bool {
        self.seen.lock().unwrap().healthy
    }

    pub fn error(&self) -> String {
        self.seen.lock().unwrap().error.clone()
    }

    pub fn capacity(&self) -> Option<ComputeCapacity> {
        self.seen.lock().unwrap().capacity.clone()
    }
}

impl Service {
    fn hear(&self, beat: HeartbeatRequest) -> HeartbeatResponse {
        let mut seen = self.seen.lock().unwrap();
        let register_again = seen.session != beat.session_id;
        if !register_again {
            seen.healthy = beat.backend_healthy;
            seen.error = beat.backend_error;
            seen.capacity = beat.capacity.and_then(|capacity| capacity.compute);
        }
        HeartbeatResponse { register_again, renew: false }
    }
}

#[async_trait]
impl HostService for Service {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let mut seen = self.seen.lock().unwrap();
        seen.session = request.into_inner().session_id;
        seen.healthy = false;
        Ok(Response::new(RegisterResponse { cloud_id: self.cloud.to_string(), heartbeat_interval_ms: 50 }))
    }

    type HeartbeatsStream = BoxStream<HeartbeatsResponse>;

    async fn heartbeats(
        &self,
        request: Request<Streaming<HeartbeatsRequest>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let this = self.clone();
        Ok(Response::new(Box::pin(
            request
                .into_inner()
                .map_ok(move |beat| HeartbeatsResponse { heartbeat: beat.heartbeat.map(|beat| this.hear(beat)) }),
        )))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        Err(Status::unimplemented("agents send a stream"))
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}
