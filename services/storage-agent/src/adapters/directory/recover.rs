//! What the start clears: temporary files, and volumes whose creation or removal was begun and not finished. Nobody was
//! told that the former exist, and the latter were ordered away. A process may still have such a volume open; then it
//! stays for later.

use std::path::Path;

use cloud_service_kit::error::chain;

use super::{
    files,
    pool::Pool,
    record::{Record as _, VolumeRecord, VolumeState},
    volumes,
};
use crate::core::StorageError;

pub(super) fn recover(pool: &Pool) -> Result<(), StorageError> {
    for directory in [pool.directory().to_owned(), pool.volumes(), pool.images()] {
        remove_temporary(&directory)?;
    }
    for id in volumes::recorded(pool)? {
        let record = match VolumeRecord::read(&pool.volume_record(id), id) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                // One damaged record must not keep a host's other volumes away; whoever asks for it gets the error.
                tracing::error!(volume_id = %id, error = %chain(&error), "failed to read a record");
                continue;
            }
        };
        if record.state == VolumeState::Ready {
            continue;
        }
        match volumes::remove(pool, id) {
            Ok(()) => tracing::info!(volume_id = %id, state = ?record.state, "cleared an unfinished volume"),
            Err(error) => {
                tracing::warn!(volume_id = %id, error = %chain(&error), "failed to clear an unfinished volume");
            }
        }
    }
    Ok(())
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
