//! Extending the thin pool while its group has room, before it is full.

use std::sync::{Arc, PoisonError};

use cloud_service_kit::error::chain;

use super::{
    LvmThin,
    commands::{self, Lvm},
    open::LvmPlace,
    report::Report,
};
use crate::core::StorageError;

/// From here on the pool is extended.
const THRESHOLD_PERMILLE: u32 = 750;
/// By this part of what it has.
const STEP: u64 = 5;

/// What there is to extend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Extents of data.
    pub(super) extents: u64,
    /// Bytes of metadata.
    pub(super) metadata: u64,
}

/// What a report asks for, within the room that the group has.
pub(super) fn step(report: &Report, place: &LvmPlace) -> Step {
    let (Some(pool), extent, free) = (report.pool(place), report.extent_size().max(1), report.free_extents()) else {
        return Step { extents: 0, metadata: 0 };
    };
    let full = |permille: Option<u32>| permille.is_some_and(|p| p >= THRESHOLD_PERMILLE);
    let part = |bytes: u64| (bytes / STEP).div_ceil(extent).max(1);
    // Metadata first: a pool whose metadata are full stops, whatever room it has. Its spare copy grows with it.
    let metadata = if full(pool.metadata_permille) && free >= 2 { part(pool.metadata_size).min(free / 2) } else { 0 };
    let left = free - 2 * metadata;
    let extents = if full(pool.data_permille) { part(pool.size).min(left) } else { 0 };
    Step { extents, metadata: metadata * extent }
}

impl LvmThin {
    /// Has the pool extended where it is getting full, without waiting for it.
    pub(super) fn extend_if_needed(&self, report: &Report) {
        let step = step(report, &self.place);
        if step == (Step { extents: 0, metadata: 0 }) {
            return;
        }
        // One at a time: what it does shows in the next report.
        let Ok(turn) = Arc::clone(&self.extending).try_lock_owned() else { return };
        let (lvm, place, stuck) = (Arc::clone(&self.lvm), self.place.clone(), Arc::clone(&self.stuck));
        tokio::spawn(async move {
            let done = extend(&lvm, &place, step).await;
            let mut stuck = stuck.lock().unwrap_or_else(PoisonError::into_inner);
            match done {
                Ok(()) => {
                    *stuck = None;
                    tracing::info!(pool = %place, extents = step.extents, metadata_bytes = step.metadata, "extended the thin pool");
                }
                Err(error) => {
                    let why = chain(&error);
                    if stuck.as_ref() != Some(&why) {
                        tracing::error!(pool = %place, error = why, "the thin pool is getting full and cannot be extended");
                        *stuck = Some(why);
                    }
                }
            }
            drop(turn);
        });
    }
}

async fn extend(lvm: &Lvm, place: &LvmPlace, step: Step) -> Result<(), StorageError> {
    if step.metadata > 0 {
        lvm.run("extend the pool's metadata", &commands::extend_metadata(place, step.metadata)).await?;
    }
    if step.extents > 0 {
        lvm.run("extend the pool", &commands::extend_pool(place, step.extents)).await?;
    }
    Ok(())
}
