//! The simulated storage-agent.

use cloud_contracts::agent::{
    EnsureSnapshotRequest, EnsureSnapshotResponse, EnsureVolumeRequest, EnsureVolumeResponse, GetImageRequest,
    GetImageResponse, ImageHeader, ListImagesRequest, ListImagesResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    ListVolumesRequest, ListVolumesResponse, PutImageRequest, PutImageResponse, RemoveImageRequest,
    RemoveImageResponse, RemoveSnapshotRequest, RemoveSnapshotResponse, RemoveVolumeRequest, RemoveVolumeResponse,
    ResizeVolumeRequest, ResizeVolumeResponse, put_image_request::Message, storage_service_server::StorageService,
};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Method, Role,
    agent::Agent,
    model::{SimSnapshot, SimVolume},
    status::{invalid, precondition},
};

/// Where a qcow2 header holds the virtual size: 8 bytes, big-endian (docs/interop/qcow2.txt of QEMU).
const QCOW2_SIZE: std::ops::Range<usize> = 24..32;

#[async_trait::async_trait]
impl StorageService for Agent {
    async fn get_image(&self, request: Request<GetImageRequest>) -> Result<Response<GetImageResponse>, Status> {
        self.call(Method::GetImage, |model| {
            Ok(GetImageResponse { image: Some(model.image(&request.into_inner().id)?) })
        })
        .await
    }

    async fn put_image(
        &self,
        request: Request<Streaming<PutImageRequest>>,
    ) -> Result<Response<PutImageResponse>, Status> {
        let mut plan = self.begin(Method::PutImage).await?;
        let mut incoming = request.into_inner();
        let Some(Message::Header(header)) = incoming.message().await?.and_then(|m| m.message) else {
            return Err(invalid("header", "must be the first message"));
        };
        let cached = {
            let mut model = self.host.model();
            model.fences.of(Role::Storage).admit(header.context.clone(), &header.id)?;
            model.cached_as(&header)?
        };
        let image = match cached {
            Some(image) => image,
            None => {
                let virtual_size = receive(&header, &mut incoming).await?;
                self.host.model().put_image(&header, virtual_size)?
            }
        };
        plan.after().await?;
        Ok(Response::new(PutImageResponse { image: Some(image) }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.call(Method::RemoveImage, |model| {
            let RemoveImageRequest { context, id, .. } = request.into_inner();
            model.fences.of(Role::Storage).admit(context, &id)?;
            model.remove_image(&id).map(|()| RemoveImageResponse {})
        })
        .await
    }

    async fn list_images(&self, _request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        self.call(Method::ListImages, |model| {
            let images: Result<_, _> = model.is.images.keys().map(|id| model.image(id)).collect();
            Ok(ListImagesResponse { images: images? })
        })
        .await
    }

    async fn ensure_volume(
        &self,
        request: Request<EnsureVolumeRequest>,
    ) -> Result<Response<EnsureVolumeResponse>, Status> {
        self.call(Method::EnsureVolume, |model| {
            let EnsureVolumeRequest { context, spec, may_create } = request.into_inner();
            let spec = spec.ok_or_else(|| invalid("spec", "is required"))?;
            let context = model.fences.of(Role::Storage).admit(context, &spec.id)?;
            let owner = Agent::owner(&context, &spec.id, &context.incarnation);
            Ok(EnsureVolumeResponse { volume: Some(model.ensure_volume(owner, &spec, may_create)?) })
        })
        .await
    }

    async fn remove_volume(
        &self,
        request: Request<RemoveVolumeRequest>,
    ) -> Result<Response<RemoveVolumeResponse>, Status> {
        self.call(Method::RemoveVolume, |model| {
            let RemoveVolumeRequest { context, id, .. } = request.into_inner();
            model.fences.of(Role::Storage).admit(context, &id)?;
            model.remove_volume(&id).map(|()| RemoveVolumeResponse {})
        })
        .await
    }

    async fn list_volumes(
        &self,
        _request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        self.call(Method::ListVolumes, |model| {
            let ours = model.is.volumes.values().filter(|v| model.is_ours(&v.owner));
            Ok(ListVolumesResponse { volumes: ours.map(SimVolume::wire).collect() })
        })
        .await
    }

    async fn resize_volume(
        &self,
        request: Request<ResizeVolumeRequest>,
    ) -> Result<Response<ResizeVolumeResponse>, Status> {
        self.call(Method::ResizeVolume, |model| {
            let ResizeVolumeRequest { context, id, size_bytes, .. } = request.into_inner();
            model.fences.of(Role::Storage).admit(context, &id)?;
            Ok(ResizeVolumeResponse { volume: Some(model.resize_volume(&id, size_bytes)?) })
        })
        .await
    }

    async fn ensure_snapshot(
        &self,
        request: Request<EnsureSnapshotRequest>,
    ) -> Result<Response<EnsureSnapshotResponse>, Status> {
        self.call(Method::EnsureSnapshot, |model| {
            let EnsureSnapshotRequest { context, id, volume_id, pool, may_create } = request.into_inner();
            let context = model.fences.of(Role::Storage).admit(context, &id)?;
            let owner = Agent::owner(&context, &id, &context.incarnation);
            let snapshot = model.ensure_snapshot(owner, (&id, &volume_id, &pool), may_create)?;
            Ok(EnsureSnapshotResponse { size_bytes: snapshot.size_bytes, snapshot: Some(snapshot) })
        })
        .await
    }

    async fn remove_snapshot(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<RemoveSnapshotResponse>, Status> {
        self.call(Method::RemoveSnapshot, |model| {
            let RemoveSnapshotRequest { context, id, .. } = request.into_inner();
            model.fences.of(Role::Storage).admit(context, &id)?;
            model.remove_snapshot(&id).map(|()| RemoveSnapshotResponse {})
        })
        .await
    }

    async fn list_snapshots(
        &self,
        _request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        self.call(Method::ListSnapshots, |model| {
            let ours = model.is.snapshots.values().filter(|s| model.is_ours(&s.owner));
            Ok(ListSnapshotsResponse { snapshots: ours.map(SimSnapshot::wire).collect() })
        })
        .await
    }
}

/// Takes an image's bytes, checks them against the header, keeps none of them, and says how large a disk they are.
async fn receive(header: &ImageHeader, incoming: &mut Streaming<PutImageRequest>) -> Result<u64, Status> {
    let (mut digest, mut size, mut start) = (Sha256::new(), 0_u64, Vec::new());
    while let Some(message) = incoming.message().await? {
        let Some(Message::Data(data)) = message.message else {
            return Err(invalid("data", "must follow the header"));
        };
        digest.update(&data);
        size += data.len() as u64;
        if start.len() < QCOW2_SIZE.end {
            start.extend_from_slice(&data[..data.len().min(QCOW2_SIZE.end)]);
        }
        if size > header.size_bytes {
            return Err(precondition("IMAGE_DIFFERS", format!("more than the {} bytes announced", header.size_bytes)));
        }
    }
    let sha256 = hex::encode(digest.finalize());
    if size != header.size_bytes || sha256 != header.sha256 {
        let text = format!(
            "{size} bytes with SHA-256 {sha256} came, {} with {} were announced",
            header.size_bytes, header.sha256
        );
        return Err(precondition("IMAGE_DIFFERS", text));
    }
    match header.format.as_str() {
        "raw" => Ok(size),
        "qcow2" => start
            .get(QCOW2_SIZE)
            .filter(|_| start.starts_with(b"QFI\xfb"))
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes)
            .ok_or_else(|| invalid("header.format", "is qcow2, and the bytes are not")),
        other => Err(invalid("header.format", format!("must be `qcow2` or `raw`, is `{other}`"))),
    }
}
