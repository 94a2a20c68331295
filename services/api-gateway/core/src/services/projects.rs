//! Projects: the calls on them.

use cloud_domain::{Cidr, ProjectId, VpcId};
use uuid::Uuid;

use super::{
    Page, PageRequest,
    api_keys::{end, keep_an_operator, to_the_end},
    key_cache::KeyCache,
    lookup::{any, check_etag, event, insert, labels, live, name},
    quotas::hold,
    vpcs::{self, no_strangers},
};
use crate::{
    CoreError, Kind,
    model::{
        Amounts, ApiKey, Caller, Image, Instance, Labels, Limited, Meta, Project, Resource, Role, Snapshot, Subnet,
        Timestamp, Volume, Vpc,
    },
    ports::{Query, Store, Tx},
};

/// The name of the project that exists from the start, and of what each project begins with.
pub(super) const DEFAULT: &str = "default";
/// The range of a project's default VPC.
const CIDR: &str = "10.0.0.0/16";

/// Tenants.
#[derive(Clone)]
pub struct ProjectService<S> {
    store: S,
    cache: KeyCache,
}

/// Projects belong to the cloud.
pub(super) fn nobody() -> ProjectId {
    ProjectId::from(Uuid::nil())
}

/// What a project begins with: its quota and a default VPC with a subnet.
pub(super) async fn furnish<T: Tx>(tx: &mut T, project: &Project) -> Result<(), CoreError> {
    let owner = ProjectId::from(project.meta.id);
    tx.open_quota(owner, &Amounts::from([(Limited::Vpcs, 1)])).await?;
    let cidr: Cidr = CIDR.parse().map_err(|e| CoreError::Internal(Box::new(e)))?;
    let meta = Meta::new(*VpcId::random().as_uuid(), owner, &project.meta.name, DEFAULT, Labels::new());
    vpcs::make(tx, meta, cidr, true).await?;
    Ok(())
}

/// A live project that the caller may see: its own, or any to an operator.
pub(super) async fn visible<S: Store>(store: &S, caller: &Caller, id: &str) -> Result<Project, CoreError> {
    let row: Project = any(store, nobody(), id).await?;
    let own = row.meta.id == *caller.project.as_uuid();
    if own || caller.role == Role::Operator { Ok(row) } else { Err(CoreError::not_found(Kind::Project, id)) }
}

impl<S: Store> ProjectService<S> {
    pub(super) fn new(store: S, cache: KeyCache) -> Self {
        Self { store, cache }
    }

    /// Makes a project with a default VPC.
    ///
    /// # Errors
    /// Invalid, `AlreadyExists`.
    pub async fn create(&self, caller: &Caller, text: &str, words: Labels) -> Result<Project, CoreError> {
        name(text)?;
        labels(&words)?;
        let row = Project { meta: Meta::new(*ProjectId::random().as_uuid(), nobody(), "", text, words) };
        let mut tx = self.store.begin().await?;
        insert(&mut tx, &row).await?;
        furnish(&mut tx, &row).await?;
        tx.event(event(caller, &row, "project.create")).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// A project that the caller may see.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Project, CoreError> {
        visible(&self.store, caller, id).await
    }

    /// The projects that the caller may see.
    ///
    /// # Errors
    /// Invalid page token.
    pub async fn list(&self, caller: &Caller, page: &PageRequest) -> Result<Page<Project>, CoreError> {
        if caller.role == Role::Operator {
            return page.list(&self.store, None, Query::default()).await;
        }
        let own = self.get(caller, &caller.project.to_string()).await?;
        page.of(vec![own])
    }

    /// Deletes a project that has nothing but its default VPC and its keys; they go with it.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Precondition while it has anything, or where it is the one that the cloud began with or holds the last
    /// operator's key.
    pub async fn delete(&self, caller: &Caller, id: &str, etag: &str) -> Result<Project, CoreError> {
        let (this, caller) = (self.clone(), caller.clone());
        let (id, etag) = (id.to_owned(), etag.to_owned());
        to_the_end(async move {
            let row = this.remove(&caller, &id, &etag).await?;
            this.cache.clear();
            Ok(row)
        })
        .await
    }

    async fn remove(&self, caller: &Caller, id: &str, etag: &str) -> Result<Project, CoreError> {
        let mut tx = self.store.begin().await?;
        let mut row: Project = live(&mut tx, nobody(), id).await?;
        check_etag(&row, etag)?;
        if row.meta.name == DEFAULT {
            let message = "project `default` is the one that the cloud began with: it stays";
            return Err(CoreError::precondition("PROJECT_DEFAULT", message));
        }
        let project = ProjectId::from(row.meta.id);
        keep_an_operator(&mut tx, |key| key.meta.project == project).await?;
        // Before the project, as launches do. The default one is all that it may have: with another one it is refused below.
        for vpc in tx.list::<Vpc>(&of(project)).await?.iter().filter(|vpc| vpc.is_default) {
            tx.bump_generation(vpc.id()).await?;
        }
        // From here on nothing is made in it behind our back.
        hold(&mut tx, project, &row.meta.name).await?;
        nothing::<Instance, _>(&mut tx, &row, |_| true).await?;
        nothing::<Volume, _>(&mut tx, &row, |_| true).await?;
        nothing::<Snapshot, _>(&mut tx, &row, |_| true).await?;
        nothing::<Image, _>(&mut tx, &row, |_| true).await?;
        nothing::<Vpc, _>(&mut tx, &row, |vpc| !vpc.is_default).await?;
        let vpcs: Vec<Vpc> = tx.list(&of(project)).await?;
        let what = format!("project `{}`", row.meta.name);
        no_strangers(&mut tx, &what, |nic| vpcs.iter().any(|vpc| vpc.id() == nic.vpc)).await?;
        let now = Some(Timestamp::now());
        for mut vpc in vpcs {
            for mut subnet in tx.list::<Subnet>(&Query::by("vpc_id", &vpc.id())).await? {
                subnet.meta.deleted_at = now;
                tx.update(&mut subnet).await?;
            }
            vpc.meta.deleted_at = now;
            tx.update(&mut vpc).await?;
        }
        let keys: Vec<ApiKey> = tx.list(&of(project)).await?;
        let ended = keys.len();
        for mut key in keys {
            end(&mut tx, &mut key).await?;
        }
        tx.close_quota(project).await?;
        row.meta.deleted_at = now;
        tx.update(&mut row).await?;
        let mut deleted = event(caller, &row, "project.delete");
        deleted.message = format!("{ended} API keys ended with it");
        tx.event(deleted).await?;
        tx.commit().await?;
        Ok(row)
    }
}

fn of(project: ProjectId) -> Query {
    Query { project: Some(project), ..Query::default() }
}

/// Sees that a project has no live row of a kind.
async fn nothing<R: Resource, T: Tx>(
    tx: &mut T,
    project: &Project,
    counts: impl Fn(&R) -> bool,
) -> Result<(), CoreError> {
    // One VPC does not count: two rows are enough to find one that does.
    let query = Query { limit: Some(2), ..of(project.meta.id.into()) };
    match tx.list::<R>(&query).await?.into_iter().find(counts) {
        None => Ok(()),
        Some(row) => {
            let (name, kind, what) = (&project.meta.name, R::KIND, &row.meta().name);
            let message = format!("project `{name}` is not empty: it has {kind} `{what}`; delete what it has first");
            Err(CoreError::precondition("PROJECT_NOT_EMPTY", message))
        }
    }
}
