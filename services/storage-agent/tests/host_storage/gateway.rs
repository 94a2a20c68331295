//! A gateway that knows one agent.

use std::{path::Path, time::Duration};

use cloud_contracts::agent::{
    HeartbeatRequest, HeartbeatResponse, HeartbeatsRequest, HeartbeatsResponse, JoinRequest, JoinResponse,
    RegisterRequest, RegisterResponse, RenewRequest, RenewResponse,
    host_service_server::{HostService, HostServiceServer},
};
use cloud_domain::CloudId;
use futures::TryStreamExt as _;
use tokio::{net::UnixListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

/// Long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Gateway {
    pub cloud: CloudId,
    pub registered: watch::Receiver<Option<RegisterRequest>>,
    pub heartbeat: watch::Receiver<Option<HeartbeatRequest>>,
    server: JoinHandle<()>,
}

impl Gateway {
    pub fn serve(socket: &Path) -> Self {
        let cloud = CloudId::random();
        let (register, registered) = watch::channel(None);
        let (beat, heartbeat) = watch::channel(None);
        let service = HostServiceServer::new(Service { cloud, register, beat });
        let connections = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let serve = tonic::transport::Server::builder().add_service(service).serve_with_incoming(connections);
        let server = tokio::spawn(async move { serve.await.unwrap() });
        Self { cloud, registered, heartbeat, server }
    }

    /// Waits for a heartbeat of which this is true.
    pub async fn hears(&self, what: impl Fn(&HeartbeatRequest) -> bool) -> HeartbeatRequest {
        let mut heartbeat = self.heartbeat.clone();
        let heard = heartbeat.wait_for(|beat| beat.as_ref().is_some_and(&what));
        tokio::time::timeout(PATIENCE, heard).await.expect("a heartbeat in time").unwrap().clone().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Service {
    cloud: CloudId,
    register: watch::Sender<Option<RegisterRequest>>,
    beat: watch::Sender<Option<HeartbeatRequest>>,
}

impl Service {
    fn hear(&self, beat: HeartbeatRequest) -> HeartbeatResponse {
        self.beat.send_replace(Some(beat));
        HeartbeatResponse { register_again: false, renew: false }
    }
}

#[tonic::async_trait]
impl HostService for Service {
    async fn join(&self, _request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("join"))
    }

    async fn renew(&self, _request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("renew"))
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        self.register.send_replace(Some(request.into_inner()));
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
}
