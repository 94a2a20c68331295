//! `cloud instance`. Each verb that instances alone have stands in a file of its own.

mod console;
mod explain;
mod launch;
mod log;
mod reboot;
mod start;
mod stop;
mod url;

use clap::{Args, Subcommand};
use cloud_contracts::v1::Instance;

use super::{ls, rm, show, watch};
use crate::{
    args::{Connection, ListArgs, Names, OutputArgs, ShowDeleted, WaitArgs, WatchArgs},
    context::Context,
    error::Error,
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Launches one; answers while it is STARTING
    #[command(visible_alias = "create")]
    Launch(Box<launch::Launch>),
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
    /// Starts stopped ones
    Start(Change),
    /// Stops them and answers when they are STOPPED: a graceful shutdown, power-off after 30 s
    Stop(Change),
    /// Restarts the guests of running ones
    Reboot(Change),
    /// Deletes them and their root disks; data volumes stay
    #[command(visible_alias = "delete")]
    Rm(Change),
    /// Says why it is in its state, and why it is where it is
    Explain {
        /// The instance, by name or id
        name: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Prints what the guest last wrote to its serial console
    Log(log::Log),
    /// Connects to the serial console; Ctrl-] leaves
    Console(console::Console),
    /// Prints a URL that shows the console in a browser; it expires
    Url(url::Url),
}

/// What is done to several.
#[derive(Debug, Args)]
pub struct Change {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Launch(args) => launch::run(connection, *args).await,
        Command::Ls { list, deleted, output } => {
            ls::run::<Instance>(&Context::new(connection, output).await?, list, deleted).await
        }
        Command::Watch { name, args, output } => {
            watch::run::<Instance>(&Context::new(connection, output).await?, (), name, args).await
        }
        Command::Show { names, output } => {
            show::run::<Instance>(&Context::new(connection, output).await?, &(), names).await
        }
        Command::Start(args) => start::run(&Context::new(connection, args.output).await?, args.names, args.wait).await,
        Command::Stop(args) => stop::run(&Context::new(connection, args.output).await?, args.names, args.wait).await,
        Command::Reboot(args) => {
            reboot::run(&Context::new(connection, args.output).await?, args.names, args.wait).await
        }
        Command::Rm(args) => {
            let context = Context::new(connection, args.output).await?;
            rm::run_watched::<Instance>(&context, &(), args.names, args.wait).await
        }
        Command::Explain { name, output } => explain::run(connection, name, output).await,
        Command::Log(args) => log::run(connection, args).await,
        Command::Console(args) => console::run(connection, args).await,
        Command::Url(args) => url::run(connection, args).await,
    }
}
