//! `cloud quota`.

use clap::{Args, Subcommand};
use cloud_contracts::v1::{Quota, UpdateQuotaRequest};

use super::show;
use crate::{
    args::{Connection, Names, OutputArgs},
    connect::ask,
    context::Context,
    error::Error,
};

/// The number that is no limit.
const NONE: u64 = i64::MAX as u64;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows what one or several projects use, and may
    #[command(visible_alias = "get")]
    Show {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Changes limits of a project (operators); what is not named stays
    Set(Set),
}

/// `cloud quota set`.
#[derive(Debug, Args)]
pub struct Set {
    /// The project, by name or id
    project: String,
    /// Such as instances=20 or vcpus=none. Known are instances, vcpus, memory_mib, volume_gib, snapshots, vpcs, floating_ips
    #[arg(required = true, value_name = "RESOURCE=LIMIT", value_parser = limit)]
    limits: Vec<(String, u64)>,
    #[command(flatten)]
    output: OutputArgs,
}

fn limit(text: &str) -> Result<(String, u64), String> {
    let wrong = || "must be RESOURCE=LIMIT, such as instances=20 or vcpus=none".to_owned();
    match text.split_once('=') {
        Some((name, "none")) if !name.is_empty() => Ok((name.to_owned(), NONE)),
        Some((name, number)) if !name.is_empty() => Ok((name.to_owned(), number.parse().map_err(|_| wrong())?)),
        _ => Err(wrong()),
    }
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Show { names, output } => {
            show::run::<Quota>(&Context::new(connection, output).await?, &(), names).await
        }
        Command::Set(args) => {
            let context = Context::new(connection, args.output).await?;
            let subject = format!("quota {}", args.project);
            let limits = args.limits.into_iter().collect();
            let request = UpdateQuotaRequest { project: args.project, limits, ..Default::default() };
            let set = context.cloud.quotas().update_quota(ask(request)).await.map_err(Error::refused(subject))?;
            context.out.changed(&[set.into_inner()])
        }
    }
}
