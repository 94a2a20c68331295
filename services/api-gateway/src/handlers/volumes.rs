//! `cloud.v1.VolumeService`.

use cloud_contracts::v1::{self, volume_service_server::VolumeService};
use cloud_core::{
    CoreError,
    model::{Copied, Volume, VolumeLimits, VolumeStatus},
    ports::Store,
    services::{NewVolume, Services, VolumeChange},
};
use cloud_domain::Gib;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, page_of, time},
};

/// Volumes over the core's service.
pub struct Volumes<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> VolumeService for Volumes<S> {
    async fn create_volume(&self, request: Request<v1::CreateVolumeRequest>) -> Result<Response<v1::Volume>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let new = NewVolume {
            name: request.name,
            size_gib: request.size_gib,
            image: request.image,
            snapshot: request.snapshot,
            volume: request.volume,
            pool: request.pool,
            host: request.host,
            labels: request.labels,
            limits: VolumeLimits { iops: request.iops, mb_per_second: request.mb_per_second },
        };
        let made = self.0.volumes.create(&caller, new).await;
        made.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn get_volume(&self, request: Request<v1::GetVolumeRequest>) -> Result<Response<v1::Volume>, Status> {
        let caller = caller(&request)?;
        let found = self.0.volumes.get(&caller, &request.get_ref().id).await;
        found.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn list_volumes(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.0.volumes.list(&caller, &page_of!(request)).await.map_err(error::status)?;
        let volumes = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListVolumesResponse { volumes, next_page_token: page.next }))
    }

    async fn watch_volumes(
        &self,
        request: Request<v1::WatchVolumesRequest>,
    ) -> Result<Response<BoxStream<v1::WatchVolumesResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.0.watch.volumes(&caller, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchVolumesResponse, volume, wire))
    }

    async fn update_volume(&self, request: Request<v1::UpdateVolumeRequest>) -> Result<Response<v1::Volume>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let change = change(&request.volume.unwrap_or_default(), request.update_mask.unwrap_or_default())
            .map_err(error::status)?;
        let updated = self.0.volumes.update(&caller, &request.id, &request.etag, change).await;
        updated.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn resize_volume(&self, request: Request<v1::ResizeVolumeRequest>) -> Result<Response<v1::Volume>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let resized = self.0.volumes.resize(&caller, &request.id, &request.etag, request.size_gib).await;
        resized.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn delete_volume(&self, request: Request<v1::DeleteVolumeRequest>) -> Result<Response<v1::Volume>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let deleted = self.0.volumes.delete(&caller, &request.id, &request.etag).await;
        deleted.map(|row| Response::new(wire(row))).map_err(error::status)
    }
}

/// What a mask names of a volume's new values.
fn change(volume: &v1::Volume, mask: prost_types::FieldMask) -> Result<VolumeChange, CoreError> {
    const KNOWN: &str = "labels, iops, mb_per_second";
    let mut change = VolumeChange::default();
    if mask.paths.is_empty() {
        return Err(CoreError::invalid("update_mask", format!("must name what to change: {KNOWN}")));
    }
    for path in mask.paths {
        match path.as_str() {
            "labels" => change.labels = Some(volume.labels.clone()),
            "iops" => change.iops = Some(volume.iops),
            "mb_per_second" => change.mb_per_second = Some(volume.mb_per_second),
            other => {
                let other: String = other.chars().take(80).collect();
                return Err(CoreError::invalid("update_mask", format!("`{other}` cannot be changed: {KNOWN}")));
            }
        }
    }
    Ok(change)
}

fn status(status: VolumeStatus) -> v1::volume::Status {
    match status {
        VolumeStatus::Creating => v1::volume::Status::Creating,
        VolumeStatus::Available => v1::volume::Status::Available,
        VolumeStatus::InUse => v1::volume::Status::InUse,
        VolumeStatus::Error => v1::volume::Status::Error,
        VolumeStatus::Deleting => v1::volume::Status::Deleting,
        VolumeStatus::Deleted => v1::volume::Status::Deleted,
    }
}

fn wire(row: Volume) -> v1::Volume {
    let (snapshot, source_volume) = match row.copied {
        Some(Copied::Snapshot { name, .. }) => (name, String::new()),
        Some(Copied::Volume { name, .. }) => (String::new(), name),
        None => Default::default(),
    };
    v1::Volume {
        id: row.meta.id.to_string(),
        etag: row.meta.etag(),
        name: row.meta.name,
        project: row.meta.project_name,
        size_gib: row.size.get(),
        status: status(row.status).into(),
        status_reason: row.status_reason,
        host: row.host_name,
        pool: row.pool,
        instance: row.instance_name,
        root: row.root,
        image: row.image_name,
        snapshot,
        source_volume,
        growing_to_gib: row.growing_to.map_or(0, Gib::get),
        iops: row.limits.iops,
        mb_per_second: row.limits.mb_per_second,
        limits_pending: row.limits_pending,
        labels: row.meta.labels,
        created_at: time(row.meta.created_at),
        updated_at: time(row.meta.updated_at),
        deleted_at: row.meta.deleted_at.and_then(time),
    }
}
