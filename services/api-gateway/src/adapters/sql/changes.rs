//! What changed, in an order in which nothing can be missed.
//!
//! # Theory of operation
//!
//! Every write transaction has a revision, and every row carries that of the transaction that last wrote it. Whoever has seen all up to one
//! revision asks for the rows with later ones. That is right only if nothing older can still appear, so reads go up to a **watermark**:
//!
//! - **SQLite**: revisions are given by the one writer, so they follow commit order; the watermark is the last committed one.
//! - **PostgreSQL**: the revision is the transaction's id. Ids do not follow commit order, but the oldest one that is still under way is
//!   known (`pg_snapshot_xmin`): below it all is decided. No counter row and no stamping makes transactions wait for each other; a
//!   long transaction only makes watchers wait.
//!
//! A row that changed twice is one change, in its latest state. A row is never shown at a revision it no longer has, so where it changes again
//! between two reads it comes with the later one.

use cloud_core::{
    model::{Event, Resource},
    ports::{Changed, Changes, StoreError},
};

use super::{
    SqlStore,
    engine::{Connection, Row, statement},
    error::fault,
    error::from_database,
    read, rows,
};

/// Events that one transaction may write.
pub(super) const EVENTS_PER_REVISION: usize = 1024;

/// The number of the first event of a transaction.
pub(super) const fn event_revision(revision: i64) -> i64 {
    revision * 1024
}

async fn reader(store: &SqlStore) -> Result<Connection, StoreError> {
    store.inner.readers.acquire().await.map_err(from_database)
}

async fn watermark(store: &SqlStore, reader: &mut Connection) -> Result<i64, StoreError> {
    match &store.inner.writer {
        Some(writer) => Ok(writer.committed()),
        None => store.inner.dialect.watermark(reader).await.map_err(from_database),
    }
}

fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(fault)
}

pub(super) async fn revision(store: &SqlStore) -> Result<u64, StoreError> {
    let mut reader = reader(store).await?;
    unsigned(watermark(store, &mut reader).await?)
}

pub(super) async fn rows<R: Resource>(store: &SqlStore, after: u64, limit: u32) -> Result<Changes<R>, StoreError> {
    let sql = format!(
        "SELECT body, revision, created_revision FROM {} WHERE revision > $1 AND revision <= $2 ORDER BY revision LIMIT $3",
        R::TABLE
    );
    let revision = |row: &Row| row.try_get(1).map_err(from_database);
    let (found, upto) = read_up(store, &sql, i64::try_from(after).map_err(fault)?, limit, revision, |r| r).await?;
    let changed = |row: &Row| {
        let created = unsigned(row.try_get(2).map_err(from_database)?)?;
        Ok(Changed { row: rows::body(row)?, revision: unsigned(revision(row)?)?, created })
    };
    Ok(Changes { rows: found.iter().map(changed).collect::<Result<_, StoreError>>()?, upto: unsigned(upto)? })
}

pub(super) async fn events(store: &SqlStore, after: u64, limit: u32) -> Result<Changes<Event>, StoreError> {
    let sql = format!("{} WHERE revision >= $1 AND revision < $2 ORDER BY revision LIMIT $3", read::EVENTS);
    let revision = |row: &Row| Ok(row.try_get::<i64>(0).map_err(from_database)? / event_revision(1));
    let after = i64::try_from(after).map_err(fault)?;
    let (found, upto) = read_up(store, &sql, after, limit, revision, |r| event_revision(r + 1)).await?;
    let changed = |row: &Row| {
        let revision = unsigned(revision(row)?)?;
        Ok(Changed { row: read::event(row)?, revision, created: revision })
    };
    Ok(Changes { rows: found.iter().map(changed).collect::<Result<_, StoreError>>()?, upto: unsigned(upto)? })
}

/// Runs a statement with bounds `after` and the watermark, both as `bound` writes them. Cut between two revisions where there are more
/// than `limit` rows, never within one.
async fn read_up(
    store: &SqlStore,
    sql: &str,
    after: i64,
    limit: u32,
    revision: impl Fn(&Row) -> Result<i64, StoreError>,
    bound: impl Fn(i64) -> i64,
) -> Result<(Vec<Row>, i64), StoreError> {
    let mut reader = reader(store).await?;
    let upto = watermark(store, &mut reader).await?;
    let mut limit = limit as usize;
    loop {
        let most = i64::try_from(limit + 1).map_err(fault)?;
        let query = statement(sql).bind(bound(after)).bind(bound(upto)).bind(most);
        let mut found = query.fetch_all(&mut reader).await.map_err(from_database)?;
        let Some(cut) = found.get(limit).map(&revision).transpose()? else {
            return Ok((found, upto.max(after)));
        };
        while let Some(last) = found.last() {
            if revision(last)? != cut {
                let upto = revision(last)?;
                return Ok((found, upto));
            }
            found.pop();
        }
        // One transaction wrote more than that.
        limit *= 2;
    }
}
