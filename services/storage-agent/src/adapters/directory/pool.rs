//! The pool's directory: its marker, its places, its space.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use cloud_domain::{ImageId, SnapshotId, VolumeId};
use rustix::fs::{FlockOperation, flock, statvfs};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::adapters::files;
use crate::core::{
    StorageError,
    model::{Format, PoolName, PoolStatus},
};

const MARKER: &str = "pool.json";
const MARKER_FORM: u32 = 1;
/// Everybody goes through to the files that they may read; only root sees what there is.
const DIRECTORY_MODE: u32 = 0o711;

/// Why a directory is not the pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// It has files and no marker.
    #[error(
        "`{}` is not empty and is not a pool (it has no {MARKER}): give an empty directory, or remove what is in it",
        .0.display()
    )]
    NotEmpty(PathBuf),
    /// This host had a pool there.
    #[error(
        "`{}` is empty, but this host had pool {pool_id} there: is its file system mounted? If the pool is gone for good, \
         remove `{}` and start again", directory.display(), memory.display()
    )]
    Gone {
        /// The pool's directory.
        directory: PathBuf,
        /// What was there.
        pool_id: Uuid,
        /// Where it is remembered.
        memory: PathBuf,
    },
    /// This host had another pool there.
    #[error(
        "`{}` is pool {found}, but this host had pool {expected} there: is the right file system mounted? If the pool was \
         replaced on purpose, remove `{}` and start again", directory.display(), memory.display()
    )]
    Another {
        /// The pool's directory.
        directory: PathBuf,
        /// What is there.
        found: Uuid,
        /// What was there.
        expected: Uuid,
        /// Where it is remembered.
        memory: PathBuf,
    },
    /// A marker is not what this release writes.
    #[error("`{}` is not a marker that this release can read", path.display())]
    Marker {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A part of it is missing.
    #[error("`{}` is missing from the pool: restore it, or give an empty directory", .0.display())]
    Incomplete(PathBuf),
    /// Another agent has it.
    #[error("the pool in `{}` is in use by another storage-agent: stop that one first", .0.display())]
    InUse(PathBuf),
    /// The disk fails.
    #[error("failed to open the pool at `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What a crash left cannot be cleared.
    #[error("failed to clear what was left half-done in the pool")]
    Recover(#[from] StorageError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    form: u32,
    pool_id: Uuid,
}

/// A pool's directory, proved to be the one that this host knows.
#[derive(Debug)]
pub struct Pool {
    /// The pool's name on this host.
    pub name: PoolName,
    marker: Marker,
    directory: PathBuf,
    /// Keeps other agents out as long as it is open.
    _lock: File,
}

impl Pool {
    /// Opens the pool in `directory`, or makes it where the directory is empty and `memory` remembers none there. Waits as
    /// long as `handover` for another agent to leave it.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn open(name: PoolName, directory: &Path, memory: &Path, handover: Duration) -> Result<Self, PoolError> {
        make_directory(directory)?;
        let path = directory.join(MARKER);
        let marker = match (read_marker(&path)?, read_marker(memory)?) {
            (Some(found), Some(expected)) if found != expected => {
                return Err(PoolError::Another {
                    directory: directory.to_owned(),
                    found: found.pool_id,
                    expected: expected.pool_id,
                    memory: memory.to_owned(),
                });
            }
            (Some(found), _) => found,
            (None, Some(expected)) => {
                let (directory, memory) = (directory.to_owned(), memory.to_owned());
                return Err(PoolError::Gone { directory, pool_id: expected.pool_id, memory });
            }
            (None, None) => create(directory)?,
        };
        for part in [volumes(directory), images(directory)] {
            if !part.is_dir() {
                return Err(PoolError::Incomplete(part));
            }
        }
        // Pools of earlier releases have none.
        make_directory(&snapshots(directory))?;
        if let Some(parent) = memory.parent() {
            make_directory(parent)?;
        }
        write_marker(memory, marker)?;
        let lock = lock(directory, &path, handover)?;
        warn_of_closed_ways(directory);
        Ok(Self { name, marker, directory: directory.to_owned(), _lock: lock })
    }

    /// Proves that the directory is still the pool that was opened.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        match read_marker(&self.directory.join(MARKER)) {
            Ok(Some(marker)) if marker == self.marker => Ok(()),
            Ok(Some(other)) => {
                Err(self.unhealthy(format!("its marker says {}, not {}", other.pool_id, self.marker.pool_id)))
            }
            Ok(None) => Err(self.unhealthy(format!("`{}` has no marker any more", self.directory.display()))),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                Err(self.unhealthy(format!("its marker cannot be read: {cause}")))
            }
        }
    }

    /// Proves that the disk takes a small file.
    pub(super) fn prove_writable(&self) -> Result<(), StorageError> {
        let probe = files::Temporary::name(&self.directory, "probe");
        let write = || {
            let mut file = probe.create()?;
            file.write_all(b"thecloud")?;
            file.sync_all()
        };
        write().map_err(|error| self.unhealthy(format!("it cannot be written to: {error}")))
    }

    /// What the file system has.
    pub(super) fn space(&self) -> Result<PoolStatus, StorageError> {
        let fs = statvfs(&self.directory).map_err(|error| self.unhealthy(format!("its space is unknown: {error}")))?;
        Ok(PoolStatus {
            name: self.name.clone(),
            pool_id: self.marker.pool_id.to_string(),
            total_bytes: fs.f_blocks.saturating_mul(fs.f_frsize),
            free_bytes: fs.f_bavail.saturating_mul(fs.f_frsize),
            thin: None,
        })
    }

    pub(super) fn unhealthy(&self, reason: String) -> StorageError {
        StorageError::PoolNotHealthy { pool: self.name.clone(), reason }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn volumes(&self) -> PathBuf {
        volumes(&self.directory)
    }

    pub(super) fn images(&self) -> PathBuf {
        images(&self.directory)
    }

    pub(super) fn volume(&self, id: VolumeId) -> PathBuf {
        self.volumes().join(format!("{id}.qcow2"))
    }

    pub(super) fn volume_record(&self, id: VolumeId) -> PathBuf {
        self.volumes().join(format!("{id}.json"))
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        snapshots(&self.directory)
    }

    pub(super) fn snapshot(&self, id: SnapshotId) -> PathBuf {
        self.snapshots().join(format!("{id}.qcow2"))
    }

    pub(super) fn snapshot_record(&self, id: SnapshotId) -> PathBuf {
        self.snapshots().join(format!("{id}.json"))
    }

    pub(super) fn image(&self, id: ImageId, format: Format) -> PathBuf {
        self.images().join(format!("{id}.{format}"))
    }

    pub(super) fn image_record(&self, id: ImageId) -> PathBuf {
        self.images().join(format!("{id}.json"))
    }
}

/// Keeps other agents out. One that is about to end finishes its work first.
#[expect(
    clippy::disallowed_methods,
    reason = "runs on a thread for blocking work, and flock(2) has no deadline of its own"
)]
fn lock(directory: &Path, marker: &Path, handover: Duration) -> Result<File, PoolError> {
    let file = File::open(marker).map_err(at(marker))?;
    let deadline = Instant::now() + handover;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(PoolError::InUse(directory.to_owned())),
            Err(error) => return Err(at(marker)(error.into())),
        }
    }
}

fn volumes(directory: &Path) -> PathBuf {
    directory.join("volumes")
}

fn snapshots(directory: &Path) -> PathBuf {
    directory.join("snapshots")
}

fn images(directory: &Path) -> PathBuf {
    directory.join("images")
}

fn at(path: &Path) -> impl Fn(io::Error) -> PoolError {
    move |source| PoolError::Io { path: path.to_owned(), source }
}

fn make_directory(path: &Path) -> Result<(), PoolError> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(at(path))
}

fn read_marker(path: &Path) -> Result<Option<Marker>, PoolError> {
    let Some(bytes) = files::read(path).map_err(at(path))? else { return Ok(None) };
    let marker: Marker =
        serde_json::from_slice(&bytes).map_err(|source| PoolError::Marker { path: path.to_owned(), source })?;
    if marker.form != MARKER_FORM {
        let source = serde::de::Error::custom(format!("its form is {}, not {MARKER_FORM}", marker.form));
        return Err(PoolError::Marker { path: path.to_owned(), source });
    }
    Ok(Some(marker))
}

fn write_marker(path: &Path, marker: Marker) -> Result<(), PoolError> {
    let write = || files::write(path, &serde_json::to_vec(&marker)?, files::SHARED);
    write().map_err(at(path))
}

/// Makes a pool in a directory that is empty, or where making one was cut off. The marker comes last.
fn create(directory: &Path) -> Result<Marker, PoolError> {
    let begun =
        |name: &str| matches!(name, "volumes" | "images" | "snapshots" | "lost+found") || files::is_temporary(name);
    let names = |dir: &Path| files::names(dir).map_err(at(dir));
    if !names(directory)?.iter().all(|name| begun(name)) {
        return Err(PoolError::NotEmpty(directory.to_owned()));
    }
    for part in [volumes(directory), images(directory), snapshots(directory)] {
        make_directory(&part)?;
        fs::set_permissions(&part, fs::Permissions::from_mode(DIRECTORY_MODE)).map_err(at(&part))?;
        if !names(&part)?.is_empty() {
            return Err(PoolError::NotEmpty(part));
        }
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE)).map_err(at(directory))?;
    let marker = Marker { form: MARKER_FORM, pool_id: Uuid::new_v4() };
    write_marker(&directory.join(MARKER), marker)?;
    tracing::info!(directory = %directory.display(), pool_id = %marker.pool_id, "made a new pool");
    Ok(marker)
}

/// The hypervisor's user has to get through every directory above the pool.
fn warn_of_closed_ways(directory: &Path) {
    for above in directory.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        let closed = fs::metadata(above).is_ok_and(|m| m.permissions().mode() & 0o001 == 0);
        if closed {
            tracing::warn!(
                path = %above.display(),
                "only its owner may enter this directory: a hypervisor that runs as another user cannot reach the \
                 pool (chmod o+x)"
            );
        }
    }
}
