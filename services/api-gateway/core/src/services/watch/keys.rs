//! Watches live as long as the key that opened them, and a key may have so many.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cloud_domain::ApiKeyId;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::sleep,
};

use super::{
    hub::{Batch, Hub},
    source::Rows,
};
use crate::{
    CoreError,
    model::{ApiKey, Caller, Role, Timestamp},
    ports::Store,
};

/// How long to wait before a key is looked at again that could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// Counts watches.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
    too_slow: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    by_key: HashMap<ApiKeyId, usize>,
    by_kind: BTreeMap<&'static str, usize>,
}

/// One watch; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    key: ApiKeyId,
    kind: &'static str,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default(), too_slow: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(self: &Arc<Self>, key: ApiKeyId, kind: &'static str) -> Result<Place, CoreError> {
        let mut taken = self.lock();
        let of_key = taken.by_key.entry(key).or_default();
        if *of_key >= self.most {
            let message = format!("this API key has {of_key} watches open, which is the most at a time: end one first");
            return Err(CoreError::Exhausted { reason: "WATCHES", message });
        }
        *of_key += 1;
        *taken.by_kind.entry(kind).or_default() += 1;
        Ok(Place { places: Arc::clone(self), key, kind })
    }

    pub(super) fn open(&self) -> BTreeMap<&'static str, usize> {
        self.lock().by_kind.clone()
    }

    pub(super) fn too_slow(&self) -> u64 {
        self.too_slow.load(Ordering::Relaxed)
    }
}

impl Place {
    pub(super) fn was_too_slow(&self) {
        self.places.too_slow.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(of_kind) = taken.by_kind.get_mut(self.kind) {
            *of_kind = of_kind.saturating_sub(1);
        }
        if let Some(of_key) = taken.by_key.get_mut(&self.key) {
            *of_key = of_key.saturating_sub(1);
            if *of_key == 0 {
                taken.by_key.remove(&self.key);
            }
        }
    }
}

/// Follows the key of a watch. Keys are watched as everything else is, by a hub for all watches.
pub(super) struct KeyGuard<S> {
    store: S,
    hub: Arc<Hub<Rows<S, ApiKey>, ApiKey>>,
    changes: Receiver<Batch<ApiKey>>,
    key: ApiKeyId,
    /// Of the secret that it was opened with.
    hash: String,
    role: Role,
    ends_at: Option<Timestamp>,
    /// Its row has to be read.
    unread: bool,
}

impl<S: Store> KeyGuard<S> {
    pub(super) async fn new(
        store: S,
        hub: Arc<Hub<Rows<S, ApiKey>, ApiKey>>,
        caller: &Caller,
    ) -> Result<Self, CoreError> {
        // First, so that nothing can happen to the key between the read and the first batch.
        let (changes, _) = hub.join().await?;
        let (hash, role) = (caller.hash.clone(), caller.role);
        let mut guard = Self { store, hub, changes, key: caller.key, hash, role, ends_at: None, unread: true };
        match guard.read().await? {
            None => Ok(guard),
            Some(ended) => Err(ended),
        }
    }

    /// Reads the key's row. Something: it has ended.
    async fn read(&mut self) -> Result<Option<CoreError>, CoreError> {
        let row: Option<ApiKey> = self.store.get(*self.key.as_uuid()).await?;
        self.unread = false;
        let Some(row) = row.filter(|row| row.opens(&self.hash, Timestamp::now())) else {
            return Ok(Some(ended()));
        };
        if row.role != self.role {
            return Ok(Some(CoreError::Unauthenticated("this API key may do other things now: watch again")));
        }
        self.ends_at = row.ends_at(&self.hash);
        Ok(None)
    }

    /// Waits until the key has ended. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> CoreError {
        loop {
            if self.unread {
                match self.read().await {
                    Ok(None) => {}
                    Ok(Some(ended)) => return ended,
                    // An end that is known needs no database.
                    Err(_) if self.ends_at.is_some_and(|at| at <= Timestamp::now()) => return ended(),
                    Err(error) => {
                        tracing::debug!(%error, "the key of a watch cannot be read now");
                        sleep(AGAIN).await;
                    }
                }
                continue;
            }
            let expiry = async {
                match self.ends_at {
                    Some(at) => sleep(at.since(Timestamp::now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expiry => self.unread = true,
                received = self.changes.recv() => match received {
                    Ok(batch) => self.unread = batch.rows.iter().any(|c| c.row.meta.id == *self.key.as_uuid()),
                    Err(RecvError::Lagged(_)) => self.unread = true,
                    // The hub's task failed: joined again, and the key read after that.
                    Err(RecvError::Closed) => match self.hub.join().await {
                        Ok((changes, _)) => {
                            self.changes = changes;
                            self.unread = true;
                        }
                        Err(error) => {
                            tracing::debug!(%error, "keys cannot be followed now");
                            sleep(AGAIN).await;
                        }
                    },
                },
            }
        }
    }
}

fn ended() -> CoreError {
    CoreError::Unauthenticated("this API key has ended")
}
