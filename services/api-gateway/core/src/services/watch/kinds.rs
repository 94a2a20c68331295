//! What a caller sees of each kind: as in its list.

use cloud_domain::ProjectId;
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use super::{ChangeKind, Told, Watch, WatchRequest, WatchService, feed::Scope};
use crate::{
    CoreError,
    model::{
        ApiKey, Caller, Event, Host, Image, Instance, InstanceType, Port, Project, Resource, Role, Snapshot, Subnet,
        Visibility, Volume, Vpc,
    },
    ports::{Query, Store},
    services::{
        EventFilter, HostView,
        lookup::{any, operator},
    },
};

/// What belongs to the cloud.
fn nobody() -> ProjectId {
    ProjectId::from(Uuid::nil())
}

/// One row, which is kept for a while when it is deleted.
fn only(id: Uuid) -> Query {
    Query { deleted: true, ..Query::by("id", &id) }
}

/// A project's rows; of them the one with the id where one is asked for.
fn of_project<R: Resource>(project: ProjectId, id: Option<Uuid>) -> Scope<R> {
    match id {
        None => Scope {
            query: Query { project: Some(project), ..Query::default() },
            sees: Box::new(move |row: &R| row.meta().project == project),
        },
        Some(id) => Scope { query: only(id), sees: by_id(id) },
    }
}

fn by_id<R: Resource>(id: Uuid) -> Box<dyn Fn(&R) -> bool + Send + Sync> {
    Box::new(move |row: &R| row.meta().id == id)
}

impl<S: Store> WatchService<S> {
    /// The id of the project's row that is asked for, where one is.
    async fn asked<R: Resource>(&self, project: ProjectId, request: &WatchRequest) -> Result<Option<Uuid>, CoreError> {
        if request.id.is_empty() {
            return Ok(None);
        }
        let row: R = any(&self.inner.store, project, &request.id).await?;
        Ok(Some(row.meta().id))
    }

    /// The project's instances.
    ///
    /// # Errors
    /// `NotFound` (id), Invalid and `CannotResume` (token), Exhausted. So are all below.
    pub async fn instances(&self, caller: &Caller, request: &WatchRequest) -> Result<Watch<Instance>, CoreError> {
        let id = self.asked::<Instance>(caller.project, request).await?;
        let scope = of_project(caller.project, id);
        self.open_on(caller, "instances", &self.inner.hubs.instances, scope, request).await
    }

    /// Instance types: everybody sees them.
    ///
    /// # Errors
    /// See [`Self::instances`].
    pub async fn instance_types(
        &self,
        caller: &Caller,
        request: &WatchRequest,
    ) -> Result<Watch<InstanceType>, CoreError> {
        let scope = of_project(nobody(), self.asked::<InstanceType>(nobody(), request).await?);
        self.open_on(caller, "instance_types", &self.inner.hubs.instance_types, scope, request).await
    }

    /// The project's volumes.
    ///
    /// # Errors
    /// See [`Self::instances`].
    pub async fn volumes(&self, caller: &Caller, request: &WatchRequest) -> Result<Watch<Volume>, CoreError> {
        let scope = of_project(caller.project, self.asked::<Volume>(caller.project, request).await?);
        self.open_on(caller, "volumes", &self.inner.hubs.volumes, scope, request).await
    }

    /// The project's snapshots.
    ///
    /// # Errors
    /// See [`Self::instances`].
    pub async fn snapshots(&self, caller: &Caller, request: &WatchRequest) -> Result<Watch<Snapshot>, CoreError> {
        let scope = of_project(caller.project, self.asked::<Snapshot>(caller.project, request).await?);
        self.open_on(caller, "snapshots", &self.inner.hubs.snapshots, scope, request).await
    }

    /// The project's images and the public ones.
    ///
    /// # Errors
    /// See [`Self::instances`].
    pub async fn images(&self, caller: &Caller, request: &WatchRequest) -> Result<Watch<Image>, CoreError> {
        let project = caller.project;
        let sees = move |row: &Image| row.meta.project == project || row.visibility == Visibility::Public;
        let scope = if request.id.is_empty() {
            let query = Query { project: Some(project), or_column: Some(("public", 1)), ..Query::default() };
            Scope { query, sees: Box::new(sees) }
        } else {
            let id = self.inner.images.get(caller, &request.id).await?.meta.id;
            Scope { query: only(id), sees: Box::new(move |row: &Image| row.meta.id == id && sees(row)) }
        };
        self.open_on(caller, "images", &self.inner.hubs.images, scope, request).await
    }

    /// The project's VPCs.
    ///
    /// # Errors
    /// See [`Self::instances`].
    pub async fn vpcs(&self, caller: &Caller, request: &WatchRequest) -> Result<Watch<Vpc>, CoreError> {
        let scope = of_project(caller.project, self.asked::<Vpc>(caller.project, request).await?);
        self.open_on(caller, "vpcs", &self.inner.hubs.vpcs, scope, request).await
    }

    /// A VPC's subnets.
    ///
    /// # Errors
    /// See [`Self::instances`]; `NotFound` (VPC).
    pub async fn subnets(
        &self,
        caller: &Caller,
        vpc: &str,
        request: &WatchRequest,
    ) -> Result<Watch<Subnet>, CoreError> {
        let scope = if request.id.is_empty() {
            let vpc = self.inner.vpcs.get(caller, vpc).await?.id();
            Scope { query: Query::by("vpc_id", &vpc), sees: Box::new(move |row: &Subnet| row.vpc == vpc) }
        } else {
            let id = self.inner.vpcs.get_subnet(caller, vpc, &request.id).await?.meta.id;
            Scope { query: only(id), sees: by_id(id) }
        };
        self.open_on(caller, "subnets", &self.inner.hubs.subnets, scope, request).await
    }

    /// The project's ports.
    ///
    /// # Errors
    /// See [`Self::instances`].
    pub async fn ports(&self, caller: &Caller, request: &WatchRequest) -> Result<Watch<Port>, CoreError> {
        let scope = of_project(caller.project, self.asked::<Port>(caller.project, request).await?);
        self.open_on(caller, "ports", &self.inner.hubs.ports, scope, request).await
    }

    /// The projects that the caller may see.
    ///
    /// # Errors
    /// See [`Self::instances`].
    pub async fn projects(&self, caller: &Caller, request: &WatchRequest) -> Result<Watch<Project>, CoreError> {
        let id = if !request.id.is_empty() {
            Some(self.inner.projects.get(caller, &request.id).await?.meta.id)
        } else if caller.role == Role::Operator {
            None
        } else {
            Some(*caller.project.as_uuid())
        };
        self.open_on(caller, "projects", &self.inner.hubs.projects, of_project(nobody(), id), request).await
    }

    /// The project's keys.
    ///
    /// # Errors
    /// See [`Self::instances`].
    pub async fn api_keys(&self, caller: &Caller, request: &WatchRequest) -> Result<Watch<ApiKey>, CoreError> {
        let scope = of_project(caller.project, self.asked::<ApiKey>(caller.project, request).await?);
        self.open_on(caller, "api_keys", &self.inner.hubs.keys, scope, request).await
    }

    /// All hosts (operators).
    ///
    /// # Errors
    /// See [`Self::instances`]; Denied.
    pub async fn hosts(&self, caller: &Caller, request: &WatchRequest) -> Result<Watch<HostView>, CoreError> {
        operator(caller, "watch hosts")?;
        let scope = of_project(nobody(), self.asked::<Host>(nobody(), request).await?);
        let rows = self.open_on(caller, "hosts", &self.inner.hubs.hosts, scope, request).await?;
        let (store, hosts) = (self.inner.store.clone(), self.inner.hosts.clone());
        let views = rows.and_then(move |told| {
            let (store, hosts) = (store.clone(), hosts.clone());
            async move {
                let Told { kind, row, resume_token } = told;
                let Some(mut row) = row else { return Ok(Told { kind, row: None, resume_token }) };
                if kind != ChangeKind::Current
                    && let Some(now) = store.get::<Host>(row.meta.id).await?
                {
                    // Its state is that of now, so is what stands beside it.
                    row = now;
                }
                Ok(Told { kind, row: Some(hosts.view(row).await?), resume_token })
            }
        });
        Ok(views.boxed())
    }

    /// The project's events.
    ///
    /// # Errors
    /// See [`Self::instances`].
    pub async fn events(
        &self,
        caller: &Caller,
        filter: EventFilter,
        request: &WatchRequest,
    ) -> Result<Watch<Event>, CoreError> {
        let project = caller.project;
        let sees = move |row: &Event| {
            row.project == project
                && (filter.kind.is_empty() || row.kind == filter.kind)
                && (filter.resource.is_empty() || row.resource == filter.resource)
        };
        let scope = Scope { query: Query::default(), sees: Box::new(sees) };
        self.open_on(caller, "events", &self.inner.hubs.events, scope, request).await
    }
}
