//! The hub of a kind: one task that looks for changes on behalf of everybody who watches.
//!
//! It lives while there is somebody. The position is where the next batch begins; it moves together with what is sent, so that whoever
//! joins knows which revision its first batch comes after.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{
        broadcast::{self, Receiver, Sender, WeakSender},
        watch,
    },
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::source::Source;
use crate::ports::{Changed, StoreError};

/// The least time between two looks: what is committed meanwhile is found together.
const PAUSE: Duration = Duration::from_millis(15);
/// The longest: commits of other gateways may come without a wake-up.
const TICK: Duration = Duration::from_secs(1);

/// Changes that were found together.
#[derive(Debug)]
pub(super) struct Batch<T> {
    /// Up to which revision these are all.
    pub(super) upto: u64,
    /// In the order of revisions.
    pub(super) rows: Arc<[Changed<T>]>,
    /// Rows whose change is not in the store, and has no revision.
    pub(super) unwritten: Arc<[T]>,
}

impl<T> Clone for Batch<T> {
    fn clone(&self) -> Self {
        Self { upto: self.upto, rows: Arc::clone(&self.rows), unwritten: Arc::clone(&self.unwritten) }
    }
}

/// See the module.
pub(super) struct Hub<F, T> {
    shared: Arc<Shared<F, T>>,
    commits: watch::Receiver<u64>,
}

struct Shared<F, T> {
    source: F,
    /// Batches that wait for the slowest watcher at most.
    buffer: usize,
    live: Mutex<Option<Live<T>>>,
}

/// A hub's task. The sender is the task's own: when it ends, however it ends, every watcher hears so.
struct Live<T> {
    sender: WeakSender<Batch<T>>,
    position: u64,
    _task: AbortOnDropHandle<()>,
}

impl<F: Source> Hub<F, F::Row> {
    pub(super) fn new(source: F, commits: watch::Receiver<u64>, buffer: usize) -> Self {
        let shared = Shared { source, buffer: buffer.max(1), live: Mutex::default() };
        Self { shared: Arc::new(shared), commits }
    }

    pub(super) fn source(&self) -> &F {
        &self.shared.source
    }

    /// Joins: what is received comes after the revision that is returned, and is everything that does.
    pub(super) async fn join(&self) -> Result<(Receiver<Batch<F::Row>>, u64), StoreError> {
        if let Some(joined) = join(self.shared.lock().as_ref()) {
            return Ok(joined);
        }
        let position = self.shared.source.revision().await?;
        // Somebody else may have been faster, and would miss what is taken for known here.
        if let Some(joined) = join(self.shared.lock().as_ref()) {
            return Ok(joined);
        }
        // How things stand now is no change.
        self.shared.source.unwritten().await?;
        let mut live = self.shared.lock();
        if let Some(joined) = join(live.as_ref()) {
            return Ok(joined);
        }
        let (sender, receiver) = broadcast::channel(self.shared.buffer);
        let weak = sender.downgrade();
        let task = tokio::spawn(run(Arc::clone(&self.shared), sender, self.commits.clone(), position));
        *live = Some(Live { sender: weak, position, _task: AbortOnDropHandle::new(task) });
        Ok((receiver, position))
    }
}

impl<F, T> Drop for Hub<F, T> {
    fn drop(&mut self) {
        // The task holds what holds its handle.
        self.shared.lock().take();
    }
}

impl<F, T> Shared<F, T> {
    fn lock(&self) -> MutexGuard<'_, Option<Live<T>>> {
        // Every critical section leaves it whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves on, and tells what was found.
    fn publish(&self, sender: &Sender<Batch<T>>, batch: Batch<T>) {
        let mut live = self.lock();
        if let Some(live) = live.as_mut() {
            live.position = batch.upto;
        }
        if !batch.rows.is_empty() || !batch.unwritten.is_empty() {
            // Nobody may be there any more, which the next look finds.
            let _ = sender.send(batch);
        }
    }

    /// Whether nobody is left: then the hub is no more.
    fn ended(&self, sender: &Sender<Batch<T>>) -> bool {
        let mut live = self.lock();
        let ended = sender.receiver_count() == 0;
        if ended {
            *live = None;
        }
        ended
    }
}

fn join<T>(live: Option<&Live<T>>) -> Option<(Receiver<Batch<T>>, u64)> {
    let live = live?;
    Some((live.sender.upgrade()?.subscribe(), live.position))
}

async fn run<F: Source>(
    shared: Arc<Shared<F, F::Row>>,
    sender: Sender<Batch<F::Row>>,
    mut commits: watch::Receiver<u64>,
    mut position: u64,
) {
    let mut next_look = Instant::now();
    loop {
        commits.mark_unchanged();
        let unwritten = next_look <= Instant::now();
        if unwritten {
            next_look = Instant::now() + TICK;
        }
        match look(&shared, &sender, &mut position, unwritten).await {
            Ok(()) => sleep(PAUSE).await,
            // Nothing is lost: it is looked for again from the same position.
            Err(error) => {
                tracing::debug!(%error, "cannot look for changes now");
                sleep(TICK).await;
            }
        }
        if shared.ended(&sender) {
            return;
        }
        tokio::select! {
            Ok(()) = commits.changed() => {}
            () = sleep(TICK) => {}
        }
        if shared.ended(&sender) {
            return;
        }
    }
}

/// Tells everything that came after `position`, and moves it there.
async fn look<F: Source>(
    shared: &Shared<F, F::Row>,
    sender: &Sender<Batch<F::Row>>,
    position: &mut u64,
    unwritten: bool,
) -> Result<(), StoreError> {
    loop {
        let found = shared.source.after(*position).await?;
        let (upto, last) = (found.upto.max(*position), found.rows.is_empty());
        *position = upto;
        shared.publish(sender, Batch { upto, rows: found.rows.into(), unwritten: Arc::default() });
        if last {
            break;
        }
    }
    if unwritten {
        let rows = shared.source.unwritten().await?;
        shared.publish(sender, Batch { upto: *position, rows: Arc::default(), unwritten: rows.into() });
    }
    Ok(())
}
