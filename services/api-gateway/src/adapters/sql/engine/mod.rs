//! One way to speak to both engines: connections, statements, rows, errors.
//!
//! # Theory of operation
//!
//! PostgreSQL is spoken to by sqlx. SQLite is called in the caller's own task: its statements take microseconds, and handing each to a thread of
//! the connection's and waiting for the answer takes several times as long as the statement (ADR 12). What may take long goes to a thread of its own:
//! a commit, which waits for the disk, and whatever reads a whole table ([`Connection::apart`]).
//!
//! Statements name their places `$1`, `$2`, … on both engines.

mod sqlite;

use std::{borrow::Cow, time::Duration};

use sqlx::{AssertSqlSafe, PgPool, Postgres, Row as _, pool::PoolConnection, postgres::PgRow};

pub(super) use sqlite::Pool as SqlitePool;

/// Why a database did not do something.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// PostgreSQL, or a migration.
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A column holds something else than it should.
    #[error("column {0} of a row is not of its type")]
    Column(usize),
    /// A statement that must find a row found none.
    #[error("no row was found")]
    NoRow,
    /// No connection came free in time.
    #[error("no connection to the database came free in time")]
    NoConnection,
    /// The store was closed.
    #[error("the database is closed")]
    Closed,
    /// A transaction was to be committed of which a statement had failed.
    #[error("a statement of the transaction had failed")]
    Failed,
    /// A statement of SQLite's own was sent to PostgreSQL.
    #[error("PostgreSQL was sent a statement of SQLite's own")]
    NotSqlite,
    /// The thread that called the database failed.
    #[error("the thread that called the database failed")]
    Thread(#[from] tokio::task::JoinError),
}

/// Where connections come from. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    pub(super) async fn acquire(&self) -> Result<Connection, DatabaseError> {
        match self {
            Self::Sqlite(pool) => Ok(Connection::Sqlite(pool.acquire().await?)),
            Self::Postgres(pool) => Ok(Connection::Postgres(Session::new(pool.acquire().await?))),
        }
    }

    /// A connection on which `statement` has begun a transaction, and the row that it answered with, if any. Dropped without [`Connection::commit`]
    /// it is rolled back.
    ///
    /// In a task that is not cancelled with the caller: of a transaction whose beginning was on its way when the caller went, nobody would know, and its
    /// connection would go back to the pool inside of it.
    pub(super) async fn begin(&self, statement: &'static str) -> Result<(Connection, Option<Row>), DatabaseError> {
        let mut connection = self.acquire().await?;
        match &mut connection {
            Connection::Sqlite(lent) => {
                lent.connection()?.execute_batch(statement)?;
                Ok((connection, None))
            }
            Connection::Postgres(_) => {
                tokio::spawn(async move {
                    let row = connection.begin(statement).await?;
                    Ok((connection, row))
                })
                .await?
            }
        }
    }

    /// Closes all connections, once each has come back.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// A connection, which goes back to its pool when it is dropped.
#[derive(Debug)]
pub(super) enum Connection {
    Sqlite(sqlite::Lent),
    Postgres(Session),
}

impl Connection {
    async fn begin(&mut self, statement: &'static str) -> Result<Option<Row>, DatabaseError> {
        let Self::Postgres(session) = self else { return Ok(None) };
        session.open = true;
        let row = sqlx::raw_sql(statement).fetch_optional(session.connection()?).await?;
        Ok(row.map(Row::Postgres))
    }

    /// Ends the transaction that [`Pool::begin`] began.
    pub(super) async fn commit(mut self) -> Result<(), DatabaseError> {
        match &mut self {
            Self::Sqlite(lent) => lent.apart(|connection| connection.execute_batch("COMMIT")).await,
            // The server would answer that it has rolled back, which is no error to it.
            Self::Postgres(session) if session.failed => Err(DatabaseError::Failed),
            Self::Postgres(session) => {
                sqlx::raw_sql("COMMIT").execute(session.connection()?).await?;
                session.open = false;
                Ok(())
            }
        }
    }

    /// Runs statements without places that are SQLite's own, at once.
    pub(super) fn batch(&mut self, statements: &str) -> Result<(), DatabaseError> {
        match self {
            Self::Sqlite(lent) => Ok(lent.connection()?.execute_batch(statements)?),
            Self::Postgres(_) => Err(DatabaseError::NotSqlite),
        }
    }

    /// As [`Self::batch`], of what takes its time.
    pub(super) async fn batch_apart(&mut self, statements: &'static str) -> Result<(), DatabaseError> {
        match self {
            Self::Sqlite(lent) => lent.apart(|connection| connection.execute_batch(statements)).await,
            Self::Postgres(_) => Err(DatabaseError::NotSqlite),
        }
    }
}

/// A connection to PostgreSQL. What is left open of a transaction is rolled back when it is dropped.
#[derive(Debug)]
pub(super) struct Session {
    connection: Option<PoolConnection<Postgres>>,
    open: bool,
    /// A statement failed: the server carries out nothing more of this transaction.
    failed: bool,
}

impl Session {
    const fn new(connection: PoolConnection<Postgres>) -> Self {
        Self { connection: Some(connection), open: false, failed: false }
    }

    fn connection(&mut self) -> Result<&mut sqlx::PgConnection, DatabaseError> {
        self.connection.as_deref_mut().ok_or(DatabaseError::Closed)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take().filter(|_| self.open) {
            let Ok(runtime) = tokio::runtime::Handle::try_current() else {
                connection.close_on_drop();
                return;
            };
            runtime.spawn(async move {
                if sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.is_err() {
                    // The server rolls back what a closed connection had begun.
                    connection.close_on_drop();
                }
            });
        }
    }
}

/// A value of a place in a statement.
#[derive(Debug, Clone)]
pub(super) enum Bound {
    Int(Option<i64>),
    Text(Option<String>),
}

impl From<i64> for Bound {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<Option<i64>> for Bound {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

impl From<String> for Bound {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&str> for Bound {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<Option<String>> for Bound {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

/// A statement and the values of its places.
#[derive(Debug, Clone)]
pub(super) struct Statement<'q> {
    sql: Cow<'q, str>,
    values: Vec<Bound>,
}

/// A statement, put together from static names only; what callers say is bound.
pub(super) fn statement<'q>(sql: impl Into<Cow<'q, str>>) -> Statement<'q> {
    Statement { sql: sql.into(), values: Vec::new() }
}

/// Runs a statement of sqlx with the values of ours.
macro_rules! postgres {
    ($statement:ident, $session:ident, $run:ident) => {{
        let mut query = sqlx::query(AssertSqlSafe($statement.sql.into_owned()));
        for value in $statement.values {
            query = match value {
                Bound::Int(number) => query.bind(number),
                Bound::Text(text) => query.bind(text),
            };
        }
        let answer = query.$run($session.connection()?).await;
        $session.failed |= answer.is_err();
        answer?
    }};
}

impl Statement<'_> {
    /// The value of the next place.
    #[must_use]
    pub(super) fn bind(mut self, value: impl Into<Bound>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Answers with the number of rows that it wrote.
    pub(super) async fn execute(self, connection: &mut Connection) -> Result<u64, DatabaseError> {
        match connection {
            Connection::Sqlite(lent) => sqlite::execute(lent.connection()?, &self),
            Connection::Postgres(session) => Ok(postgres!(self, session, execute).rows_affected()),
        }
    }

    pub(super) async fn fetch_all(self, connection: &mut Connection) -> Result<Vec<Row>, DatabaseError> {
        match connection {
            Connection::Sqlite(lent) => sqlite::fetch(lent.connection()?, &self, usize::MAX),
            Connection::Postgres(session) => {
                Ok(postgres!(self, session, fetch_all).into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// As [`Self::fetch_all`], of what reads a whole table.
    pub(super) async fn fetch_all_apart(self, connection: &mut Connection) -> Result<Vec<Row>, DatabaseError> {
        match connection {
            Connection::Sqlite(lent) => {
                let statement = Statement { sql: Cow::Owned(self.sql.into_owned()), values: self.values };
                lent.apart_with(move |connection| sqlite::fetch(connection, &statement, usize::MAX)).await
            }
            Connection::Postgres(_) => self.fetch_all(connection).await,
        }
    }

    /// As [`Self::execute`], of what reads or writes a whole database.
    pub(super) async fn execute_apart(self, connection: &mut Connection) -> Result<u64, DatabaseError> {
        match connection {
            Connection::Sqlite(lent) => {
                let statement = Statement { sql: Cow::Owned(self.sql.into_owned()), values: self.values };
                lent.apart_with(move |connection| sqlite::execute(connection, &statement)).await
            }
            Connection::Postgres(_) => self.execute(connection).await,
        }
    }

    pub(super) async fn fetch_optional(self, connection: &mut Connection) -> Result<Option<Row>, DatabaseError> {
        match connection {
            Connection::Sqlite(lent) => Ok(sqlite::fetch(lent.connection()?, &self, 1)?.pop()),
            Connection::Postgres(session) => Ok(postgres!(self, session, fetch_optional).map(Row::Postgres)),
        }
    }

    pub(super) async fn fetch_one(self, connection: &mut Connection) -> Result<Row, DatabaseError> {
        self.fetch_optional(connection).await?.ok_or(DatabaseError::NoRow)
    }
}

/// A row.
#[derive(Debug)]
pub(super) enum Row {
    Sqlite(Vec<rusqlite::types::Value>),
    Postgres(PgRow),
}

impl Row {
    /// A column, by its place from 0.
    pub(super) fn try_get<'r, T: Column<'r>>(&'r self, index: usize) -> Result<T, DatabaseError> {
        match self {
            Self::Sqlite(values) => values.get(index).and_then(T::sqlite).ok_or(DatabaseError::Column(index)),
            Self::Postgres(row) => Ok(row.try_get(index)?),
        }
    }
}

/// What a column can be read as.
pub(super) trait Column<'r>: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> {
    fn sqlite(value: &'r rusqlite::types::Value) -> Option<Self>
    where
        Self: Sized;
}

impl<'r> Column<'r> for i64 {
    fn sqlite(value: &'r rusqlite::types::Value) -> Option<Self> {
        match value {
            rusqlite::types::Value::Integer(number) => Some(*number),
            _ => None,
        }
    }
}

impl<'r> Column<'r> for &'r str {
    fn sqlite(value: &'r rusqlite::types::Value) -> Option<Self> {
        match value {
            rusqlite::types::Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'r> Column<'r> for String {
    fn sqlite(value: &'r rusqlite::types::Value) -> Option<Self> {
        <&str>::sqlite(value).map(ToOwned::to_owned)
    }
}

impl<'r, T: Column<'r>> Column<'r> for Option<T> {
    fn sqlite(value: &'r rusqlite::types::Value) -> Option<Self> {
        match value {
            rusqlite::types::Value::Null => Some(None),
            value => T::sqlite(value).map(Some),
        }
    }
}

/// How long a call waits for a connection: a database that is away is said to be.
pub(super) const ACQUIRE: Duration = Duration::from_secs(3);
