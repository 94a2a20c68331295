//! `cloud.v1.ProjectService`.

use cloud_contracts::v1::{self, project_service_server::ProjectService};
use cloud_core::{model::Project, ports::Store, services::Services};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, page_of, time},
};

/// Projects over the core's service.
pub struct Projects<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> ProjectService for Projects<S> {
    async fn create_project(
        &self,
        request: Request<v1::CreateProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let made = self.0.projects.create(&caller, &request.name, request.labels).await;
        made.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn delete_project(
        &self,
        request: Request<v1::DeleteProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let deleted = self.0.projects.delete(&caller, &request.id, &request.etag).await;
        deleted.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn get_project(&self, request: Request<v1::GetProjectRequest>) -> Result<Response<v1::Project>, Status> {
        let caller = caller(&request)?;
        let found = self.0.projects.get(&caller, &request.get_ref().id).await;
        found.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn list_projects(
        &self,
        request: Request<v1::ListProjectsRequest>,
    ) -> Result<Response<v1::ListProjectsResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.0.projects.list(&caller, &page_of!(request, live)).await.map_err(error::status)?;
        let projects = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListProjectsResponse { projects, next_page_token: page.next }))
    }

    async fn watch_projects(
        &self,
        request: Request<v1::WatchProjectsRequest>,
    ) -> Result<Response<BoxStream<v1::WatchProjectsResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.0.watch.projects(&caller, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchProjectsResponse, project, wire))
    }
}

fn wire(row: Project) -> v1::Project {
    v1::Project {
        id: row.meta.id.to_string(),
        etag: row.meta.etag(),
        name: row.meta.name,
        labels: row.meta.labels,
        created_at: time(row.meta.created_at),
        updated_at: time(row.meta.updated_at),
        deleted_at: row.meta.deleted_at.and_then(time),
    }
}
