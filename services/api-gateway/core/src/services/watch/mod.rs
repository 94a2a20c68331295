//! Watching: the current state of a kind of resource, then every change of it.
//!
//! # Theory of operation
//!
//! Every write transaction has a revision, every row that of the transaction which last wrote it, and the store knows the revision up to
//! which all is visible. A change is therefore never handed over: it is *looked for*, by asking for the rows whose revision is above the one
//! that was seen last. What is asked for so is right after a crash, on another gateway, without any notification, and for one who was away.
//!
//! - A [`source`] asks the store for one kind of row.
//! - A [`hub`] for each kind asks on behalf of everybody: one task, only while somebody watches, woken by commits and once a second
//!   anyway. What it finds goes through a bounded channel to all watchers, shared.
//! - A [`feed`] is one watcher: the current state in pages, then what was committed meanwhile, read from the store, then the hub. It filters
//!   what the caller may see. While nothing happens it costs nothing.
//! - [`keys`] limit how many watches a key may have open, and end them with the key.
//!
//! Rows come in their latest state, ordered by revision: what changed twice while nobody looked is told once. A [`token`] says up to which
//! revision all was told. A watcher that does not take what the hub has for it falls out of the channel, is told so, and resumes with its
//! token; the hub waits for nobody.

mod feed;
mod hub;
mod keys;
mod kinds;
mod source;
mod token;

use std::{collections::BTreeMap, sync::Arc};

use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use super::{HostRegistry, HostService, ImageService, ProjectService, Settings, VpcService};
use crate::{
    CoreError,
    model::{
        ApiKey, Caller, Event, Host, Image, Instance, InstanceType, Port, Project, Resource, Snapshot, Subnet, Volume,
        Vpc,
    },
    ports::Store,
};
use feed::{Feed, Scope, Tap};
use hub::Hub;
use keys::{KeyGuard, Places};
use source::{Events, Hosts, Rows, Source};

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It exists: part of the current state.
    Current,
    /// All of the current state has been told.
    Synced,
    /// It was made.
    Created,
    /// It was changed.
    Updated,
    /// It is gone.
    Deleted,
}

/// One message of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<T> {
    /// What happened.
    pub kind: ChangeKind,
    /// The resource in its latest state; none in [`ChangeKind::Synced`].
    pub row: Option<T>,
    /// Resumes after this message; empty while the current state is not complete.
    pub resume_token: String,
}

/// A watch that goes on until its consumer has enough, or an error.
pub type Watch<T> = BoxStream<'static, Result<Told<T>, CoreError>>;

/// What a caller wants to watch.
#[derive(Debug, Clone, Default)]
pub struct WatchRequest {
    /// The token of the last message that was seen; empty: the current state first.
    pub resume_token: String,
    /// Only this resource, by id or name; empty: all.
    pub id: String,
    /// Ends the watch when the server goes away.
    pub shutdown: CancellationToken,
}

/// Everything that can be watched.
#[derive(Clone)]
pub struct WatchService<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    store: S,
    images: ImageService<S>,
    vpcs: VpcService<S>,
    projects: ProjectService<S>,
    hosts: HostService<S>,
    places: Arc<Places>,
    hubs: Hubs<S>,
}

/// A hub of a kind of row.
type RowHub<S, R> = Arc<Hub<Rows<S, R>, R>>;

/// One hub for each kind.
struct Hubs<S> {
    keys: RowHub<S, ApiKey>,
    instances: RowHub<S, Instance>,
    instance_types: RowHub<S, InstanceType>,
    volumes: RowHub<S, Volume>,
    snapshots: RowHub<S, Snapshot>,
    images: RowHub<S, Image>,
    vpcs: RowHub<S, Vpc>,
    subnets: RowHub<S, Subnet>,
    ports: RowHub<S, Port>,
    projects: RowHub<S, Project>,
    hosts: Arc<Hub<Hosts<S>, Host>>,
    events: Arc<Hub<Events<S>, Event>>,
}

impl<S: Store> Hubs<S> {
    fn new(store: &S, registry: Arc<HostRegistry>, buffer: usize) -> Self {
        fn rows<S: Store, R: Resource>(store: &S, buffer: usize) -> RowHub<S, R> {
            Arc::new(Hub::new(Rows::new(store.clone()), store.commits(), buffer))
        }
        Self {
            keys: rows(store, buffer),
            instances: rows(store, buffer),
            instance_types: rows(store, buffer),
            volumes: rows(store, buffer),
            snapshots: rows(store, buffer),
            images: rows(store, buffer),
            vpcs: rows(store, buffer),
            subnets: rows(store, buffer),
            ports: rows(store, buffer),
            projects: rows(store, buffer),
            hosts: Arc::new(Hub::new(Hosts::new(store.clone(), registry), store.commits(), buffer)),
            events: Arc::new(Hub::new(Events::new(store.clone()), store.commits(), buffer)),
        }
    }
}

impl<S: Store> WatchService<S> {
    /// The service over a store; `images`, `vpcs`, `projects` and `hosts` say what a caller means by a name.
    pub fn new(
        store: S,
        registry: Arc<HostRegistry>,
        settings: &Settings,
        images: ImageService<S>,
        vpcs: VpcService<S>,
        projects: ProjectService<S>,
        hosts: HostService<S>,
    ) -> Self {
        let hubs = Hubs::new(&store, registry, settings.watch_buffer);
        let places = Arc::new(Places::new(settings.watches_per_key));
        Self { inner: Arc::new(Inner { store, images, vpcs, projects, hosts, places, hubs }) }
    }

    /// How many watches are open, by what they watch.
    #[must_use]
    pub fn open(&self) -> BTreeMap<&'static str, usize> {
        self.inner.places.open()
    }

    /// How many watches ended because their consumer was too slow.
    #[must_use]
    pub fn too_slow(&self) -> u64 {
        self.inner.places.too_slow()
    }

    /// Opens a watch: takes a place, checks the token, and begins.
    async fn open_on<F: Source>(
        &self,
        caller: &Caller,
        what: &'static str,
        hub: &Arc<Hub<F, F::Row>>,
        scope: Scope<F::Row>,
        request: &WatchRequest,
    ) -> Result<Watch<F::Row>, CoreError> {
        let place = self.inner.places.take(caller.key, what)?;
        let guard = KeyGuard::new(self.inner.store.clone(), Arc::clone(&self.inner.hubs.keys), caller).await?;
        let (_, epoch) = self.inner.store.identity();
        let tap = Tap::open(Arc::clone(hub), epoch, scope, &request.resume_token).await?;
        Ok(Feed::new(tap, guard, place, request.shutdown.clone()).into_stream())
    }
}

#[cfg(test)]
mod tests;
