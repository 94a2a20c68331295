//! `cloud host token`. A token is printed once, alone on stdout; what it is, on stderr.

use std::time::Duration;

use clap::{Args, Subcommand};
use cloud_contracts::v1::{CreateJoinTokenRequest, JoinToken, ListJoinTokensRequest, RevokeJoinTokenRequest};

use crate::{
    args::{Connection, ListArgs, Names, OutputArgs, duration},
    connect::ask,
    context::Context,
    error::Error,
    output::{clean, human},
    resources::{Page, PageOf, Resource},
    verbs::{batch, ls},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes one, and prints it: it is shown once. On the new host: `cloud-agent-join TOKEN`
    Create(Create),
    /// Lists those that were not revoked
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Ends one or several at once; hosts that joined by them stay
    #[command(visible_alias = "revoke")]
    Rm {
        #[command(flatten)]
        tokens: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `cloud host token create`.
#[derive(Debug, Args)]
pub struct Create {
    /// How long it lives, such as 30m or 24h
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    ttl: Duration,
    /// How many hosts may use it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    uses: u32,
    /// Only for this host, which joins again and keeps what it has; by name or id
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    host: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Create(args) => create(connection, args).await,
        Command::Ls { list, output } => {
            let context = Context::new(connection, output).await?;
            let (items, token) = ls::collect(list, |page| list_tokens(&context, page)).await?;
            context.out.list(&items, &token)
        }
        Command::Rm { tokens, output } => {
            let context = Context::new(connection, output).await?;
            let batch = batch::each(tokens.unique(), |id| revoke(&context, id)).await;
            context.out.changed(&batch.done)?;
            batch.finish()
        }
    }
}

async fn create(connection: Connection, args: Create) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let ttl_seconds = u32::try_from(args.ttl.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
    let request = CreateJoinTokenRequest { ttl_seconds, uses: args.uses, host: args.host, request_id: String::new() };
    let made = context.cloud.hosts().create_join_token(ask(request)).await.map_err(Error::refused(JoinToken::KIND))?;
    let made = made.into_inner();
    context.out.plain(&clean(&made.token), &made)?;
    let who = match (made.host.as_str(), made.uses) {
        ("", 1) => "one new host".to_owned(),
        ("", uses) => format!("{uses} new hosts"),
        (host, _) => format!("host {host}, again"),
    };
    let text = format!("join token {} for {who}, for {}: it is shown this once", made.id, human::span(args.ttl));
    eprintln!("{}", clean(&text));
    Ok(())
}

async fn list_tokens(context: &Context, page: PageOf) -> Page<JoinToken> {
    let request = ListJoinTokensRequest {
        page_size: page.size,
        page_token: page.token,
        filter: page.filter,
        order_by: page.order_by,
    };
    let answer = context.cloud.hosts().list_join_tokens(ask(request)).await?.into_inner();
    Ok((answer.join_tokens, answer.next_page_token))
}

async fn revoke(context: &Context, id: String) -> Result<JoinToken, Error> {
    let subject = format!("{} {id}", JoinToken::KIND);
    let request = RevokeJoinTokenRequest { id, request_id: String::new() };
    let revoked = context.cloud.hosts().revoke_join_token(ask(request)).await.map_err(Error::refused(subject))?;
    Ok(revoked.into_inner())
}
