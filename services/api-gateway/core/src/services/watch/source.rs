//! Where the changes of a kind come from.

use std::{
    collections::HashMap,
    future::{Future, ready},
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use cloud_domain::HostId;

use crate::{
    model::{AgentRole, Event, Host, Resource},
    ports::{Changes, Cursor, Key, Query, Store, StoreError},
    services::{HostRegistry, HostState},
};

/// Rows asked for at once; a transaction that wrote more comes whole.
pub(super) const SLICE: u32 = 256;

/// What can be watched.
pub(super) trait Source: Send + Sync + 'static {
    /// What it is.
    type Row: Clone + Send + Sync + 'static;
    /// Whether a watcher joins the hub before it reads the current state: needed where something of a row is not in the store.
    const JOINS_FIRST: bool = false;

    /// The revision up to which everything is visible.
    fn revision(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// The highest revision of which something is purged.
    fn purged(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// What was written after a revision, in its latest state.
    fn after(&self, revision: u64) -> impl Future<Output = Result<Changes<Self::Row>, StoreError>> + Send;

    /// A page of the current state.
    fn current(&self, query: &Query) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;

    /// Rows that changed in what the store does not have, since the last call.
    fn unwritten(&self) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send {
        ready(Ok(Vec::new()))
    }

    /// Where a page goes on after a row, and the row's version.
    fn place(row: &Self::Row) -> (Cursor, u64);

    /// Whether it is gone.
    fn is_deleted(row: &Self::Row) -> bool;
}

/// A kind of row.
pub(super) struct Rows<S, R> {
    store: S,
    kind: PhantomData<fn() -> R>,
}

impl<S, R> Rows<S, R> {
    pub(super) fn new(store: S) -> Self {
        Self { store, kind: PhantomData }
    }
}

impl<S: Store, R: Resource> Source for Rows<S, R> {
    type Row = R;

    fn revision(&self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        self.store.revision()
    }

    fn purged(&self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        self.store.purged()
    }

    fn after(&self, revision: u64) -> impl Future<Output = Result<Changes<R>, StoreError>> + Send {
        self.store.changes(revision, SLICE)
    }

    fn current(&self, query: &Query) -> impl Future<Output = Result<Vec<R>, StoreError>> + Send {
        self.store.list(query)
    }

    fn place(row: &R) -> (Cursor, u64) {
        let meta = row.meta();
        (Cursor { key: Key::CreatedAt(meta.created_at), id: meta.id }, meta.version)
    }

    fn is_deleted(row: &R) -> bool {
        row.meta().deleted_at.is_some()
    }
}

/// Events. They are never changed, and have no current state.
pub(super) struct Events<S> {
    store: S,
}

impl<S> Events<S> {
    pub(super) fn new(store: S) -> Self {
        Self { store }
    }
}

impl<S: Store> Source for Events<S> {
    type Row = Event;

    fn revision(&self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        self.store.revision()
    }

    fn purged(&self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        self.store.purged()
    }

    fn after(&self, revision: u64) -> impl Future<Output = Result<Changes<Event>, StoreError>> + Send {
        self.store.events_after(revision, SLICE)
    }

    fn current(&self, _: &Query) -> impl Future<Output = Result<Vec<Event>, StoreError>> + Send {
        ready(Ok(Vec::new()))
    }

    fn place(row: &Event) -> (Cursor, u64) {
        (Cursor { key: Key::CreatedAt(row.at), id: row.id }, 1)
    }

    fn is_deleted(_: &Event) -> bool {
        false
    }
}

/// What of a host is only in memory: how its agents do.
type Standing = (HostState, Vec<(AgentRole, bool, String)>);

/// Hosts: their rows, and how their agents do.
pub(super) struct Hosts<S> {
    store: S,
    registry: Arc<HostRegistry>,
    seen: Mutex<HashMap<HostId, Standing>>,
}

impl<S> Hosts<S> {
    pub(super) fn new(store: S, registry: Arc<HostRegistry>) -> Self {
        Self { store, registry, seen: Mutex::default() }
    }

    /// The hosts that stand otherwise than at the last look.
    fn moved(&self) -> Vec<HostId> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = Vec::new();
        for (id, _) in self.registry.hosts() {
            // Not the reason: it counts seconds.
            let agents = self.registry.health(id).into_iter().map(|a| (a.role, a.reachable, a.backend_error));
            let standing = (self.registry.state(id).0, agents.collect());
            if seen.get(&id) != Some(&standing) {
                seen.insert(id, standing);
                moved.push(id);
            }
        }
        moved
    }
}

impl<S: Store> Source for Hosts<S> {
    type Row = Host;
    const JOINS_FIRST: bool = true;

    fn revision(&self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        self.store.revision()
    }

    fn purged(&self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        self.store.purged()
    }

    fn after(&self, revision: u64) -> impl Future<Output = Result<Changes<Host>, StoreError>> + Send {
        self.store.changes(revision, SLICE)
    }

    fn current(&self, query: &Query) -> impl Future<Output = Result<Vec<Host>, StoreError>> + Send {
        self.store.list(query)
    }

    async fn unwritten(&self) -> Result<Vec<Host>, StoreError> {
        let mut rows = Vec::new();
        let mut moved = self.moved().into_iter();
        while let Some(id) = moved.next() {
            match self.store.get::<Host>(*id.as_uuid()).await {
                // One that is only just registering is told when it is written.
                Ok(row) => rows.extend(row),
                Err(error) => {
                    // Told at the next look.
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.remove(&id);
                    moved.for_each(|id| drop(seen.remove(&id)));
                    return if rows.is_empty() { Err(error) } else { Ok(rows) };
                }
            }
        }
        Ok(rows)
    }

    fn place(row: &Host) -> (Cursor, u64) {
        <Rows<S, Host> as Source>::place(row)
    }

    fn is_deleted(row: &Host) -> bool {
        row.meta.deleted_at.is_some()
    }
}
