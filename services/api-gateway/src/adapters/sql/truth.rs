//! What hosts are compared with: generations, deletions that are remembered, and all claims in one snapshot.

use std::time::Duration;

use cloud_core::{
    Kind,
    model::{Host, Instance, Port, Resource, Subnet, Timestamp, Volume},
    ports::{Audited, Mark, StoreError},
};
use cloud_domain::{HostId, VpcId};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    SqlStore, SqlTx,
    dialect::Dialect,
    engine::{Connection, Row, statement},
    error::fault,
    error::from_database,
    rows,
};

/// Ids looked for in one statement.
const IDS: usize = 200;
/// Rows of one page of an audit.
const PAGE: usize = 500;
/// How long an audit pauses after a page, in times of what the page took: it takes a fifth of a processor at most.
const PAUSE: u32 = 4;
/// The longest pause: a page may have been slow because the database was.
const LONGEST: Duration = Duration::from_millis(200);

pub(super) async fn vpc_generations(store: &SqlStore, host: HostId) -> Result<Vec<(VpcId, u64)>, StoreError> {
    let sql = "SELECT id, generation FROM vpcs WHERE deleted_at IS NULL \
               AND id IN (SELECT vpc_id FROM ports WHERE host_id = $1 AND deleted_at IS NULL)";
    let mut reader = store.inner.readers.acquire().await.map_err(from_database)?;
    let found = statement(sql).bind(host.to_string()).fetch_all(&mut reader).await.map_err(from_database)?;
    let row = |row: &Row| {
        let id: &str = row.try_get(0).map_err(from_database)?;
        Ok((id.parse().map_err(fault)?, number(row, 1)?))
    };
    found.iter().map(row).collect()
}

pub(super) async fn mark(store: &SqlStore, table: &'static str, host: HostId) -> Result<Mark, StoreError> {
    // From the table's index by host alone, which has the revisions.
    let sql = format!(
        "SELECT COUNT(*), CAST(COALESCE(SUM(revision), 0) AS BIGINT) FROM {table} WHERE host_id = $1 AND deleted_at IS NULL"
    );
    let mut reader = store.inner.readers.acquire().await.map_err(from_database)?;
    let row = statement(sql).bind(host.to_string()).fetch_one(&mut reader).await.map_err(from_database)?;
    Ok(Mark { rows: number(&row, 0)?, revisions: number(&row, 1)? })
}

/// Enters a deletion, in the transaction that marks the row.
pub(super) async fn bury(connection: &mut Connection, kind: Kind, id: Uuid, at: Timestamp) -> Result<(), StoreError> {
    let sql = "INSERT INTO tombstones (kind, id, deleted_at) VALUES ($1, $2, $3) ON CONFLICT (kind, id) DO NOTHING";
    let query = statement(sql).bind(kind.as_str()).bind(id.to_string()).bind(at.0);
    query.execute(connection).await.map_err(from_database)?;
    Ok(())
}

pub(super) async fn tombstones(store: &SqlStore, kind: Kind, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    let mut found = Vec::new();
    let mut reader = store.inner.readers.acquire().await.map_err(from_database)?;
    for some in ids.chunks(IDS) {
        let places: Vec<String> = (0..some.len()).map(|i| format!("${}", i + 2)).collect();
        let sql = format!("SELECT id FROM tombstones WHERE kind = $1 AND id IN ({})", places.join(", "));
        let query = statement(sql).bind(kind.as_str());
        let query = some.iter().fold(query, |query, id| query.bind(id.to_string()));
        for row in query.fetch_all(&mut reader).await.map_err(from_database)? {
            found.push(row.try_get::<&str>(0).map_err(from_database)?.parse().map_err(fault)?);
        }
    }
    Ok(found)
}

pub(super) async fn purge(store: &SqlStore, before: Timestamp) -> Result<u64, StoreError> {
    let mut tx = SqlTx::begin(store, true).await?;
    let mut purged = 0;
    for sql in ["DELETE FROM tombstones WHERE deleted_at < $1", "DELETE FROM orphans WHERE deleted_at < $1"] {
        let done = statement(sql).bind(before.0).execute(tx.connection()?).await.map_err(from_database)?;
        purged += done;
    }
    tx.commit_quietly().await?;
    Ok(purged)
}

pub(super) async fn audit(store: &SqlStore, mut see: impl FnMut(Audited) + Send) -> Result<(), StoreError> {
    let mut snapshot = store.snapshot().await?;
    let sql = "SELECT body, vcpus_used, memory_used FROM hosts WHERE deleted_at IS NULL";
    for row in statement(sql).fetch_all(&mut snapshot).await.map_err(from_database)? {
        see(Audited::Host(Box::new(rows::body::<Host>(&row)?), number(&row, 1)?, number(&row, 2)?));
    }
    each(store.inner.dialect, &mut snapshot, |row: Subnet| see(Audited::Subnet(Box::new(row)))).await?;
    each(store.inner.dialect, &mut snapshot, |row: Instance| see(Audited::Instance(Box::new(row)))).await?;
    each(store.inner.dialect, &mut snapshot, |row: Port| see(Audited::Port(Box::new(row)))).await?;
    each(store.inner.dialect, &mut snapshot, |row: Volume| see(Audited::Volume(Box::new(row)))).await
}

/// Every live row of a kind, a page at a time, in the order in which the engine reads them fastest. Pauses after each page: nobody waits for an audit,
/// and the calls meanwhile shall not wait for a processor.
async fn each<R: Resource>(
    dialect: Dialect,
    connection: &mut Connection,
    mut see: impl FnMut(R) + Send,
) -> Result<(), StoreError> {
    let (key, mut last) = dialect.scan();
    let table = R::TABLE;
    let sql =
        format!("SELECT body, {key} FROM {table} WHERE deleted_at IS NULL AND {key} > $1 ORDER BY {key} LIMIT {PAGE}");
    loop {
        let begun = Instant::now();
        let found = statement(sql.as_str()).bind(last).fetch_all_apart(connection).await.map_err(from_database)?;
        for row in &found {
            see(rows::body(row)?);
        }
        match found.last() {
            Some(row) if found.len() == PAGE => last = dialect.scanned(row, 1).map_err(from_database)?,
            _ => return Ok(()),
        }
        sleep((begun.elapsed() * PAUSE).min(LONGEST)).await;
    }
}

/// The counters of a host, which stay what they are until the transaction ends: the write makes every other writer of them wait.
pub(super) async fn lock_capacity_used(connection: &mut Connection, host: HostId) -> Result<(u64, u64), StoreError> {
    let sql = "UPDATE hosts SET vcpus_used = vcpus_used WHERE id = $1 RETURNING vcpus_used, memory_used";
    let row = statement(sql).bind(host.to_string()).fetch_optional(connection).await.map_err(from_database)?;
    let row = row.ok_or(StoreError::Stale)?;
    Ok((number(&row, 0)?, number(&row, 1)?))
}

pub(super) async fn set_capacity_used(
    connection: &mut Connection,
    host: HostId,
    (vcpus, memory): (u64, u64),
) -> Result<(), StoreError> {
    let (vcpus, memory) = (i64::try_from(vcpus).map_err(fault)?, i64::try_from(memory).map_err(fault)?);
    let sql = "UPDATE hosts SET vcpus_used = $1, memory_used = $2, \
               fill = CASE WHEN memory_total > 0 THEN ($2 * 1000) / memory_total ELSE 0 END WHERE id = $3";
    let query = statement(sql).bind(vcpus).bind(memory).bind(host.to_string());
    query.execute(connection).await.map_err(from_database)?;
    Ok(())
}

/// A counter that is wrong may be below zero: then it is as wrong as any other.
fn number(row: &Row, index: usize) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(index).map_err(from_database)?;
    Ok(u64::try_from(number).unwrap_or(u64::MAX))
}
