//! `cloud event`.

use clap::{Args, Subcommand};
use cloud_contracts::v1::{Event, ListEventsRequest};

use super::{ls, watch};
use crate::{
    args::{Connection, ListArgs, OutputArgs, WatchArgs},
    connect::ask,
    context::Context,
    error::Error,
    resources::{PageOf, follow::OfEvents},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists them, newest first
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Prints each as it happens
    Watch(Watch),
}

/// `cloud event watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// Only events of this kind of resource, such as `instance`
    #[arg(long, default_value = "", hide_default_value = true)]
    kind: String,
    /// Only events of this resource, by its id
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ID")]
    resource: String,
    #[command(flatten)]
    args: WatchArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `cloud event ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Only events of this kind of resource, such as `instance`
    #[arg(long, default_value = "", hide_default_value = true)]
    kind: String,
    /// Only events of this resource, by its id
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ID")]
    resource: String,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Ls(args) => list(connection, args).await,
        Command::Watch(args) => {
            let context = Context::new(connection, args.output).await?;
            let of = OfEvents { kind: args.kind, resource: args.resource };
            watch::run::<Event>(&context, of, None, args.args).await
        }
    }
}

async fn list(connection: Connection, args: Ls) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let (kind, resource) = (&args.kind, &args.resource);
    let cloud = &context.cloud;
    let page = |page: PageOf| async move {
        let request = ListEventsRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
            kind: kind.clone(),
            resource_id: resource.clone(),
        };
        let answer = cloud.events().list_events(ask(request)).await?.into_inner();
        Ok((answer.events, answer.next_page_token))
    };
    let (items, token) = ls::collect::<Event, _>(args.list, page).await?;
    context.cloud.warn_of_unused_id();
    context.out.list(&items, &token)
}
