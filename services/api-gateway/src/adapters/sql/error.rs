//! What the database's errors mean to the core.

use cloud_core::ports::StoreError;
use rusqlite::{ErrorCode, ffi};

use super::engine::DatabaseError;

/// SQLSTATE classes that say the server is not there or going away: connection (08), operator intervention (57), resources (53).
const AWAY: [&str; 3] = ["08", "57", "53"];
/// SQLSTATE: serialization failure, deadlock.
const LOST: [&str; 2] = ["40001", "40P01"];

/// Whether the database does not answer now, which may pass.
pub(super) fn is_away(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Sqlx(error) => is_server_away(error),
        DatabaseError::NoConnection | DatabaseError::Closed => true,
        _ => false,
    }
}

/// As [`is_away`], of PostgreSQL.
pub(super) fn is_server_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(db) => {
            let code = db.code().unwrap_or_default();
            code.len() == 5 && AWAY.iter().any(|c| code.starts_with(c))
        }
        // What a server that goes away sends, or does not, in the middle of a message is no protocol either.
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_) => true,
        _ => false,
    }
}

fn is_taken(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Sqlx(sqlx::Error::Database(db)) => db.is_unique_violation(),
        DatabaseError::Sqlite(rusqlite::Error::SqliteFailure(code, _)) => {
            matches!(code.extended_code, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
        }
        _ => false,
    }
}

/// Another transaction was first.
fn is_lost(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Sqlx(sqlx::Error::Database(db)) => LOST.contains(&db.code().unwrap_or_default().as_ref()),
        DatabaseError::Sqlite(error) => error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy),
        // Whoever went on after an error took it for one of those.
        DatabaseError::Failed => true,
        _ => false,
    }
}

pub(super) fn from_database(error: DatabaseError) -> StoreError {
    if is_taken(&error) {
        StoreError::Taken
    } else if is_lost(&error) {
        StoreError::Stale
    } else if is_away(&error) {
        StoreError::Unavailable(Box::new(error))
    } else {
        StoreError::Fault(Box::new(error))
    }
}

pub(super) fn fault(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Fault(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_breaks_off_is_away_and_no_fault() {
        let broken = sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".into());
        assert!(matches!(from_database(broken.into()), StoreError::Unavailable(_)));
        assert!(matches!(from_database(sqlx::Error::RowNotFound.into()), StoreError::Fault(_)));
    }

    #[test]
    fn a_name_that_is_taken_and_a_file_that_is_busy_are_told_apart() {
        let failed = |code| from_database(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into());
        assert!(matches!(failed(ffi::SQLITE_CONSTRAINT_UNIQUE), StoreError::Taken));
        assert!(matches!(failed(ffi::SQLITE_CONSTRAINT_PRIMARYKEY), StoreError::Taken));
        assert!(matches!(failed(ffi::SQLITE_BUSY_SNAPSHOT), StoreError::Stale));
        assert!(matches!(failed(ffi::SQLITE_FULL), StoreError::Fault(_)));
    }
}
