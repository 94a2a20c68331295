//! SQLite's one writer, and its group commit.
//!
//! # Theory of operation
//!
//! SQLite lets one transaction write at a time, and a commit costs a flush of the disk. One task therefore owns writing. It begins a real
//! transaction, lends the connection to whoever is next, each inside a savepoint of its own, and commits once for all of them: what came
//! while it was busy shares one flush. A borrower that fails or goes away loses its savepoint and nobody else's. Nobody is told that a
//! transaction is committed before the real one is.
//!
//! Two queues wait for the connection: callers, and work that nobody waits for. Callers go first, but not so long that work stands still.
//!
//! A loan always comes back: dropping it returns the connection, with the order to roll back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cloud_core::ports::StoreError;
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    checkpoint,
    engine::{Connection, DatabaseError, Pool, statement},
    error::from_database,
};

/// Transactions that wait, at most, in each queue; more wait to be queued.
const QUEUE: usize = 1024;
/// Transactions that share one flush at most.
const GROUP: usize = 64;
/// For how long others may join, at least and at most: the first one waits for all of them. Between these it is as long as the last flush took,
/// so that nobody waits much longer for others than for the disk.
const JOIN: (Duration, Duration) = (Duration::from_micros(250), Duration::from_millis(4));
/// Callers served before one piece of background work is.
const CALLERS_FIRST: usize = 8;

/// A transaction that waits for its turn.
type Turn = oneshot::Sender<Result<Loan, StoreError>>;

/// Where write transactions are asked for.
#[derive(Debug)]
pub(super) struct Writer {
    callers: mpsc::Sender<Turn>,
    background: mpsc::Sender<Turn>,
    /// The last revision that is committed.
    committed: watch::Receiver<i64>,
    /// The log is large: see [`checkpoint`].
    large: Arc<AtomicBool>,
    task: Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

/// The writer's connection, for one transaction.
#[derive(Debug)]
pub(super) struct Loan {
    connection: Option<Connection>,
    back: Option<oneshot::Sender<Returned>>,
    /// The transaction's revision.
    pub(super) revision: i64,
}

#[derive(Debug)]
struct Returned {
    connection: Connection,
    /// Who waits for the commit; none: roll back.
    commit: Option<oneshot::Sender<Result<(), StoreError>>>,
}

fn closed() -> StoreError {
    StoreError::Unavailable("the database is closed".into())
}

impl Writer {
    /// Writes through `pool`, which has one connection. `committed` is the last revision in the database.
    pub(super) fn start(pool: Pool, committed: i64) -> Self {
        let (callers, callers_queue) = mpsc::channel(QUEUE);
        let (background, background_queue) = mpsc::channel(QUEUE);
        let (done, committed_now) = watch::channel(committed);
        let (stop, stopped) = watch::channel(false);
        let queue = Queue { callers: callers_queue, background: background_queue, streak: 0 };
        let large = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(pool, queue, done, Arc::clone(&large), stopped));
        Self { callers, background, committed: committed_now, large, task: Mutex::new(Some(task)), stop }
    }

    /// Waits for a turn.
    pub(super) async fn begin(&self, background: bool) -> Result<Loan, StoreError> {
        let (turn, loan) = oneshot::channel();
        let queue = if background { &self.background } else { &self.callers };
        queue.send(turn).await.map_err(|_| closed())?;
        loan.await.map_err(|_| closed())?
    }

    /// The last revision that is committed.
    pub(super) fn committed(&self) -> i64 {
        *self.committed.borrow()
    }

    /// Copies the log through connections of `pool` until it is dropped.
    pub(super) fn copy_log(&self, pool: Pool) -> AbortOnDropHandle<()> {
        checkpoint::start(pool, self.committed.clone(), Arc::clone(&self.large))
    }

    /// Ends when the transactions under way have.
    pub(super) async fn close(&self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the writer of the database failed");
        }
    }
}

impl Loan {
    pub(super) fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        self.connection.as_mut().ok_or_else(closed)
    }

    /// Makes it durable.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        let (commit, committed) = oneshot::channel();
        self.give_back(Some(commit));
        committed.await.map_err(|_| closed())?
    }

    fn give_back(&mut self, commit: Option<oneshot::Sender<Result<(), StoreError>>>) {
        if let (Some(connection), Some(back)) = (self.connection.take(), self.back.take()) {
            // The writer waits for it; where it has failed, the connection is closed and with it the transaction.
            let _ = back.send(Returned { connection, commit });
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

struct Queue {
    callers: mpsc::Receiver<Turn>,
    background: mpsc::Receiver<Turn>,
    /// Callers served since the last background work.
    streak: usize,
}

impl Queue {
    async fn next(&mut self) -> Option<Turn> {
        if let Some(turn) = self.waiting() {
            return Some(turn);
        }
        tokio::select! {
            Some(turn) = self.callers.recv() => Some(turn),
            Some(turn) = self.background.recv() => Some(turn),
            else => None,
        }
    }

    fn waiting(&mut self) -> Option<Turn> {
        if self.streak < CALLERS_FIRST
            && let Ok(turn) = self.callers.try_recv()
        {
            self.streak += 1;
            return Some(turn);
        }
        self.streak = 0;
        self.background.try_recv().or_else(|_| self.callers.try_recv()).ok()
    }
}

async fn run(
    pool: Pool,
    mut queue: Queue,
    committed: watch::Sender<i64>,
    large: Arc<AtomicBool>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut join = JOIN.0;
    loop {
        let first = tokio::select! {
            turn = queue.next() => turn,
            _ = stopped.wait_for(|stop| *stop) => None,
        };
        let Some(first) = first else { return };
        if large.swap(false, Ordering::Relaxed)
            && let Err(error) = checkpoint::finish(&pool).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the database's log goes on growing");
        }
        let mut commits = Vec::new();
        let revision = *committed.borrow();
        match group(&pool, &mut queue, first, join, revision, &mut commits).await {
            Ok((last, flush)) => {
                join = flush.clamp(JOIN.0, JOIN.1);
                committed.send_replace(last);
                commits.into_iter().for_each(|commit| drop(commit.send(Ok(()))));
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, lost = commits.len(), "a commit failed");
                let failed = || StoreError::Unavailable(format!("the commit failed: {error}").into());
                commits.into_iter().for_each(|commit| drop(commit.send(Err(failed()))));
            }
        }
    }
}

/// One real transaction: lends the connection in turn, then commits. Answers with the last revision used, and how long the commit took.
async fn group(
    pool: &Pool,
    queue: &mut Queue,
    first: Turn,
    join: Duration,
    revision: i64,
    commits: &mut Vec<oneshot::Sender<Result<(), StoreError>>>,
) -> Result<(i64, Duration), DatabaseError> {
    let mut connection = match pool.begin("BEGIN IMMEDIATE").await {
        Ok((connection, _)) => connection,
        Err(error) => {
            let _ = first.send(Err(from_database(error)));
            return Ok((revision, Duration::ZERO));
        }
    };
    let (mut last, since) = (revision, Instant::now());
    let mut next = Some(first);
    while let Some(turn) = next.take() {
        // Used up even where it is rolled back: a gap does no harm.
        last += 1;
        let lent = lend(connection, turn, last).await?;
        connection = lent.connection;
        commits.extend(lent.commit);
        if commits.len() < GROUP && since.elapsed() < join {
            next = queue.waiting();
        }
    }
    if commits.is_empty() {
        return Ok((revision, Duration::ZERO));
    }
    let sql = "UPDATE counters SET value = $1 WHERE name = 'revision'";
    statement(sql).bind(last).execute(&mut connection).await?;
    let flushing = Instant::now();
    connection.commit().await?;
    Ok((last, flushing.elapsed()))
}

/// One borrower's part of the group. Where this fails the whole group has: the connection is closed with its transaction.
async fn lend(mut connection: Connection, turn: Turn, revision: i64) -> Result<Returned, DatabaseError> {
    connection.batch("SAVEPOINT one")?;
    let (back, returned) = oneshot::channel();
    let loan = Loan { connection: Some(connection), back: Some(back), revision };
    if let Err(refused) = turn.send(Ok(loan)) {
        // Nobody waits any more; dropping the loan brings the connection back.
        drop(refused);
    }
    let mut lent = returned.await.map_err(|_| DatabaseError::Closed)?;
    if lent.commit.is_none() {
        lent.connection.batch("ROLLBACK TO one")?;
    }
    lent.connection.batch("RELEASE one")?;
    Ok(lent)
}
