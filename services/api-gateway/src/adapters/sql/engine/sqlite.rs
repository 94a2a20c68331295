//! Connections to SQLite.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, config::DbConfig, types::ToSqlOutput, types::Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ACQUIRE, Bound, DatabaseError, Row, Statement};

/// Statements that a connection keeps prepared.
const PREPARED: usize = 256;
/// A commit is on the disk when it returns (synchronous=FULL), and readers do not wait for it (WAL). It does not copy the log into the file on its
/// way, which takes several flushes: see [`super::super::checkpoint`].
const PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                       PRAGMA foreign_keys = ON; PRAGMA cache_size = -2000; PRAGMA wal_autocheckpoint = 0;";

/// Connections to one file. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::adapters::sql) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: PathBuf,
    size: u32,
    places: Arc<Semaphore>,
    free: Mutex<Vec<Connection>>,
}

impl Shared {
    fn take(&self) -> Option<Connection> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Pool {
    /// Up to `size` connections, opened as they are needed.
    pub(in crate::adapters::sql) fn new(file: &Path, size: u32) -> Self {
        let places = Arc::new(Semaphore::new(size as usize));
        Self(Arc::new(Shared { file: file.to_owned(), size, places, free: Mutex::default() }))
    }

    pub(super) async fn acquire(&self) -> Result<Lent, DatabaseError> {
        let place = tokio::time::timeout(ACQUIRE, Arc::clone(&self.0.places).acquire_owned()).await;
        let place = place.map_err(|_| DatabaseError::NoConnection)?.map_err(|_| DatabaseError::Closed)?;
        let connection = match self.0.take() {
            Some(connection) => connection,
            None => open(&self.0.file)?,
        };
        Ok(Lent { connection: Some(connection), pool: Arc::clone(&self.0), _place: place })
    }

    pub(super) async fn close(&self) {
        // An error: it is closed already.
        let all = self.0.places.acquire_many(self.0.size).await;
        self.0.places.close();
        drop(all);
        while let Some(connection) = self.0.take() {
            drop(connection);
        }
    }
}

fn open(file: &Path) -> Result<Connection, DatabaseError> {
    let connection = Connection::open(file)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    // A statement is planned once, not again for each new value of its places.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(PRAGMAS)?;
    Ok(connection)
}

/// A connection for a while. What is left open of a transaction is rolled back when it is dropped.
#[derive(Debug)]
pub(in crate::adapters::sql) struct Lent {
    connection: Option<Connection>,
    pool: Arc<Shared>,
    // After the connection has gone back.
    _place: OwnedSemaphorePermit,
}

impl Lent {
    pub(super) fn connection(&mut self) -> Result<&mut Connection, DatabaseError> {
        self.connection.as_mut().ok_or(DatabaseError::Closed)
    }

    /// Calls SQLite in a thread of its own. Where the caller goes away meanwhile, the connection is closed.
    pub(super) async fn apart_with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let mut connection = self.connection.take().ok_or(DatabaseError::Closed)?;
        let call = tokio::task::spawn_blocking(move || {
            let done = work(&mut connection);
            (connection, done)
        });
        let (connection, done) = call.await?;
        self.connection = Some(connection);
        done
    }

    /// As [`Self::apart_with`].
    pub(super) async fn apart(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<(), rusqlite::Error> + Send + 'static,
    ) -> Result<(), DatabaseError> {
        self.apart_with(|connection| Ok(work(connection)?)).await
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && (connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok())
        {
            self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

impl rusqlite::ToSql for Bound {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Int(number) => number.to_sql(),
            Self::Text(text) => text.to_sql(),
        }
    }
}

/// SQLite numbers places named `$7` in the order in which they appear, not by their names.
fn bind(prepared: &mut rusqlite::Statement<'_>, values: &[Bound]) -> Result<(), DatabaseError> {
    for index in 1..=prepared.parameter_count() {
        let number: Option<usize> =
            prepared.parameter_name(index).and_then(|name| name.strip_prefix('$')?.parse().ok());
        let value = number.and_then(|number| values.get(number.checked_sub(1)?));
        let value = value.ok_or(rusqlite::Error::InvalidParameterCount(values.len(), prepared.parameter_count()))?;
        prepared.raw_bind_parameter(index, value)?;
    }
    Ok(())
}

pub(super) fn execute(connection: &Connection, statement: &Statement<'_>) -> Result<u64, DatabaseError> {
    let mut prepared = connection.prepare_cached(&statement.sql)?;
    bind(&mut prepared, &statement.values)?;
    Ok(prepared.raw_execute()? as u64)
}

/// At most so many rows; a statement that writes and returns rows is stepped to its end all the same.
pub(super) fn fetch(
    connection: &Connection,
    statement: &Statement<'_>,
    most: usize,
) -> Result<Vec<Row>, DatabaseError> {
    let mut prepared = connection.prepare_cached(&statement.sql)?;
    bind(&mut prepared, &statement.values)?;
    let (columns, reads) = (prepared.column_count(), prepared.readonly());
    let mut rows = prepared.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if found.len() < most {
            found.push(Row::Sqlite((0..columns).map(|i| row.get(i)).collect::<Result<Vec<Value>, _>>()?));
        } else if reads {
            break;
        }
    }
    Ok(found)
}
