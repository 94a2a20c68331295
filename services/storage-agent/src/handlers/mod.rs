//! The gRPC service: messages in, messages out, no rule.

mod admission;
mod capacity;
mod status;
pub mod wire;

use bytes::Bytes;
use cloud_contracts::agent::{
    EnsureSnapshotRequest, EnsureSnapshotResponse, EnsureVolumeRequest, EnsureVolumeResponse, GetImageRequest,
    GetImageResponse, ListImagesRequest, ListImagesResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    ListVolumesRequest, ListVolumesResponse, PutImageRequest, PutImageResponse, RemoveImageRequest,
    RemoveImageResponse, RemoveSnapshotRequest, RemoveSnapshotResponse, RemoveVolumeRequest, RemoveVolumeResponse,
    ResizeVolumeRequest, ResizeVolumeResponse, put_image_request::Message, storage_service_server::StorageService,
};
use cloud_domain::CloudId;
use cloud_service_kit::ServiceError;
use futures::{Stream, StreamExt as _};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

pub use capacity::PoolCapacity;

use crate::core::{Pools, model::Owner};

/// `cloud.agent.v1.StorageService` over [`Pools`].
pub struct StorageHandler {
    storage: Pools,
    cloud: watch::Receiver<Option<CloudId>>,
}

impl StorageHandler {
    /// The service. `cloud` is the one that this host belongs to, once the gateway said it.
    #[must_use]
    pub fn new(storage: Pools, cloud: watch::Receiver<Option<CloudId>>) -> Self {
        Self { storage, cloud }
    }

    /// Whether a list shows what this owner has: what belongs to this host's cloud.
    fn shows(&self) -> Result<impl Fn(&Owner) -> bool + use<>, ServiceError> {
        let cloud = self
            .cloud
            .borrow()
            .ok_or_else(|| ServiceError::unavailable("NOT_REGISTERED", "this agent has not reached its gateway yet"))?;
        Ok(move |owner: &Owner| owner.cloud_id == cloud)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl StorageService for StorageHandler {
    async fn get_image(&self, request: Request<GetImageRequest>) -> Answer<GetImageResponse> {
        let id = wire::parse("id", &request.get_ref().id)?;
        let pool = wire::pool_or_default("pool", &request.get_ref().pool)?;
        let image = self.storage.image(id, &pool).await.map_err(ServiceError::from)?;
        Ok(Response::new(GetImageResponse { image: Some(wire::image(&image, &pool)) }))
    }

    async fn put_image(&self, request: Request<Streaming<PutImageRequest>>) -> Answer<PutImageResponse> {
        let mut messages = request.into_inner();
        let header = match messages.message().await?.and_then(|first| first.message) {
            Some(Message::Header(header)) => header,
            Some(Message::Data(_)) => {
                return Err(ServiceError::invalid("header", "must come before data").into());
            }
            None => return Err(wire::missing("header").into()),
        };
        let spec = wire::image_spec(&header)?;
        let pool = wire::pool_or_default("header.pool", &header.pool)?;
        let call = wire::call("header.", header.context)?;
        let image = self.storage.put_image(call, spec, &pool, parts(messages)).await?;
        Ok(Response::new(PutImageResponse { image: Some(wire::image(&image, &pool)) }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let request = request.into_inner();
        let (id, pool) = (wire::parse("id", &request.id)?, wire::pool_if_named(&request.pool)?);
        let call = wire::call("", request.context)?;
        self.storage.remove_image(call, id, pool.as_ref()).await.map_err(ServiceError::from)?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn list_images(&self, _request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let shows = self.shows()?;
        let images = self.storage.images().await.map_err(ServiceError::from)?;
        let images = images
            .iter()
            .filter(|(_, image)| shows(&image.owner))
            .map(|(pool, image)| wire::image(image, pool))
            .collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn ensure_volume(&self, request: Request<EnsureVolumeRequest>) -> Answer<EnsureVolumeResponse> {
        let request = request.into_inner();
        let (spec, call) = (wire::volume_spec(request.spec)?, wire::call("", request.context)?);
        let volume = self.storage.ensure_volume(call, spec, request.may_create).await.map_err(ServiceError::from)?;
        Ok(Response::new(EnsureVolumeResponse { volume: Some(wire::volume(&volume)) }))
    }

    async fn remove_volume(&self, request: Request<RemoveVolumeRequest>) -> Answer<RemoveVolumeResponse> {
        let request = request.into_inner();
        let (id, pool) = (wire::parse("id", &request.id)?, wire::pool_if_named(&request.pool)?);
        let call = wire::call("", request.context)?;
        self.storage.remove_volume(call, id, pool.as_ref()).await.map_err(ServiceError::from)?;
        Ok(Response::new(RemoveVolumeResponse {}))
    }

    async fn list_volumes(&self, _request: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        let shows = self.shows()?;
        let volumes = self.storage.volumes().await.map_err(ServiceError::from)?;
        let volumes = volumes.iter().filter(|volume| shows(&volume.owner)).map(wire::volume).collect();
        Ok(Response::new(ListVolumesResponse { volumes }))
    }

    async fn resize_volume(&self, request: Request<ResizeVolumeRequest>) -> Answer<ResizeVolumeResponse> {
        let request = request.into_inner();
        let (id, pool) = (wire::parse("id", &request.id)?, wire::pool_if_named(&request.pool)?);
        let size = wire::mebibytes("size_bytes", request.size_bytes)?;
        let call = wire::call("", request.context)?;
        let volume = self.storage.resize_volume(call, id, pool.as_ref(), size).await.map_err(ServiceError::from)?;
        Ok(Response::new(ResizeVolumeResponse { volume: Some(wire::volume(&volume)) }))
    }

    async fn ensure_snapshot(&self, request: Request<EnsureSnapshotRequest>) -> Answer<EnsureSnapshotResponse> {
        let request = request.into_inner();
        let (spec, call) = (wire::snapshot_spec(&request)?, wire::call("", request.context)?);
        let snapshot =
            self.storage.ensure_snapshot(call, spec, request.may_create).await.map_err(ServiceError::from)?;
        let size_bytes = snapshot.size_bytes;
        Ok(Response::new(EnsureSnapshotResponse { size_bytes, snapshot: Some(wire::snapshot(&snapshot)) }))
    }

    async fn remove_snapshot(&self, request: Request<RemoveSnapshotRequest>) -> Answer<RemoveSnapshotResponse> {
        let request = request.into_inner();
        let (id, pool) = (wire::parse("id", &request.id)?, wire::pool_if_named(&request.pool)?);
        let call = wire::call("", request.context)?;
        self.storage.remove_snapshot(call, id, pool.as_ref()).await.map_err(ServiceError::from)?;
        Ok(Response::new(RemoveSnapshotResponse {}))
    }

    async fn list_snapshots(&self, _request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        let shows = self.shows()?;
        let snapshots = self.storage.snapshots().await.map_err(ServiceError::from)?;
        let snapshots = snapshots.iter().filter(|snapshot| shows(&snapshot.owner)).map(wire::snapshot).collect();
        Ok(Response::new(ListSnapshotsResponse { snapshots }))
    }
}

/// The bytes behind an image's header.
fn parts(messages: Streaming<PutImageRequest>) -> impl Stream<Item = Result<Bytes, ServiceError>> + Unpin + Send {
    messages.map(|message| match message {
        Ok(PutImageRequest { message: Some(Message::Data(bytes)) }) => Ok(bytes),
        Ok(PutImageRequest { message: Some(Message::Header(_)) }) => {
            Err(ServiceError::invalid("header", "must come once, before data"))
        }
        Ok(PutImageRequest { message: None }) => Err(wire::missing("data")),
        Err(status) => Err(ServiceError::from_status(&status)),
    })
}
