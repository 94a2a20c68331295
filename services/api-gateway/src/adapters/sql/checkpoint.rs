//! Copying SQLite's log into its file, beside the commits.
//!
//! # Theory of operation
//!
//! A commit appends to the log (WAL) and flushes it. Sooner or later what the log holds must be copied into the file, so that the log can begin anew;
//! SQLite would do that within the commit that fills a thousand pages, and whoever waits for that one waits for several flushes. Here a connection
//! of its own copies twice a second, in passing (PASSIVE): it waits for nobody, and nobody waits for it.
//!
//! While the writer goes on without a pause there is always a page that is not copied yet, and the log would never begin anew. Where it has grown
//! large the writer is therefore told to finish the copy itself between two groups ([`finish`]), which is short, since most of it is copied already.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::engine::{DatabaseError, Pool, statement};

/// How often.
const EVERY: Duration = Duration::from_millis(500);
/// Pages of 4 KiB in the log from which on the writer is asked to finish.
const LARGE: i64 = 16_384;
/// Waits for a tenth of a second for readers that still need the log; else it is tried again.
const FINISH: &str = "PRAGMA busy_timeout = 100; PRAGMA wal_checkpoint(RESTART); PRAGMA busy_timeout = 10000;";

/// Copies until it is dropped. `committed` changes with every commit; `large` is set when the writer shall [`finish`].
pub(super) fn start(pool: Pool, committed: watch::Receiver<i64>, large: Arc<AtomicBool>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(run(pool, committed, large)))
}

/// Copies what is left with the writer's own connection, so that the log begins anew with the next commit.
pub(super) async fn finish(writer: &Pool) -> Result<(), DatabaseError> {
    writer.acquire().await?.batch_apart(FINISH).await
}

async fn run(pool: Pool, mut committed: watch::Receiver<i64>, large: Arc<AtomicBool>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while committed.changed().await.is_ok() {
        ticks.tick().await;
        committed.mark_unchanged();
        match copy(&pool).await {
            Ok(pages) if pages >= LARGE => large.store(true, Ordering::Relaxed),
            Ok(_) | Err(DatabaseError::Closed) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the database's log was not copied into its file"
                );
            }
        }
    }
}

/// Answers with how many pages the log has.
async fn copy(pool: &Pool) -> Result<i64, DatabaseError> {
    let mut connection = pool.acquire().await?;
    let mut checkpoint = statement("PRAGMA wal_checkpoint(PASSIVE)").fetch_all_apart(&mut connection).await?;
    checkpoint.pop().ok_or(DatabaseError::NoRow)?.try_get(1)
}
