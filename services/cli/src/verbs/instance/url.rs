//! `cloud instance url`.

use clap::Args;
use cloud_contracts::v1::GetConsoleUrlRequest;

use crate::{
    args::{Connection, OutputArgs},
    connect::ask,
    context::Context,
    error::Error,
};

/// Its arguments.
#[derive(Debug, Args)]
pub struct Url {
    /// The instance, by name or id
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the URL, and nothing else, so that a script can open it.
pub async fn run(connection: Connection, args: Url) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let subject = format!("instance {}", args.name);
    let answer = context.cloud.instances().get_console_url(ask(GetConsoleUrlRequest { id: args.name })).await;
    let answer = answer.map_err(Error::refused(subject))?.into_inner();
    context.out.plain(&answer.url, &answer)
}
