//! Removing what was kept long enough.
//!
//! What goes takes its revision into the row `purged` of `meta`, in the same transaction: a watcher that is older cannot be told what it was.

use cloud_core::{
    model::{Resource, Timestamp},
    ports::StoreError,
};
use uuid::Uuid;

use super::{
    changes::event_revision,
    engine::{Connection, Row, statement},
    error::fault,
    error::from_database,
    rows,
};

/// The name in `meta` of the highest purged revision.
const PURGED: &str = "purged";

pub(super) async fn deleted<R: Resource>(
    connection: &mut Connection,
    before: Timestamp,
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<R>, StoreError> {
    let sql = format!(
        "SELECT body FROM {} WHERE deleted_at IS NOT NULL AND deleted_at < $1 AND (deleted_at, id) > ($2, $3) \
         ORDER BY deleted_at, id LIMIT $4",
        R::TABLE
    );
    let (at, id) = after.map_or((i64::MIN, String::new()), |(at, id)| (at.0, id.to_string()));
    let query = statement(sql).bind(before.0).bind(at).bind(id).bind(i64::from(limit));
    query.fetch_all(connection).await.map_err(from_database)?.iter().map(rows::body).collect()
}

pub(super) async fn purged(connection: &mut Connection) -> Result<u64, StoreError> {
    let query = statement("SELECT value FROM meta WHERE name = $1").bind(PURGED);
    match query.fetch_optional(connection).await.map_err(from_database)? {
        Some(row) => row.try_get::<String>(0).map_err(from_database)?.parse().map_err(fault),
        None => Ok(0),
    }
}

pub(super) async fn purge<R: Resource>(connection: &mut Connection, row: &R) -> Result<bool, StoreError> {
    let (id, kind) = (row.meta().id.to_string(), R::KIND.as_str());
    let sql = "DELETE FROM work WHERE kind = $1 AND id = $2 AND due_at IS NULL AND lease_token IS NULL";
    statement(sql).bind(kind).bind(id.clone()).execute(connection).await.map_err(from_database)?;
    let sql = format!(
        "DELETE FROM {} WHERE id = $1 AND version = $2 AND deleted_at IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM work WHERE work.kind = $3 AND work.id = $1) RETURNING revision",
        R::TABLE
    );
    let version = i64::try_from(row.meta().version).map_err(fault)?;
    let query = statement(sql).bind(id).bind(version).bind(kind);
    let gone = query.fetch_optional(connection).await.map_err(from_database)?;
    match gone {
        Some(row) => {
            remember(connection, revision(&row)?).await?;
            Ok(true)
        }
        None => Ok(false),
    }
}

pub(super) async fn events(connection: &mut Connection, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
    let sql = "DELETE FROM events WHERE revision IN (SELECT revision FROM events WHERE at < $1 ORDER BY at, revision LIMIT $2) \
               RETURNING revision";
    let query = statement(sql).bind(before.0).bind(i64::from(limit));
    let gone = query.fetch_all(connection).await.map_err(from_database)?;
    let highest = gone.iter().map(revision).collect::<Result<Vec<_>, _>>()?.into_iter().max();
    if let Some(highest) = highest {
        remember(connection, highest / event_revision(1)).await?;
    }
    Ok(gone.len() as u64)
}

pub(super) async fn requests(connection: &mut Connection, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
    let sql = "DELETE FROM requests WHERE (project_id, id) IN \
               (SELECT project_id, id FROM requests WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
    let query = statement(sql).bind(now.0).bind(i64::from(limit));
    query.execute(connection).await.map_err(from_database)
}

fn revision(row: &Row) -> Result<i64, StoreError> {
    row.try_get(0).map_err(from_database)
}

async fn remember(connection: &mut Connection, revision: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value \
               WHERE CAST(meta.value AS BIGINT) < CAST(excluded.value AS BIGINT)";
    statement(sql).bind(PURGED).bind(revision.to_string()).execute(connection).await.map_err(from_database)?;
    Ok(())
}
