//! The store on SQLite or PostgreSQL, through one code path.
//!
//! **SQLite** belongs to this process alone (a lock file says so). Readers are a small pool in WAL mode; write transactions are serial and
//! share flushes of the disk (see [`writer`]). Leases of a process that died are void, since it was the only one.
//!
//! **PostgreSQL** may have several gateways. Rows are claimed with `FOR UPDATE SKIP LOCKED`, and leases are measured by the database's clock.
//!
//! Rows are generic over [`cloud_core::model::Resource`]: its columns, and a JSON body. What differs between the engines is in [`dialect`].

mod agents;
mod backup;
mod changes;
mod checkpoint;
mod dialect;
mod engine;
mod error;
mod filter;
mod identity;
mod notify;
mod open;
mod placement;
mod quota;
mod read;
mod requests;
mod retention;
mod rows;
mod truth;
mod tx;
mod work;
mod writer;

pub use backup::{BackupError, BackupFile, Restored};
pub use engine::DatabaseError;
pub use open::{OpenError, SqlStore};
pub use tx::SqlTx;

#[cfg(test)]
mod tests;
