//! The simulated compute-agent.

use std::pin::Pin;

use bytes::Bytes;
use cloud_contracts::agent::{
    AttachDiskRequest, AttachDiskResponse, DetachDiskRequest, DetachDiskResponse, EnsureInstanceRequest,
    EnsureInstanceResponse, GetConsoleLogRequest, GetConsoleLogResponse, GetInstanceRequest, GetInstanceResponse,
    ListInstancesRequest, ListInstancesResponse, PowerState, RemoveInstanceRequest, RemoveInstanceResponse,
    ResizeDiskRequest, ResizeDiskResponse, StateReason, StopInstanceRequest, StopInstanceResponse,
    StreamConsoleRequest, StreamConsoleResponse, WatchInstancesRequest, WatchInstancesResponse,
    compute_service_server::ComputeService, stream_console_request::Message,
};
use futures::{Stream, StreamExt as _, stream};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Method, Role,
    agent::Agent,
    model::Domain,
    status::{invalid, missing},
};

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

const CONSOLE_LOG_BYTES: usize = 65_536;

#[async_trait::async_trait]
impl ComputeService for Agent {
    type WatchInstancesStream = Streamed<WatchInstancesResponse>;
    type StreamConsoleStream = Streamed<StreamConsoleResponse>;

    async fn ensure_instance(
        &self,
        request: Request<EnsureInstanceRequest>,
    ) -> Result<Response<EnsureInstanceResponse>, Status> {
        self.call(Method::EnsureInstance, |model| {
            let EnsureInstanceRequest { context, spec } = request.into_inner();
            let spec = spec.ok_or_else(|| invalid("spec", "is required"))?;
            let context = model.fences.of(Role::Compute).admit(context, &spec.id)?;
            let owner = Agent::owner(&context, &spec.id, &spec.incarnation);
            Ok(EnsureInstanceResponse { state: Some(model.ensure_domain(owner, &spec)?) })
        })
        .await
    }

    async fn stop_instance(
        &self,
        request: Request<StopInstanceRequest>,
    ) -> Result<Response<StopInstanceResponse>, Status> {
        self.call(Method::StopInstance, |model| {
            let StopInstanceRequest { context, id, force } = request.into_inner();
            model.fences.of(Role::Compute).admit(context, &id)?;
            if let Some(domain) = model.is.domains.get(&id) {
                model.check_owner("instance", &domain.owner)?;
            }
            let stopped = model.stop_domain(&id, force);
            if stopped.asked {
                self.shut_down_later(id);
            }
            Ok(StopInstanceResponse { state: stopped.state })
        })
        .await
    }

    async fn remove_instance(
        &self,
        request: Request<RemoveInstanceRequest>,
    ) -> Result<Response<RemoveInstanceResponse>, Status> {
        self.call(Method::RemoveInstance, |model| {
            let RemoveInstanceRequest { context, id } = request.into_inner();
            model.fences.of(Role::Compute).admit(context, &id)?;
            model.remove_domain(&id).map(|()| RemoveInstanceResponse {})
        })
        .await
    }

    async fn resize_disk(&self, request: Request<ResizeDiskRequest>) -> Result<Response<ResizeDiskResponse>, Status> {
        self.call(Method::ResizeDisk, |model| {
            let ResizeDiskRequest { context, id, volume_id, size_bytes } = request.into_inner();
            model.fences.of(Role::Compute).admit(context, &id)?;
            model.resize_disk(&id, &volume_id, size_bytes).map(|()| ResizeDiskResponse {})
        })
        .await
    }

    async fn attach_disk(&self, request: Request<AttachDiskRequest>) -> Result<Response<AttachDiskResponse>, Status> {
        self.call(Method::AttachDisk, |model| {
            let AttachDiskRequest { context, id, disk, record } = request.into_inner();
            let disk = disk.ok_or_else(|| invalid("disk", "is required"))?;
            model.fences.of(Role::Compute).admit(context, &id)?;
            Ok(AttachDiskResponse { state: Some(model.attach_disk(&id, disk, record)?) })
        })
        .await
    }

    async fn detach_disk(&self, request: Request<DetachDiskRequest>) -> Result<Response<DetachDiskResponse>, Status> {
        self.call(Method::DetachDisk, |model| {
            let DetachDiskRequest { context, id, volume_id, record } = request.into_inner();
            model.fences.of(Role::Compute).admit(context, &id)?;
            Ok(DetachDiskResponse { state: model.detach_disk(&id, &volume_id, record)? })
        })
        .await
    }

    async fn get_instance(
        &self,
        request: Request<GetInstanceRequest>,
    ) -> Result<Response<GetInstanceResponse>, Status> {
        self.call(Method::GetInstance, |model| {
            let GetInstanceRequest { id, with_record } = request.into_inner();
            let record = model.is.domains.get(&id).filter(|_| with_record).map(|domain| domain.spec.record.clone());
            Ok(GetInstanceResponse { state: Some(model.domain_state(&id)?), record: record.unwrap_or_default() })
        })
        .await
    }

    async fn list_instances(
        &self,
        _request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        self.call(Method::ListInstances, |model| {
            let ours = model.is.domains.values().filter(|d| model.is_ours(&d.owner));
            Ok(ListInstancesResponse { instances: ours.map(Domain::state).collect() })
        })
        .await
    }

    async fn watch_instances(
        &self,
        _request: Request<WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        self.call(Method::WatchInstances, |model| {
            let changes = BroadcastStream::new(model.changes.subscribe()).map(|change| match change {
                Ok(id) => Ok(WatchInstancesResponse { id }),
                Err(BroadcastStreamRecvError::Lagged(missed)) => {
                    Err(Status::out_of_range(format!("the watcher is too slow, {missed} changes are lost")))
                }
            });
            let ended = self.stopped();
            Ok(Box::pin(changes.take_until(ended)) as Self::WatchInstancesStream)
        })
        .await
    }

    async fn get_console_log(
        &self,
        request: Request<GetConsoleLogRequest>,
    ) -> Result<Response<GetConsoleLogResponse>, Status> {
        self.call(Method::GetConsoleLog, |model| {
            let GetConsoleLogRequest { id, max_bytes } = request.into_inner();
            let domain = model.is.domains.get(&id).ok_or_else(|| missing("instance", &id))?;
            let wanted = if max_bytes == 0 { CONSOLE_LOG_BYTES } else { max_bytes as usize };
            let start = domain.console.len().saturating_sub(wanted);
            Ok(GetConsoleLogResponse { data: Bytes::copy_from_slice(&domain.console[start..]) })
        })
        .await
    }

    /// Says what the console said so far, then echoes what it is sent, as a terminal would.
    async fn stream_console(
        &self,
        request: Request<Streaming<StreamConsoleRequest>>,
    ) -> Result<Response<Self::StreamConsoleStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|m| m.message);
        let Some(Message::Open(open)) = first else {
            return Err(invalid("open", "must be the first message"));
        };
        self.call(Method::StreamConsole, |model| {
            let domain = model.is.domains.get(&open.id).filter(|d| d.power == PowerState::Running);
            let domain = domain.ok_or_else(|| missing("running instance", &open.id))?;
            let said = StreamConsoleResponse { data: Bytes::copy_from_slice(&domain.console) };
            let echo = incoming.filter_map(|message| async move {
                match message.map(|m| m.message) {
                    Ok(Some(Message::Data(data))) => Some(Ok(StreamConsoleResponse { data })),
                    Ok(_) => None,
                    Err(status) => Some(Err(status)),
                }
            });
            let both = stream::once(async { Ok(said) }).chain(echo).take_until(self.stopped());
            Ok(Box::pin(both) as Self::StreamConsoleStream)
        })
        .await
    }
}

impl Agent {
    /// The guest takes its time to shut down, or never does where guests are deaf.
    fn shut_down_later(&self, id: String) {
        let Some(time) = self.host.guest_shutdown_time() else { return };
        let host = self.host.clone();
        self.host.guests.spawn(async move {
            tokio::time::sleep(time).await;
            host.model().end_domain(&id, PowerState::Shutoff, StateReason::GuestShutdown, true);
        });
    }
}
