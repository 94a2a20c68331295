//! The work table: claiming, keeping and ending leases.

use std::time::Duration;

use cloud_core::{
    model::Timestamp,
    ports::{StoreError, WorkItem, WorkKind, WorkState},
};
use sqlx::{AssertSqlSafe, Row, any::AnyRow};
use uuid::Uuid;

use super::{SqlStore, SqlTx, error::fault, error::from_sqlx};

const FREE: &str = "due_at <= $1 AND (lease_until IS NULL OR lease_until < $1)";

pub(super) async fn claim(store: &SqlStore, limit: u32, lease: Duration) -> Result<Vec<WorkItem>, StoreError> {
    // Most wake-ups find nothing: only a reader is troubled to see that.
    let mut reader = store.inner.readers.acquire().await.map_err(from_sqlx)?;
    let now = store.inner.dialect.now(&mut reader).await.map_err(from_sqlx)?;
    let peek = format!("SELECT 1 FROM work WHERE {FREE} LIMIT 1");
    let any = sqlx::query(AssertSqlSafe(peek)).bind(now.0).fetch_optional(&mut *reader).await.map_err(from_sqlx)?;
    drop(reader);
    if any.is_none() {
        return Ok(Vec::new());
    }
    let mut tx = SqlTx::begin(store, true).await?;
    let token = Uuid::new_v4();
    // Materialized: PostgreSQL might else choose anew for each row, and take more than the limit.
    let sql = format!(
        "WITH due AS MATERIALIZED (SELECT kind, id FROM work WHERE {} ORDER BY due_at LIMIT $4{}) \
         UPDATE work SET lease_token = $1, lease_until = $2, attempts = attempts + 1 FROM due \
         WHERE work.kind = due.kind AND work.id = due.id \
         RETURNING work.kind, work.id, work.sequence, work.attempts - 1, work.trace",
        FREE.replace("$1", "$3"),
        store.inner.dialect.skip_locked()
    );
    let now = tx.now();
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(token.to_string())
        .bind(now.plus(lease).0)
        .bind(now.0)
        .bind(i64::from(limit));
    let rows = query.fetch_all(tx.connection()?).await.map_err(from_sqlx)?;
    let items = rows.iter().map(|row| item(row, token)).collect::<Result<Vec<_>, _>>()?;
    tx.commit_quietly().await?;
    Ok(items)
}

fn item(row: &AnyRow, lease: Uuid) -> Result<WorkItem, StoreError> {
    let kind: &str = row.try_get(0).map_err(from_sqlx)?;
    let id: &str = row.try_get(1).map_err(from_sqlx)?;
    let attempts: i64 = row.try_get(3).map_err(from_sqlx)?;
    Ok(WorkItem {
        kind: WorkKind::ALL
            .into_iter()
            .find(|k| k.as_str() == kind)
            .ok_or_else(|| fault(std::io::Error::other(format!("work of unknown kind `{kind}`"))))?,
        id: id.parse().map_err(fault)?,
        lease,
        sequence: row.try_get(2).map_err(from_sqlx)?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        trace: row.try_get(4).map_err(from_sqlx)?,
    })
}

pub(super) async fn renew(store: &SqlStore, item: &WorkItem, lease: Duration) -> Result<(), StoreError> {
    let mut tx = SqlTx::begin(store, true).await?;
    let until = tx.now().plus(lease);
    let sql = "UPDATE work SET lease_until = $1 WHERE kind = $2 AND id = $3 AND lease_token = $4";
    let query =
        sqlx::query(sql).bind(until.0).bind(item.kind.as_str()).bind(item.id.to_string()).bind(item.lease.to_string());
    let kept = query.execute(tx.connection()?).await.map_err(from_sqlx)?.rows_affected() == 1;
    tx.commit_quietly().await?;
    if kept { Ok(()) } else { Err(StoreError::Stale) }
}

pub(super) async fn finish(
    store: &SqlStore,
    item: &WorkItem,
    again: Option<Duration>,
    error: Option<&str>,
) -> Result<(), StoreError> {
    let mut tx = SqlTx::begin(store, true).await?;
    let now = tx.now();
    // What was enqueued since the claim stays due: its sequence is another one. What was only woken (its attempts are still those of the
    // claim) stays due too, unless the attempt failed: then it waits.
    let sql = "UPDATE work SET lease_token = NULL, lease_until = NULL, last_error = $1, \
               attempts = CASE WHEN $2 = 1 THEN attempts ELSE 0 END, \
               due_at = CASE WHEN sequence = $3 OR ($2 = 1 AND attempts > 0) THEN $4 ELSE due_at END \
               WHERE kind = $5 AND id = $6 AND lease_token = $7";
    let query = sqlx::query(sql)
        .bind(error.map(ToOwned::to_owned))
        .bind(i64::from(error.is_some()))
        .bind(item.sequence)
        .bind(again.map(|d| now.plus(d).0))
        .bind(item.kind.as_str())
        .bind(item.id.to_string())
        .bind(item.lease.to_string());
    let held = query.execute(tx.connection()?).await.map_err(from_sqlx)?.rows_affected() == 1;
    tx.commit_quietly().await?;
    // The worker's loop looks anew: something may be due earlier than it thought. Other gateways' need not.
    store.inner.commits.send_modify(|n| *n += 1);
    if held { Ok(()) } else { Err(StoreError::Stale) }
}

pub(super) async fn status(store: &SqlStore) -> Result<(Option<Duration>, u64, Duration), StoreError> {
    let mut reader = store.inner.readers.acquire().await.map_err(from_sqlx)?;
    let now = store.inner.dialect.now(&mut reader).await.map_err(from_sqlx)?;
    let sql =
        "SELECT (SELECT MIN(due_at) FROM work WHERE due_at > $1), COUNT(*), MIN(due_at) FROM work WHERE due_at <= $1";
    let row = sqlx::query(sql).bind(now.0).fetch_one(&mut *reader).await.map_err(from_sqlx)?;
    let next: Option<i64> = row.try_get(0).map_err(from_sqlx)?;
    let due: i64 = row.try_get(1).map_err(from_sqlx)?;
    let oldest: Option<i64> = row.try_get(2).map_err(from_sqlx)?;
    Ok((
        next.map(|at| Timestamp(at).since(now)),
        u64::try_from(due).unwrap_or(0),
        oldest.map_or(Duration::ZERO, |at| now.since(Timestamp(at))),
    ))
}

pub(super) async fn state(store: &SqlStore, kind: WorkKind, id: Uuid) -> Result<Option<WorkState>, StoreError> {
    let mut reader = store.inner.readers.acquire().await.map_err(from_sqlx)?;
    let now = store.inner.dialect.now(&mut reader).await.map_err(from_sqlx)?;
    let sql = "SELECT due_at, lease_until, attempts, last_error FROM work WHERE kind = $1 AND id = $2";
    let query = sqlx::query(sql).bind(kind.as_str()).bind(id.to_string());
    let Some(row) = query.fetch_optional(&mut *reader).await.map_err(from_sqlx)? else { return Ok(None) };
    let due: Option<i64> = row.try_get(0).map_err(from_sqlx)?;
    let leased: Option<i64> = row.try_get(1).map_err(from_sqlx)?;
    let attempts: i64 = row.try_get(2).map_err(from_sqlx)?;
    Ok(Some(WorkState {
        due_in: due.map(|at| Timestamp(at).since(now)),
        is_under_way: leased.is_some_and(|until| until > now.0),
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        last_error: row.try_get(3).map_err(from_sqlx)?,
    }))
}
