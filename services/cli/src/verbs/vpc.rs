//! `cloud vpc`.

use clap::{Args, Subcommand};
use cloud_contracts::v1::{CreateVpcRequest, Vpc};

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
    /// Makes one, with a subnet called `default`
    Create(Create),
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
    /// Deletes one or several, with their subnets
    #[command(visible_alias = "delete")]
    Rm {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `cloud vpc create`.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    name: NameArg,
    /// The range its subnets lie in, private, /8 to /29 [default: 10.0.0.0/16]
    #[arg(long, default_value = "", hide_default_value = true)]
    cidr: String,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Create(args) => create(connection, args).await,
        Command::Ls { list, deleted, output } => {
            ls::run::<Vpc>(&Context::new(connection, output).await?, list, deleted).await
        }
        Command::Watch { name, args, output } => {
            watch::run::<Vpc>(&Context::new(connection, output).await?, (), name, args).await
        }
        Command::Show { names, output } => show::run::<Vpc>(&Context::new(connection, output).await?, &(), names).await,
        Command::Rm { names, output } => rm::run::<Vpc>(&Context::new(connection, output).await?, &(), names).await,
    }
}

async fn create(connection: Connection, args: Create) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let name = args.name.into_name();
    let subject = format!("vpc {name}");
    let request = CreateVpcRequest { name, cidr: args.cidr, labels: args.labels.into_map(), ..Default::default() };
    let made = context.cloud.vpcs().create_vpc(ask(request)).await.map_err(Error::refused(subject))?;
    context.out.changed(&[made.into_inner()])
}
