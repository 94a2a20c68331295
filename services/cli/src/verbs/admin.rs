//! `cloud admin`.

mod backup;
mod restore;

use clap::Subcommand;

use crate::{args::Connection, error::Error};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a copy of the gateway's database into a file, while the cloud goes on
    Backup(backup::Backup),
    /// Puts a backup in the place of the gateway's database, and waits until the gateway has started again on it
    Restore(restore::Restore),
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Backup(args) => backup::run(connection, args).await,
        Command::Restore(args) => restore::run(connection, args).await,
    }
}
