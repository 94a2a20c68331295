//! `cloud.v1.SnapshotService`.

use cloud_contracts::v1::{self, snapshot_service_server::SnapshotService};
use cloud_core::{
    model::{Snapshot, SnapshotStatus},
    ports::Store,
    services::{NewSnapshot, Services},
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, page_of, time},
};

/// Snapshots over the core's service.
pub struct Snapshots<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> SnapshotService for Snapshots<S> {
    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::Snapshot>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let new = NewSnapshot { name: request.name, volume: request.volume, labels: request.labels };
        let made = self.0.snapshots.create(&caller, new).await;
        made.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn get_snapshot(&self, request: Request<v1::GetSnapshotRequest>) -> Result<Response<v1::Snapshot>, Status> {
        let caller = caller(&request)?;
        let found = self.0.snapshots.get(&caller, &request.get_ref().id).await;
        found.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.0.snapshots.list(&caller, &page_of!(request)).await.map_err(error::status)?;
        let snapshots = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListSnapshotsResponse { snapshots, next_page_token: page.next }))
    }

    async fn watch_snapshots(
        &self,
        request: Request<v1::WatchSnapshotsRequest>,
    ) -> Result<Response<BoxStream<v1::WatchSnapshotsResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.0.watch.snapshots(&caller, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchSnapshotsResponse, snapshot, wire))
    }

    async fn delete_snapshot(
        &self,
        request: Request<v1::DeleteSnapshotRequest>,
    ) -> Result<Response<v1::Snapshot>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let deleted = self.0.snapshots.delete(&caller, &request.id, &request.etag).await;
        deleted.map(|row| Response::new(wire(row))).map_err(error::status)
    }
}

fn status(status: SnapshotStatus) -> v1::snapshot::Status {
    match status {
        SnapshotStatus::Creating => v1::snapshot::Status::Creating,
        SnapshotStatus::Available => v1::snapshot::Status::Available,
        SnapshotStatus::Error => v1::snapshot::Status::Error,
        SnapshotStatus::Deleting => v1::snapshot::Status::Deleting,
        SnapshotStatus::Deleted => v1::snapshot::Status::Deleted,
    }
}

fn wire(row: Snapshot) -> v1::Snapshot {
    v1::Snapshot {
        id: row.meta.id.to_string(),
        etag: row.meta.etag(),
        name: row.meta.name,
        project: row.meta.project_name,
        volume: row.volume_name,
        size_gib: row.size.get(),
        status: status(row.status).into(),
        status_reason: row.status_reason,
        host: row.host_name,
        labels: row.meta.labels,
        created_at: time(row.meta.created_at),
        updated_at: time(row.meta.updated_at),
        deleted_at: row.meta.deleted_at.and_then(time),
    }
}
