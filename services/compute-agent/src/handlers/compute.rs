//! `cloud.agent.v1.ComputeService`.

use std::{pin::Pin, sync::Arc};

use cloud_contracts::agent::{
    AttachDiskRequest, AttachDiskResponse, DetachDiskRequest, DetachDiskResponse, EnsureInstanceRequest,
    EnsureInstanceResponse, GetConsoleLogRequest, GetConsoleLogResponse, GetInstanceRequest, GetInstanceResponse,
    ListInstancesRequest, ListInstancesResponse, RemoveInstanceRequest, RemoveInstanceResponse, ResizeDiskRequest,
    ResizeDiskResponse, StopInstanceRequest, StopInstanceResponse, StreamConsoleRequest, StreamConsoleResponse,
    WatchInstancesRequest, WatchInstancesResponse, compute_service_server::ComputeService,
};
use cloud_domain::{CloudId, InstanceId, VolumeId};
use cloud_service_kit::{ServiceError, agent::Fence};
use futures::{Stream, StreamExt, stream};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{console, wire};
use crate::core::{Compute, ComputeError, HypervisorEvent, SpecError};

/// Of a console's log, where the caller names no number.
const DEFAULT_LOG_BYTES: u32 = 64 * 1024;
/// Of a console's log at most, so that an answer stays within gRPC's usual limit of 4 MiB.
const MAX_LOG_BYTES: u32 = 2 * 1024 * 1024;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service over [`Compute`].
pub struct ComputeHandler {
    compute: Compute,
    fence: Arc<Fence>,
    cloud: watch::Receiver<Option<CloudId>>,
    shutdown: CancellationToken,
}

impl ComputeHandler {
    /// `cloud` is what the agent learned at its registration; streams end with `shutdown`.
    pub fn new(
        compute: Compute,
        fence: Arc<Fence>,
        cloud: watch::Receiver<Option<CloudId>>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { compute, fence, cloud, shutdown }
    }

    /// For calls without a context.
    fn cloud(&self) -> Result<CloudId, ServiceError> {
        let cloud = *self.cloud.borrow();
        cloud.ok_or_else(|| {
            ServiceError::unavailable("NOT_REGISTERED", "this agent has not registered with a gateway yet")
        })
    }
}

pub(super) fn invalid(error: SpecError) -> ServiceError {
    ComputeError::from(error).into()
}

fn volume(text: &str) -> Result<VolumeId, ServiceError> {
    text.parse().map_err(|error: cloud_domain::IdError| ServiceError::invalid("volume_id", error.to_string()))
}

#[async_trait]
impl ComputeService for ComputeHandler {
    async fn ensure_instance(
        &self,
        request: Request<EnsureInstanceRequest>,
    ) -> Result<Response<EnsureInstanceResponse>, Status> {
        let EnsureInstanceRequest { context, spec } = request.into_inner();
        let spec = wire::spec(spec).map_err(invalid)?;
        let caller = self.fence.admit(context.as_ref(), spec.id.as_uuid()).await?;
        let guest = self.compute.ensure(caller.cloud, spec).await.map_err(ServiceError::from)?;
        Ok(Response::new(EnsureInstanceResponse { state: Some(wire::state(&guest)) }))
    }

    async fn stop_instance(
        &self,
        request: Request<StopInstanceRequest>,
    ) -> Result<Response<StopInstanceResponse>, Status> {
        let StopInstanceRequest { context, id, force } = request.into_inner();
        let id = wire::instance_id("id", &id).map_err(invalid)?;
        let caller = self.fence.admit(context.as_ref(), id.as_uuid()).await?;
        let guest = self.compute.stop(caller.cloud, id, force).await.map_err(ServiceError::from)?;
        Ok(Response::new(StopInstanceResponse { state: guest.as_ref().map(wire::state) }))
    }

    async fn remove_instance(
        &self,
        request: Request<RemoveInstanceRequest>,
    ) -> Result<Response<RemoveInstanceResponse>, Status> {
        let RemoveInstanceRequest { context, id } = request.into_inner();
        let id = wire::instance_id("id", &id).map_err(invalid)?;
        let caller = self.fence.admit(context.as_ref(), id.as_uuid()).await?;
        self.compute.remove(caller.cloud, id).await.map_err(ServiceError::from)?;
        self.fence.removed(id.as_uuid());
        Ok(Response::new(RemoveInstanceResponse {}))
    }

    async fn resize_disk(&self, request: Request<ResizeDiskRequest>) -> Result<Response<ResizeDiskResponse>, Status> {
        let ResizeDiskRequest { context, id, volume_id, size_bytes } = request.into_inner();
        let id = wire::instance_id("id", &id).map_err(invalid)?;
        let volume = volume(&volume_id)?;
        let size = wire::mebibytes("size_bytes", size_bytes)?;
        let caller = self.fence.admit(context.as_ref(), id.as_uuid()).await?;
        self.compute.resize_disk(caller.cloud, id, volume, size).await.map_err(ServiceError::from)?;
        Ok(Response::new(ResizeDiskResponse {}))
    }

    async fn attach_disk(&self, request: Request<AttachDiskRequest>) -> Result<Response<AttachDiskResponse>, Status> {
        let AttachDiskRequest { context, id, disk, record } = request.into_inner();
        let id = wire::instance_id("id", &id).map_err(invalid)?;
        let disk = disk.ok_or_else(|| SpecError::new("disk", "is required")).map_err(invalid)?;
        let disk = wire::disk("disk", disk).map_err(invalid)?;
        let caller = self.fence.admit(context.as_ref(), id.as_uuid()).await?;
        let guest = self.compute.attach_disk(caller.cloud, id, disk, record).await.map_err(ServiceError::from)?;
        Ok(Response::new(AttachDiskResponse { state: Some(wire::state(&guest)) }))
    }

    async fn detach_disk(&self, request: Request<DetachDiskRequest>) -> Result<Response<DetachDiskResponse>, Status> {
        let DetachDiskRequest { context, id, volume_id, record } = request.into_inner();
        let id = wire::instance_id("id", &id).map_err(invalid)?;
        let volume = volume(&volume_id)?;
        let caller = self.fence.admit(context.as_ref(), id.as_uuid()).await?;
        let guest = self.compute.detach_disk(caller.cloud, id, volume, record).await.map_err(ServiceError::from)?;
        Ok(Response::new(DetachDiskResponse { state: guest.as_ref().map(wire::state) }))
    }

    async fn get_instance(
        &self,
        request: Request<GetInstanceRequest>,
    ) -> Result<Response<GetInstanceResponse>, Status> {
        let request = request.into_inner();
        let id = wire::instance_id("id", &request.id).map_err(invalid)?;
        let guest = self.compute.get(self.cloud()?, id).await.map_err(ServiceError::from)?;
        let record = match request.with_record {
            true => self.compute.record(id).await.map_err(ServiceError::from)?,
            false => String::new(),
        };
        Ok(Response::new(GetInstanceResponse { state: Some(wire::state(&guest)), record }))
    }

    async fn list_instances(
        &self,
        _request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let guests = self.compute.list(self.cloud()?).await.map_err(ServiceError::from)?;
        Ok(Response::new(ListInstancesResponse { instances: guests.iter().map(wire::state).collect() }))
    }

    type WatchInstancesStream = BoxStream<WatchInstancesResponse>;

    async fn watch_instances(
        &self,
        _request: Request<WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        let cloud = self.cloud()?;
        let events = self.compute.events().map_err(ServiceError::from)?;
        let changes = changes(self.compute.clone(), cloud, events);
        let until = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(Box::pin(changes.take_until(until))))
    }

    async fn get_console_log(
        &self,
        request: Request<GetConsoleLogRequest>,
    ) -> Result<Response<GetConsoleLogResponse>, Status> {
        let request = request.into_inner();
        let id = wire::instance_id("id", &request.id).map_err(invalid)?;
        let wanted = if request.max_bytes == 0 { DEFAULT_LOG_BYTES } else { request.max_bytes.min(MAX_LOG_BYTES) };
        let max = usize::try_from(wanted).unwrap_or(usize::MAX);
        let data = self.compute.console_log(self.cloud()?, id, max).await.map_err(ServiceError::from)?;
        Ok(Response::new(GetConsoleLogResponse { data: data.into() }))
    }

    type StreamConsoleStream = BoxStream<StreamConsoleResponse>;

    async fn stream_console(
        &self,
        request: Request<Streaming<StreamConsoleRequest>>,
    ) -> Result<Response<Self::StreamConsoleStream>, Status> {
        let output = console::open(&self.compute, self.cloud()?, request.into_inner()).await?;
        let until = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(Box::pin(output.take_until(until))))
    }
}

/// The ids of guests that change. Ends with an error when the connection to the hypervisor is lost, or when the consumer was too slow to be
/// told everything: either way it has to look for itself.
fn changes(
    compute: Compute,
    cloud: CloudId,
    events: broadcast::Receiver<HypervisorEvent>,
) -> impl Stream<Item = Result<WatchInstancesResponse, Status>> + Send {
    stream::unfold(Some((compute, events)), move |state| async move {
        let (compute, mut events) = state?;
        loop {
            let id = match events.recv().await {
                Ok(HypervisorEvent::Changed(id) | HypervisorEvent::Rebooted(id)) => id,
                Ok(HypervisorEvent::Connected) => continue,
                Ok(HypervisorEvent::Lost) | Err(RecvError::Closed) => {
                    let error = ServiceError::unavailable("HYPERVISOR_UNAVAILABLE", "the connection to it was lost");
                    return Some((Err(error.into()), None));
                }
                Err(RecvError::Lagged(_)) => {
                    let error = ServiceError::aborted("WATCH_TOO_SLOW", "changes were missed: list, and watch again");
                    return Some((Err(error.into()), None));
                }
            };
            if is_ours(&compute, cloud, id).await {
                return Some((Ok(WatchInstancesResponse { id: id.to_string() }), Some((compute, events))));
            }
        }
    })
}

/// Not another cloud's. A guest that is gone may have been ours; what cannot be found out is told.
async fn is_ours(compute: &Compute, cloud: CloudId, id: InstanceId) -> bool {
    !matches!(compute.get(cloud, id).await, Err(ComputeError::Foreign { .. }))
}
