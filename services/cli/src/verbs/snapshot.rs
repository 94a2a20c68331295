//! `cloud snapshot`.

use clap::{Args, Subcommand};
use cloud_contracts::v1::{CreateSnapshotRequest, Snapshot, snapshot::Status as State};
use tokio::time::Instant;

use super::{ls, rm, show, watch};
use crate::{
    args::{Connection, Labels, ListArgs, Names, OutputArgs, ShowDeleted, WaitArgs, WatchArgs},
    connect::ask,
    context::Context,
    error::Error,
    wait::{self, Verdict},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Takes one of a volume, attached or not
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
    /// Deletes one or several; volumes made from them stay
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

/// `cloud snapshot create`.
#[derive(Debug, Args)]
pub struct Create {
    /// The volume, by name or id
    volume: String,
    /// The snapshot's name
    #[arg(long, value_name = "NAME")]
    name: String,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Create(args) => create(connection, args).await,
        Command::Ls { list, deleted, output } => {
            ls::run::<Snapshot>(&Context::new(connection, output).await?, list, deleted).await
        }
        Command::Watch { name, args, output } => {
            watch::run::<Snapshot>(&Context::new(connection, output).await?, (), name, args).await
        }
        Command::Show { names, output } => {
            show::run::<Snapshot>(&Context::new(connection, output).await?, &(), names).await
        }
        Command::Rm { names, wait, output } => {
            rm::run_watched::<Snapshot>(&Context::new(connection, output).await?, &(), names, wait).await
        }
    }
}

async fn create(connection: Connection, args: Create) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let name = args.name;
    let subject = format!("snapshot {name}");
    let request = CreateSnapshotRequest {
        name: name.clone(),
        volume: args.volume,
        labels: args.labels.into_map(),
        ..Default::default()
    };
    let limit = (args.wait.timeout, Instant::now() + args.wait.timeout);
    let made = context.cloud.snapshots().create_snapshot(ask(request)).await;
    let mut made = made.map_err(Error::refused(subject.clone()))?.into_inner();
    if args.wait.wait {
        let goal = wait::goal("AVAILABLE", |snapshot: &Snapshot| match snapshot.status() {
            State::Available => Verdict::Done,
            State::Deleting | State::Deleted | State::Error => Verdict::Never,
            _ => Verdict::Pending,
        });
        let line = context.progress.line(&subject);
        made = wait::until(&context.cloud, &(), made, &name, goal, limit, &line).await?;
    }
    context.out.changed(&[made])
}
