//! What the start clears: temporary files, and volumes and snapshots whose creation or removal was begun and not finished. Nobody was
//! told that the former exist, and the latter were ordered away. A process may still have such a volume open; then it
//! stays for later.

use std::{fmt::Display, path::Path};

use cloud_service_kit::error::chain;

use super::{
    pool::Pool,
    record::{Record as _, SnapshotRecord, VolumeRecord, VolumeState},
    snapshots, volumes,
};
use crate::{adapters::files, core::StorageError};

pub(super) fn recover(pool: &Pool) -> Result<(), StorageError> {
    for directory in [pool.directory().to_owned(), pool.volumes(), pool.images(), pool.snapshots()] {
        remove_temporary(&directory)?;
    }
    for id in volumes::recorded(pool)? {
        let state = VolumeRecord::read(&pool.volume_record(id), id).map(|record| record.map(|r| r.state));
        clear("volume", &id, state, || volumes::remove(pool, id));
    }
    for id in snapshots::recorded(pool)? {
        let state = SnapshotRecord::read(&pool.snapshot_record(id), id).map(|record| record.map(|r| r.state));
        clear("snapshot", &id, state, || snapshots::remove(pool, id));
    }
    Ok(())
}

fn clear(
    what: &str,
    id: &dyn Display,
    state: Result<Option<VolumeState>, StorageError>,
    remove: impl FnOnce() -> Result<(), StorageError>,
) {
    let state = match state {
        Ok(None | Some(VolumeState::Ready)) => return,
        Ok(Some(state)) => state,
        Err(error) => {
            // One damaged record must not keep a host's other volumes away; whoever asks for it gets the error.
            tracing::error!(what, %id, error = %chain(&error), "failed to read a record");
            return;
        }
    };
    match remove() {
        Ok(()) => tracing::info!(what, %id, ?state, "cleared what was unfinished"),
        Err(error) => tracing::warn!(what, %id, error = %chain(&error), "failed to clear what is unfinished"),
    }
}

fn remove_temporary(directory: &Path) -> Result<(), StorageError> {
    let failed = |e| StorageError::backend(format!("clear `{}`", directory.display()), e);
    for name in files::names(directory).map_err(failed)? {
        if files::is_temporary(&name) {
            files::remove(&directory.join(&name)).map_err(failed)?;
            tracing::info!(name, "removed a temporary file");
        }
    }
    Ok(())
}
