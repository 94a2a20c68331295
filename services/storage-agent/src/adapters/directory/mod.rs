//! A pool in a directory: volumes and images are qcow2 and raw files.
//!
//! # Theory of operation
//! ```text
//! <pool>/pool.json                  the marker: which pool this is
//! <pool>/volumes/<id>.qcow2         a volume's data, over ../images/<id>.<format> or nothing
//! <pool>/volumes/<id>.json          its record: owner, source, state
//! <pool>/images/<id>.<format>       an image's bytes, as imported, never written again
//! <pool>/images/<id>.json           its record: owner, size, SHA-256
//! <pool>/snapshots/<id>.{qcow2,json}  a snapshot: a copy of its volume's file, and its record
//! <pool>/{volumes,images,snapshots}/.<x>.tmp  what is being made; removed at the start
//! ```
//! The file system keeps no transactions, so the order of steps makes every operation repeatable from wherever a crash
//! left it. Files are made under a temporary name, brought to stable storage, and renamed.
//!
//! - **A volume** gets its record with state `creating` first, then its data, then state `ready`: the commit point. Data
//!   without a record are foreign and not touched; a record `creating` says that what is there is ours and worth
//!   nothing; `ready` without data says that a customer's data were lost.
//! - **Its removal** sets state `removing`, then removes data, then the record.
//! - **An image** gets its record, then its data: the commit point is the rename of the data. A record without data is
//!   what a crash in between left, or a lost image, and in both cases the image may be brought again.
//!
//! - **A snapshot**, and a volume made from a snapshot or another volume, is a copy of the file, made as a volume is. It
//!   stands on the image that its source stands on, and on nothing else, so that each may go without the others. A copy
//!   takes time and space, and is one moment only while nobody writes: `qemu-img` locks the file as a hypervisor does, so
//!   that one of the two fails. What a guest has open is therefore refused by name; thin volumes (`lvm-thin`) can do it.
//!
//! The size of a volume is read from its data, never from its record: the hypervisor grows an attached volume, and knows
//! nothing of records.
//!
//! Before and after each look at the pool the marker is read: a file system that was not mounted, or was
//! replaced, has another marker or none, and then "it is not there" is not a fact but an error.

mod images;
mod pool;
mod record;
mod recover;
mod snapshots;
mod upload;
mod volumes;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cloud_domain::{ImageId, Mib, SnapshotId, VolumeId};
use cloud_image_probe::Limits;
use tokio::time::Instant;

pub use self::{
    pool::{Pool, PoolError},
    record::{ImageRecord, SnapshotRecord, VolumeRecord, VolumeState},
};
use crate::{
    adapters::{incoming::Incoming, qemu_img::QemuImg},
    core::{
        StorageError,
        backend::{FoundImage, FoundSnapshot, FoundVolume, ImageUpload, StorageBackend},
        model::{Image, ImageSpec, Owner, PoolName, PoolStatus, Snapshot, SnapshotSpec, Volume, VolumeSpec},
    },
};

/// How a directory pool is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The pool's name on this host.
    pub name: PoolName,
    /// Its directory.
    pub directory: PathBuf,
    /// Where this host remembers which pool it had there, apart from the pool itself.
    pub memory: PathBuf,
    /// How many `qemu-img` processes run at the same time.
    pub max_commands: usize,
    /// What the probe of an image may cost.
    pub probe: Limits,
    /// How long a start waits for another agent, such as its predecessor, to leave the pool.
    pub handover: Duration,
}

/// The kind, as heartbeats and errors say it.
pub const KIND: &str = "directory";

/// How long the pool's disk may take to answer a proof of health: less than a heartbeat waits.
const HEALTH_DEADLINE: Duration = Duration::from_secs(4);
/// How often a proof writes. Between, the marker and the space are enough: a write that has to reach the disk costs the
/// guests on it something.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// The backend.
pub struct Directory {
    pool: Arc<Pool>,
    qemu_img: QemuImg,
    probe: Limits,
    health: Arc<Health>,
}

#[derive(Default)]
struct Health {
    /// Held by a proof until the disk answers, so that a dead disk holds one thread of proofs and not all. Has the time of
    /// the last write that succeeded.
    written: Arc<tokio::sync::Mutex<Option<Instant>>>,
    /// When the proof that is under way began.
    began: Mutex<Option<Instant>>,
}

impl Health {
    fn began(&self) -> MutexGuard<'_, Option<Instant>> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hangs(&self) -> bool {
        self.began().is_some_and(|began| began.elapsed() >= HEALTH_DEADLINE)
    }
}

/// A proof under way.
struct Proof(Arc<Health>);

impl Drop for Proof {
    fn drop(&mut self) {
        *self.0.began() = None;
    }
}

impl Directory {
    /// Opens the pool, or makes it where its directory is empty and always was, and clears what a crash left half-done.
    /// It blocks on the disk.
    ///
    /// # Errors
    /// [`PoolError`] says why the directory is not the pool, and what to do.
    pub fn open(options: Options) -> Result<Self, PoolError> {
        let pool = Pool::open(options.name, &options.directory, &options.memory, options.handover)?;
        recover::recover(&pool)?;
        Ok(Self {
            pool: Arc::new(pool),
            qemu_img: QemuImg::new(options.max_commands),
            probe: options.probe,
            health: Arc::default(),
        })
    }

    /// Runs `work` where it may block, between two proofs that the pool is the right one. Refused while the disk is known
    /// not to answer: whatever waits for it holds a thread.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Pool) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        if self.health.hangs() {
            return Err(self.slow());
        }
        let pool = Arc::clone(&self.pool);
        let done = tokio::task::spawn_blocking(move || {
            pool.check()?;
            let result = work(&pool);
            pool.check()?;
            result
        });
        done.await.map_err(|broken| StorageError::backend("use the pool", broken))?
    }

    /// Has the pool write something, now and then, and says what it has. Given up after a while, and not begun while an
    /// earlier one hangs.
    async fn prove(
        &self,
        write: impl FnOnce(&Pool) -> Result<(), StorageError> + Send + 'static,
    ) -> Result<PoolStatus, StorageError> {
        let (pool, health) = (Arc::clone(&self.pool), Arc::clone(&self.health));
        let prove = async {
            let mut written = Arc::clone(&health.written).lock_owned().await;
            *health.began() = Some(Instant::now());
            let proof = Proof(health);
            let done = tokio::task::spawn_blocking(move || {
                let _proof = proof;
                pool.check()?;
                if written.is_none_or(|at| at.elapsed() >= WRITE_INTERVAL) {
                    // Until it succeeds, every proof tries.
                    *written = None;
                    write(&pool)?;
                    *written = Some(Instant::now());
                }
                pool.space()
            });
            done.await.map_err(|broken| StorageError::backend("prove the pool's health", broken))?
        };
        tokio::time::timeout(HEALTH_DEADLINE, prove).await.unwrap_or_else(|_| Err(self.slow()))
    }

    fn slow(&self) -> StorageError {
        self.pool.unhealthy(format!("its disk did not answer within {} s", HEALTH_DEADLINE.as_secs()))
    }
}

#[async_trait]
impl StorageBackend for Directory {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn pool(&self) -> &PoolName {
        &self.pool.name
    }

    async fn status(&self) -> Result<PoolStatus, StorageError> {
        self.prove(Pool::prove_writable).await
    }

    async fn space(&self) -> Result<PoolStatus, StorageError> {
        self.blocking(Pool::space).await
    }

    async fn find_volume(&self, id: VolumeId) -> Result<FoundVolume, StorageError> {
        self.blocking(move |pool| volumes::find(pool, id)).await
    }

    async fn create_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, StorageError> {
        self.create(spec, owner).await
    }

    async fn prepare_volume(&self, _volume: &Volume) -> Result<(), StorageError> {
        Ok(())
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), StorageError> {
        self.blocking(move |pool| volumes::remove(pool, id)).await
    }

    async fn grow_volume(&self, id: VolumeId, size: Mib) -> Result<Volume, StorageError> {
        self.grow(id, size).await
    }

    async fn volumes(&self) -> Result<Vec<Volume>, StorageError> {
        self.blocking(volumes::all).await
    }

    async fn find_snapshot(&self, id: SnapshotId) -> Result<FoundSnapshot, StorageError> {
        self.blocking(move |pool| snapshots::find(pool, id)).await
    }

    async fn create_snapshot(&self, spec: &SnapshotSpec, owner: &Owner) -> Result<Snapshot, StorageError> {
        self.take(spec, owner).await
    }

    async fn remove_snapshot(&self, id: SnapshotId) -> Result<(), StorageError> {
        self.blocking(move |pool| snapshots::remove(pool, id)).await
    }

    async fn snapshots(&self) -> Result<Vec<Snapshot>, StorageError> {
        self.blocking(snapshots::all).await
    }

    async fn users_of_image(&self, id: ImageId) -> Result<Vec<String>, StorageError> {
        self.blocking(move |pool| Ok([volumes::made_from(pool, id)?, snapshots::made_from(pool, id)?].concat())).await
    }

    async fn find_image(&self, id: ImageId) -> Result<FoundImage, StorageError> {
        self.blocking(move |pool| images::find(pool, id)).await
    }

    async fn begin_image(&self, spec: &ImageSpec) -> Result<Box<dyn ImageUpload>, StorageError> {
        let spec = *spec;
        let file = self.blocking(move |pool| Incoming::begin(&pool.images(), spec.id)).await?;
        Ok(Box::new(upload::Upload::new(Arc::clone(&self.pool), spec, file, self.probe)))
    }

    async fn remove_image(&self, id: ImageId) -> Result<(), StorageError> {
        self.blocking(move |pool| images::remove(pool, id)).await
    }

    async fn images(&self) -> Result<Vec<Image>, StorageError> {
        self.blocking(images::all).await
    }
}

#[cfg(test)]
mod tests;
