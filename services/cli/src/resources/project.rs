//! Projects.

use cloud_contracts::v1::{DeleteProjectRequest, GetProjectRequest, ListProjectsRequest, Project};
use tonic::Status;

use super::{Delete, Fetch, Listed, Page, PageOf, Resource, View, labels, times};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for Project {
    const KIND: &'static str = "project";
    const PLURAL: &'static str = "projects";
    const COLUMNS: &'static [&'static str] = &["NAME", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        vec![self.name.clone(), human::age(self.created_at.as_ref(), view.now), self.id.clone()]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Name", self.name.clone()), ("Id", self.id.clone()), ("Labels", labels(&self.labels))];
        lines.extend(times(
            view,
            [
                ("Created", self.created_at.as_ref()),
                ("Updated", self.updated_at.as_ref()),
                ("Deleted", self.deleted_at.as_ref()),
            ],
        ));
        lines
    }
}

impl Fetch for Project {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.projects().get_project(ask(GetProjectRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for Project {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListProjectsRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
        };
        let answer = cloud.projects().list_projects(ask(request)).await?.into_inner();
        Ok((answer.projects, answer.next_page_token))
    }
}

impl Delete for Project {
    async fn delete(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        let request = DeleteProjectRequest { id: id.to_owned(), ..Default::default() };
        Ok(cloud.projects().delete_project(ask(request)).await?.into_inner())
    }
}
