//! What the database's errors mean to the core.

use cloud_core::ports::StoreError;

/// SQLSTATE classes that say the server is not there or going away: connection (08), operator intervention (57), resources (53).
const AWAY: [&str; 3] = ["08", "57", "53"];
/// SQLSTATE: serialization failure, deadlock. SQLite: busy.
const LOST: [&str; 4] = ["40001", "40P01", "5", "517"];

/// Whether the database does not answer now, which may pass.
pub(super) fn is_away(error: &sqlx::Error) -> bool {
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

pub(super) fn from_sqlx(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(db) if db.is_unique_violation() => StoreError::Taken,
        sqlx::Error::Database(db) if LOST.contains(&db.code().unwrap_or_default().as_ref()) => StoreError::Stale,
        away if is_away(away) => StoreError::Unavailable(Box::new(error)),
        _ => StoreError::Fault(Box::new(error)),
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
        assert!(matches!(from_sqlx(broken), StoreError::Unavailable(_)));
        assert!(matches!(from_sqlx(sqlx::Error::RowNotFound), StoreError::Fault(_)));
    }
}
