//! `cloud api-key`. A secret is printed once, alone on stdout; what it is, on stderr.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use cloud_contracts::v1::{ApiKey, CreateApiKeyRequest, RotateApiKeyRequest, api_key::Role as Wire};
use prost_types::Timestamp;
use serde::Serialize;

use super::{ls, rm, show, watch};
use crate::{
    args::{Connection, ListArgs, NameArg, Names, OutputArgs, ShowDeleted, WatchArgs, duration},
    connect::ask,
    context::Context,
    error::Error,
    output::{clean, human},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes one in the project, and prints its secret: it is shown once
    Create(Create),
    /// Lists the project's
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Shows one or several, without their secrets
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
    /// Ends one or several at once, for good
    #[command(visible_alias = "rm")]
    Revoke {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Gives one a new secret, and prints it: it is shown once
    Rotate(Rotate),
}

/// What a key may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// See the project's resources
    Viewer,
    /// Also make and change them
    Member,
    /// Also make keys
    Admin,
    /// Everything, in every project
    Operator,
}

/// `cloud api-key create`.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    name: NameArg,
    /// What it may do; at most what your own key may
    #[arg(long, value_enum)]
    role: Role,
    /// When it ends, from now on, such as 90d or 12h [default: never]
    #[arg(long, value_name = "DURATION", value_parser = days)]
    expires: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

/// `cloud api-key rotate`.
#[derive(Debug, Args)]
pub struct Rotate {
    /// Its name or id
    name: String,
    /// How long the old secret lives on, at most 7d
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = days)]
    overlap: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// As [`duration`], and days.
fn days(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('d').map(str::parse::<u64>) {
        Some(Ok(days)) if days <= 36_500 => Ok(Duration::from_secs(days * 86_400)),
        Some(_) => Err("must be a whole number and a unit (s, m, h, d), such as 12h or 90d".to_owned()),
        None => duration(text),
    }
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Create(args) => create(connection, args).await,
        Command::Ls { list, output } => {
            ls::run::<ApiKey>(&Context::new(connection, output).await?, list, ShowDeleted::default()).await
        }
        Command::Show { names, output } => {
            show::run::<ApiKey>(&Context::new(connection, output).await?, &(), names).await
        }
        Command::Watch { name, args, output } => {
            watch::run::<ApiKey>(&Context::new(connection, output).await?, (), name, args).await
        }
        Command::Revoke { names, output } => {
            rm::run::<ApiKey>(&Context::new(connection, output).await?, &(), names).await
        }
        Command::Rotate(args) => rotate(connection, args).await,
    }
}

async fn create(connection: Connection, args: Create) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let name = args.name.into_name();
    let subject = format!("api-key {name}");
    let role = match args.role {
        Role::Viewer => Wire::Viewer,
        Role::Member => Wire::Member,
        Role::Admin => Wire::Admin,
        Role::Operator => Wire::Operator,
    };
    let expires_at = args.expires.map(|after| Timestamp::from(SystemTime::now() + after));
    let request = CreateApiKeyRequest { name, role: role.into(), expires_at, ..Default::default() };
    let made = context.cloud.api_keys().create_api_key(ask(request)).await.map_err(Error::refused(subject))?;
    let made = made.into_inner();
    told(&context, made.api_key.as_ref(), &made.secret, &made)
}

async fn rotate(connection: Connection, args: Rotate) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let overlap_seconds = u32::try_from(args.overlap.as_secs()).unwrap_or(u32::MAX);
    let request = RotateApiKeyRequest { id: args.name.clone(), overlap_seconds, ..Default::default() };
    let subject = format!("api-key {}", args.name);
    let made = context.cloud.api_keys().rotate_api_key(ask(request)).await.map_err(Error::refused(subject))?;
    let made = made.into_inner();
    told(&context, made.api_key.as_ref(), &made.secret, &made)?;
    if !args.overlap.is_zero() {
        eprintln!("the old secret lives on for {}", human::span(args.overlap));
    }
    Ok(())
}

fn told<D: Serialize>(context: &Context, key: Option<&ApiKey>, secret: &str, document: &D) -> Result<(), Error> {
    context.out.plain(&clean(secret), document)?;
    if let Some(key) = key {
        let (name, role, project) = (&key.name, key.role().as_str_name(), &key.project);
        eprintln!("{}", clean(&format!("API key {name} ({role}) of project {project}: its secret is shown this once")));
    }
    Ok(())
}
