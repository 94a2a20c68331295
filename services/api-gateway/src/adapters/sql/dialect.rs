//! What SQLite and PostgreSQL say differently.

use std::time::Instant;

use cloud_core::{filter::FieldKind, model::Timestamp};

use super::engine::{Bound, Connection, DatabaseError, Row, statement};

/// PostgreSQL's clock, in microseconds since 1970.
const POSTGRES_NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";

/// Which engine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dialect {
    /// SQLite, and the moment this process began to count time from: leases are measured by a clock that is never set.
    Sqlite {
        /// The wall clock then.
        base: Timestamp,
        /// The monotonic clock then.
        start: Instant,
    },
    /// PostgreSQL.
    Postgres,
}

impl Dialect {
    pub(super) fn of(url: &str) -> Option<Self> {
        if url.starts_with("sqlite:") {
            return Some(Self::Sqlite { base: Timestamp::now(), start: Instant::now() });
        }
        (url.starts_with("postgres:") || url.starts_with("postgresql:")).then_some(Self::Postgres)
    }

    pub(super) const fn is_sqlite(self) -> bool {
        matches!(self, Self::Sqlite { .. })
    }

    /// How a write transaction begins.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// How a read of several statements begins, to see one snapshot.
    pub(super) const fn begin_snapshot(self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// The column by which a whole table is read fastest, and what is less than all of its values.
    pub(super) fn scan(self) -> (&'static str, Bound) {
        match self {
            // The order in which the rows lie in the file. By their ids, each would be looked up on a page of its own.
            Self::Sqlite { .. } => ("rowid", i64::MIN.into()),
            Self::Postgres => ("id", "".into()),
        }
    }

    /// The value of that column, at its place in a row.
    pub(super) fn scanned(self, row: &Row, index: usize) -> Result<Bound, DatabaseError> {
        match self {
            Self::Sqlite { .. } => row.try_get::<i64>(index).map(Bound::from),
            Self::Postgres => row.try_get::<&str>(index).map(Bound::from),
        }
    }

    /// Appended to the selection of rows of `table` to claim.
    pub(super) fn skip_locked(self, table: &str) -> String {
        match self {
            Self::Sqlite { .. } => String::new(),
            Self::Postgres => format!(" FOR UPDATE OF {table} SKIP LOCKED"),
        }
    }

    /// A condition that always holds, and lets the statement's own transaction end before it is on the disk. SQLite's writer puts several on the disk
    /// together.
    pub(super) const fn unflushed(self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "1 = 1",
            Self::Postgres => "set_config('synchronous_commit', 'off', true) IS NOT NULL",
        }
    }

    /// Waits until no other transaction holds the name at `$1`, and holds it until this one ends. None: there is only one at a time.
    pub(super) const fn hold_name(self) -> Option<&'static str> {
        match self {
            Self::Sqlite { .. } => None,
            Self::Postgres => Some("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"),
        }
    }

    /// A whole number of a row's body, as an expression.
    pub(super) fn json_number(self, field: &'static str) -> String {
        match self {
            Self::Sqlite { .. } => format!("CAST(json_extract(r.body, '$.{field}') AS INTEGER)"),
            // A sum of BIGINT is NUMERIC.
            Self::Postgres => format!("CAST(CAST(r.body AS json) ->> '{field}' AS INTEGER)"),
        }
    }

    /// A value of a row's JSON as text: a string as it is, a number in decimal, a truth as `true` or `false`.
    pub(super) fn json_text(self, path: &[&str], kind: FieldKind) -> String {
        match self {
            Self::Sqlite { .. } => {
                let value = format!("json_extract(body, '$.{}')", path.join("."));
                match kind {
                    // SQLite has no truths: JSON's come out as numbers.
                    FieldKind::Flag => format!("CASE {value} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END"),
                    _ => format!("CAST({value} AS TEXT)"),
                }
            }
            Self::Postgres => format!("(CAST(body AS json) #>> '{{{}}}')", path.join(",")),
        }
    }

    /// A member of an object of texts in a row's JSON, by the key at a place of the statement.
    pub(super) fn json_member(self, path: &[&str], key: &str) -> String {
        match self {
            // Not by a path, in which not every key can be written.
            Self::Sqlite { .. } => {
                format!("(SELECT value FROM json_each(body, '$.{}') WHERE key = {key})", path.join("."))
            }
            Self::Postgres => format!("((CAST(body AS json) #> '{{{}}}') ->> CAST({key} AS TEXT))", path.join(",")),
        }
    }

    /// The comparison with a glob at a place of the statement. Both tell upper from lower case.
    pub(super) fn glob(self, pattern: &str) -> String {
        match self {
            Self::Sqlite { .. } => format!("GLOB {pattern}"),
            Self::Postgres => format!("LIKE {pattern} ESCAPE '\\'"),
        }
    }

    /// A glob, in which only `*` has a meaning, as the engine writes it.
    pub(super) fn glob_pattern(self, glob: &str) -> String {
        let mut pattern = String::with_capacity(glob.len());
        for c in glob.chars() {
            match (self, c) {
                (Self::Sqlite { .. }, '?' | '[') => pattern.extend(['[', c, ']']),
                (Self::Postgres, '*') => pattern.push('%'),
                (Self::Postgres, '%' | '_' | '\\') => pattern.extend(['\\', c]),
                (_, c) => pattern.push(c),
            }
        }
        pattern
    }

    /// The time that leases are measured by, where this process's clock is that.
    pub(super) fn process_time(self) -> Option<Timestamp> {
        match self {
            Self::Sqlite { base, start } => Some(base.plus(start.elapsed())),
            Self::Postgres => None,
        }
    }

    /// The time that leases are measured by, as an expression: what [`Self::process_time`] says is bound to the place, else it is the database's.
    pub(super) fn lease_time(self, place: &str) -> String {
        match self {
            Self::Sqlite { .. } => place.to_owned(),
            Self::Postgres => format!("COALESCE(CAST({place} AS BIGINT), {POSTGRES_NOW})"),
        }
    }

    /// The time that leases are measured by.
    pub(super) async fn now(self, connection: &mut Connection) -> Result<Timestamp, DatabaseError> {
        match self {
            Self::Sqlite { base, start } => Ok(base.plus(start.elapsed())),
            Self::Postgres => {
                let sql = format!("SELECT {POSTGRES_NOW}");
                Ok(Timestamp(statement(sql).fetch_one(connection).await?.try_get(0)?))
            }
        }
    }

    /// How a write transaction of PostgreSQL begins; see [`Self::stamp`].
    pub(super) const BEGIN_STAMPED: &'static str = "BEGIN; SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT), \
         CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)";

    /// What [`Self::BEGIN_STAMPED`] answered: the time that leases are measured by, and the transaction's revision, its id.
    pub(super) fn stamp(row: &Row) -> Result<(Timestamp, i64), DatabaseError> {
        Ok((Timestamp(row.try_get(0)?), row.try_get(1)?))
    }

    /// The revision up to which PostgreSQL has nothing under way any more: whatever commits from now on has a later one.
    pub(super) async fn watermark(self, connection: &mut Connection) -> Result<i64, DatabaseError> {
        let sql = "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT) - 1";
        statement(sql).fetch_one(connection).await?.try_get(0)
    }
}
