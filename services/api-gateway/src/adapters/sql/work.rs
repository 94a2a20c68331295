//! The work table: claiming, keeping and ending leases.
//!
//! On PostgreSQL nothing of that waits for the disk. What is committed after it is on the disk after it; so if the database's machine fails before, it
//! was the last that happened: work is claimed once more, or done once more, to the same end.

use std::time::Duration;

use cloud_core::{
    model::Timestamp,
    ports::{StoreError, WorkItem, WorkKind, WorkState},
};
use uuid::Uuid;

use super::{
    SqlStore, SqlTx,
    engine::{Row, Statement, statement},
    error::fault,
    error::from_database,
};

/// Work that may be claimed at the time in the place `$1`.
const FREE: &str = "due_at <= $1 AND (lease_until IS NULL OR lease_until < $1)";

/// Runs one statement that nobody waits for. On PostgreSQL it is a transaction of its own, without the calls that begin and end one.
async fn alone(store: &SqlStore, statement: Statement<'_>) -> Result<Vec<Row>, StoreError> {
    if store.inner.writer.is_some() {
        let mut tx = SqlTx::begin(store, true).await?;
        let rows = statement.fetch_all(tx.connection()?).await.map_err(from_database)?;
        tx.commit_quietly().await?;
        return Ok(rows);
    }
    let _place = store.background().await?;
    let mut connection = store.inner.writers.acquire().await.map_err(from_database)?;
    statement.fetch_all(&mut connection).await.map_err(from_database)
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

pub(super) async fn claim(store: &SqlStore, limit: u32, lease: Duration) -> Result<Vec<WorkItem>, StoreError> {
    let dialect = store.inner.dialect;
    if let Some(now) = dialect.process_time() {
        // Most wake-ups find nothing: the one writer is not troubled to see that.
        let mut reader = store.inner.readers.acquire().await.map_err(from_database)?;
        let peek = statement(format!("SELECT 1 FROM work WHERE {FREE} LIMIT 1")).bind(now.0);
        if peek.fetch_optional(&mut reader).await.map_err(from_database)?.is_none() {
            return Ok(Vec::new());
        }
    }
    let token = Uuid::new_v4();
    // Materialized: PostgreSQL might else choose anew for each row, and take more than the limit.
    let sql = format!(
        "WITH clock AS MATERIALIZED (SELECT {} AS now WHERE {}), \
         due AS MATERIALIZED (SELECT kind, id FROM work, clock WHERE {} ORDER BY due_at LIMIT $4{}) \
         UPDATE work SET lease_token = $1, lease_until = clock.now + $2, attempts = attempts + 1 FROM due, clock \
         WHERE work.kind = due.kind AND work.id = due.id \
         RETURNING work.kind, work.id, work.sequence, work.attempts - 1, work.trace",
        dialect.lease_time("$3"),
        dialect.unflushed(),
        FREE.replace("$1", "clock.now"),
        dialect.skip_locked("work")
    );
    let statement = statement(sql)
        .bind(token.to_string())
        .bind(micros(lease))
        .bind(dialect.process_time().map(|now| now.0))
        .bind(i64::from(limit));
    alone(store, statement).await?.iter().map(|row| item(row, token)).collect()
}

fn item(row: &Row, lease: Uuid) -> Result<WorkItem, StoreError> {
    let kind: &str = row.try_get(0).map_err(from_database)?;
    let id: &str = row.try_get(1).map_err(from_database)?;
    let attempts: i64 = row.try_get(3).map_err(from_database)?;
    Ok(WorkItem {
        kind: WorkKind::ALL
            .into_iter()
            .find(|k| k.as_str() == kind)
            .ok_or_else(|| fault(std::io::Error::other(format!("work of unknown kind `{kind}`"))))?,
        id: id.parse().map_err(fault)?,
        lease,
        sequence: row.try_get(2).map_err(from_database)?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        trace: row.try_get(4).map_err(from_database)?,
    })
}

pub(super) async fn renew(store: &SqlStore, item: &WorkItem, lease: Duration) -> Result<(), StoreError> {
    let dialect = store.inner.dialect;
    let sql = format!(
        "UPDATE work SET lease_until = {} + $2 WHERE kind = $3 AND id = $4 AND lease_token = $5 AND {} RETURNING 1",
        dialect.lease_time("$1"),
        dialect.unflushed()
    );
    let statement = statement(sql)
        .bind(dialect.process_time().map(|now| now.0))
        .bind(micros(lease))
        .bind(item.kind.as_str())
        .bind(item.id.to_string())
        .bind(item.lease.to_string());
    if alone(store, statement).await?.is_empty() { Err(StoreError::Stale) } else { Ok(()) }
}

pub(super) async fn finish(
    store: &SqlStore,
    item: &WorkItem,
    again: Option<Duration>,
    error: Option<&str>,
) -> Result<(), StoreError> {
    let dialect = store.inner.dialect;
    // What was enqueued since the claim stays due: its sequence is another one. What was only woken (its attempts are still those of the
    // claim) stays due too, unless the attempt failed: then it waits. Without $4 the sum is NULL: it rests.
    let sql = format!(
        "UPDATE work SET lease_token = NULL, lease_until = NULL, last_error = $1, \
         attempts = CASE WHEN $2 = 1 THEN attempts ELSE 0 END, \
         due_at = CASE WHEN sequence = $3 OR ($2 = 1 AND attempts > 0) THEN {} + $4 ELSE due_at END \
         WHERE kind = $6 AND id = $7 AND lease_token = $8 AND {} RETURNING 1",
        dialect.lease_time("$5"),
        dialect.unflushed()
    );
    let statement = statement(sql)
        .bind(error.map(ToOwned::to_owned))
        .bind(i64::from(error.is_some()))
        .bind(item.sequence)
        .bind(again.map(micros))
        .bind(dialect.process_time().map(|now| now.0))
        .bind(item.kind.as_str())
        .bind(item.id.to_string())
        .bind(item.lease.to_string());
    let held = !alone(store, statement).await?.is_empty();
    // The worker's loop looks anew: something may be due earlier than it thought. Other gateways' need not.
    store.inner.commits.send_modify(|n| *n += 1);
    if held { Ok(()) } else { Err(StoreError::Stale) }
}

pub(super) async fn status(store: &SqlStore) -> Result<(Option<Duration>, u64, Duration), StoreError> {
    let mut reader = store.inner.readers.acquire().await.map_err(from_database)?;
    let now = store.inner.dialect.now(&mut reader).await.map_err(from_database)?;
    let sql =
        "SELECT (SELECT MIN(due_at) FROM work WHERE due_at > $1), COUNT(*), MIN(due_at) FROM work WHERE due_at <= $1";
    let row = statement(sql).bind(now.0).fetch_one(&mut reader).await.map_err(from_database)?;
    let next: Option<i64> = row.try_get(0).map_err(from_database)?;
    let due: i64 = row.try_get(1).map_err(from_database)?;
    let oldest: Option<i64> = row.try_get(2).map_err(from_database)?;
    Ok((
        next.map(|at| Timestamp(at).since(now)),
        u64::try_from(due).unwrap_or(0),
        oldest.map_or(Duration::ZERO, |at| now.since(Timestamp(at))),
    ))
}

pub(super) async fn state(store: &SqlStore, kind: WorkKind, id: Uuid) -> Result<Option<WorkState>, StoreError> {
    let mut reader = store.inner.readers.acquire().await.map_err(from_database)?;
    let now = store.inner.dialect.now(&mut reader).await.map_err(from_database)?;
    let sql = "SELECT due_at, lease_until, attempts, last_error FROM work WHERE kind = $1 AND id = $2";
    let query = statement(sql).bind(kind.as_str()).bind(id.to_string());
    let Some(row) = query.fetch_optional(&mut reader).await.map_err(from_database)? else { return Ok(None) };
    let due: Option<i64> = row.try_get(0).map_err(from_database)?;
    let leased: Option<i64> = row.try_get(1).map_err(from_database)?;
    let attempts: i64 = row.try_get(2).map_err(from_database)?;
    Ok(Some(WorkState {
        due_in: due.map(|at| Timestamp(at).since(now)),
        is_under_way: leased.is_some_and(|until| until > now.0),
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        last_error: row.try_get(3).map_err(from_database)?,
    }))
}
