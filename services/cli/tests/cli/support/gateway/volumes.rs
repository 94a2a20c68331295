//! Its only volume.

use cloud_contracts::v1;
use futures::StreamExt;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::Service;

#[tonic::async_trait]
impl v1::volume_service_server::VolumeService for Service {
    async fn get_volume(&self, request: Request<v1::GetVolumeRequest>) -> Result<Response<v1::Volume>, Status> {
        let mut state = self.enter("get_volume", &request)?;
        let seen = state.volume.front().cloned().ok_or_else(|| Status::not_found("no volume"))?;
        if state.volume.len() > 1 {
            state.volume.pop_front();
        }
        Ok(Response::new(seen))
    }
    async fn update_volume(&self, request: Request<v1::UpdateVolumeRequest>) -> Result<Response<v1::Volume>, Status> {
        let state = self.enter("update_volume", &request)?;
        Ok(Response::new(state.volume.front().cloned().ok_or_else(|| Status::not_found("no volume"))?))
    }
    async fn watch_volumes(
        &self,
        request: Request<v1::WatchVolumesRequest>,
    ) -> Result<Response<BoxStream<v1::WatchVolumesResponse>>, Status> {
        let rest: Vec<v1::Volume> = self.enter("watch_volumes", &request)?.volume.iter().cloned().collect();
        let told = rest.into_iter().map(|volume| {
            let change = v1::watch_volumes_response::Change::Updated.into();
            Ok(v1::WatchVolumesResponse { change, volume: Some(volume), ..Default::default() })
        });
        Ok(Response::new(futures::stream::iter(told).chain(futures::stream::pending()).boxed()))
    }
}
