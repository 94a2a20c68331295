//! `cloud project`.

use clap::{Args, Subcommand};
use cloud_contracts::v1::{CreateProjectRequest, Project};

use super::{ls, rm, show, watch};
use crate::{
    args::{Connection, Labels, ListArgs, NameArg, Names, OutputArgs, ShowDeleted, WatchArgs},
    connect::ask,
    context::Context,
    error::Error,
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes one, with a default VPC (operators)
    Create(Create),
    /// Lists those that you may see
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        list: ListArgs,
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
    /// Deletes one or several that are empty, with their default VPC and their API keys (operators)
    #[command(visible_alias = "delete")]
    Rm {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `cloud project create`.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    name: NameArg,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Create(args) => create(connection, args).await,
        Command::Ls { list, output } => {
            ls::run::<Project>(&Context::new(connection, output).await?, list, ShowDeleted::default()).await
        }
        Command::Show { names, output } => {
            show::run::<Project>(&Context::new(connection, output).await?, &(), names).await
        }
        Command::Watch { name, args, output } => {
            watch::run::<Project>(&Context::new(connection, output).await?, (), name, args).await
        }
        Command::Rm { names, output } => rm::run::<Project>(&Context::new(connection, output).await?, &(), names).await,
    }
}

async fn create(connection: Connection, args: Create) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let name = args.name.into_name();
    let subject = format!("project {name}");
    let request = CreateProjectRequest { name, labels: args.labels.into_map(), ..Default::default() };
    let made = context.cloud.projects().create_project(ask(request)).await.map_err(Error::refused(subject))?;
    context.out.changed(&[made.into_inner()])
}
