//! `cloud image`.

mod import;
mod upload;

use clap::Subcommand;
use cloud_contracts::v1::Image;

use super::{ls, rm, show, watch};
use crate::{
    args::{Connection, ListArgs, Names, OutputArgs, ShowDeleted, WaitArgs, WatchArgs},
    context::Context,
    error::Error,
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Imports one from a URL, a local file, or the operator's import directory
    #[command(visible_alias = "create")]
    Import(Box<import::Import>),
    /// Lists them
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        deleted: ShowDeleted,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Shows one or several
    #[command(visible_alias = "get")]
    Show {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Prints them, then every change as it comes
    Watch {
        /// Only this one, by name or id
        name: Option<String>,
        #[command(flatten)]
        args: WatchArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Deletes one or several; instances made from them keep running
    #[command(visible_alias = "delete")]
    Rm {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Import(args) => import::run(connection, *args).await,
        Command::Ls { list, deleted, output } => {
            ls::run::<Image>(&Context::new(connection, output).await?, list, deleted).await
        }
        Command::Watch { name, args, output } => {
            watch::run::<Image>(&Context::new(connection, output).await?, (), name, args).await
        }
        Command::Show { names, output } => {
            show::run::<Image>(&Context::new(connection, output).await?, &(), names).await
        }
        Command::Rm { names, wait, output } => {
            rm::run_watched::<Image>(&Context::new(connection, output).await?, &(), names, wait).await
        }
    }
}
