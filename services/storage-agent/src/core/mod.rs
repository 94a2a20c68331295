//! The rules of storage on one host, over any kind of pool.
//!
//! # Theory of operation
//! [`Storage`] decides, a [`backend::StorageBackend`] does. Every operation goes the same way:
//!
//! 1. The id's lock is taken, so that two calls for one id follow one another while others run beside them.
//! 2. Under the lock the call is admitted: it must not be older than one that was already seen ([`call::Admission`]).
//! 3. The rest runs in a task of its own that holds the lock. A caller who goes away or loses patience
//!    ([`StorageError::Slow`]) stops nothing half-way, and whoever asks next waits until it is done.
//! 4. What is there is looked up, compared with what is wanted, and only the difference is done. The backend leaves at
//!    any point of a crash something that the same call, repeated, completes.
//!
//! A volume's lock is taken before its source's: an image's, a snapshot's or another volume's. Whatever is made from a
//! source holds its lock as a reader; making, changing and removing the source hold it alone, so nothing is ever made of
//! what goes.
//!
//! A host has one or several pools ([`Pools`]), each a [`Storage`] of its own: what hangs in one does not keep the others.

pub mod backend;
pub mod call;
mod error;
mod images;
mod locks;
pub mod model;
mod pools;
mod snapshots;
mod volumes;

use std::{future::Future, sync::Arc, time::Duration};

use cloud_domain::{ImageId, SnapshotId, VolumeId};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use error::StorageError;
pub use pools::Pools;

use self::{
    backend::StorageBackend,
    call::Admission,
    locks::KeyedLocks,
    model::{PoolName, PoolStatus, ThinStatus},
};

/// The figures that rules use.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Bytes of a pool that no new volume or image may take; `None`: the smaller of 1 GiB and 5 % of the pool.
    pub reserve_bytes: Option<u64>,
    /// How long a caller waits for an operation. What was begun goes on.
    pub patience: Duration,
    /// How long the next bytes of an image are waited for.
    pub stall: Duration,
    /// How full a thin pool may become.
    pub limits: Limits,
}

/// Beyond these, nothing is made, grown or taken in a thin pool.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of its data, in percent.
    pub data_percent: u32,
    /// Of its metadata, in percent.
    pub metadata_percent: u32,
    /// How many times its size all its volumes together may promise.
    pub virtual_ratio: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { data_percent: 95, metadata_percent: 90, virtual_ratio: 20 }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            reserve_bytes: None,
            patience: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            limits: Limits::default(),
        }
    }
}

/// Volumes and images on this host.
#[derive(Clone)]
pub struct Storage {
    parts: Arc<Parts>,
}

struct Parts {
    backend: Arc<dyn StorageBackend>,
    admission: Arc<dyn Admission>,
    rules: Rules,
    volumes: KeyedLocks<VolumeId>,
    snapshots: KeyedLocks<SnapshotId>,
    images: KeyedLocks<ImageId>,
    tasks: TaskTracker,
}

impl Storage {
    /// Storage in one pool.
    #[must_use]
    pub fn new(backend: Arc<dyn StorageBackend>, admission: Arc<dyn Admission>, rules: Rules) -> Self {
        let tasks = TaskTracker::new();
        let (volumes, snapshots, images) = Default::default();
        Self { parts: Arc::new(Parts { backend, admission, rules, volumes, snapshots, images, tasks }) }
    }

    /// The pool, proved to be the right one and writable, and its kind.
    ///
    /// # Errors
    /// [`StorageError::PoolNotHealthy`] says what is wrong with it.
    pub async fn pool(&self) -> Result<(PoolStatus, &'static str), StorageError> {
        Ok((self.parts.backend.status().await?, self.parts.backend.kind()))
    }

    /// Waits until everything that was begun is done, and begins nothing more.
    pub async fn stop(&self) {
        self.parts.tasks.close();
        self.parts.tasks.wait().await;
    }

    /// Takes `lock`, then runs `operation` to its end in a task of its own, and waits for it as long as patience lasts.
    async fn run<G, T, F>(
        &self,
        what: impl Into<String>,
        lock: impl Future<Output = G>,
        operation: impl FnOnce(Self) -> F,
    ) -> Result<T, StorageError>
    where
        G: Send + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T, StorageError>> + Send + 'static,
    {
        let patience = self.parts.rules.patience;
        let slow = || StorageError::Slow { what: what.into(), seconds: patience.as_secs() };
        let deadline = Instant::now() + patience;
        let Ok(guard) = timeout_at(deadline, lock).await else { return Err(slow()) };
        if self.parts.tasks.is_closed() {
            return Err(StorageError::Stopping);
        }
        let work = operation(self.clone());
        let task = self.parts.tasks.spawn(
            async move {
                let result = work.await;
                drop(guard);
                result
            }
            .in_current_span(),
        );
        match timeout_at(deadline, task).await {
            Err(_) => Err(slow()),
            Ok(Ok(result)) => result,
            Ok(Err(broken)) => Err(StorageError::backend("finish an operation", broken)),
        }
    }

    fn is_my_pool(&self, pool: &PoolName) -> Result<(), StorageError> {
        if pool == self.parts.backend.pool() { Ok(()) } else { Err(StorageError::NoSuchPool(pool.clone())) }
    }

    /// Whether `needed` bytes can be taken without touching the reserve, and `promised` ones more be promised.
    async fn has_space(&self, needed: u64, promised: u64) -> Result<(), StorageError> {
        let space = self.parts.backend.space().await?;
        let reserve = self.parts.rules.reserve_bytes.unwrap_or_else(|| (1 << 30).min(space.total_bytes / 20));
        if space.free_bytes.saturating_sub(needed) < reserve {
            return Err(StorageError::NoSpace { pool: space.name, free: space.free_bytes, needed, reserve });
        }
        match space.thin {
            Some(thin) => within(&space, thin, promised, &self.parts.rules.limits),
            None => Ok(()),
        }
    }
}

/// Whether a thin pool may take more.
fn within(space: &PoolStatus, thin: ThinStatus, promised: u64, limits: &Limits) -> Result<(), StorageError> {
    let at = |what, is: String, limit: String| Err(StorageError::AtLimit { pool: space.name.clone(), what, is, limit });
    let percent = |permille: u32| format!("{}.{} %", permille / 10, permille % 10);
    let ratio = (thin.virtual_bytes + promised).div_ceil(space.total_bytes.max(1));
    if thin.data_permille > limits.data_percent * 10 {
        return at("its data", percent(thin.data_permille), format!("{} %", limits.data_percent));
    }
    if thin.metadata_permille > limits.metadata_percent * 10 {
        return at("its metadata", percent(thin.metadata_permille), format!("{} %", limits.metadata_percent));
    }
    if thin.virtual_bytes.saturating_add(promised) > space.total_bytes.saturating_mul(limits.virtual_ratio.into()) {
        return at(
            "what its volumes promise",
            format!("{ratio} times its size"),
            format!("{} times", limits.virtual_ratio),
        );
    }
    Ok(())
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
