//! `cloud host authority`.

use clap::Subcommand;
use cloud_contracts::v1::{Authority, ListAuthoritiesRequest, RotateAuthorityRequest};

use crate::{
    args::{Connection, OutputArgs},
    connect::ask,
    context::Context,
    error::Error,
    resources::Resource,
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists those that hosts trust now
    #[command(visible_alias = "list")]
    Ls(OutputArgs),
    /// Makes another one, which replaces the present one: hosts get their certificates from it at once, and both are trusted until no certificate
    /// of the present one counts any more
    Rotate(OutputArgs),
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Ls(output) => {
            let context = Context::new(connection, output).await?;
            let answer = context
                .cloud
                .hosts()
                .list_authorities(ask(ListAuthoritiesRequest { page_size: 500, ..Default::default() }))
                .await;
            let answer = answer.map_err(Error::refused(Authority::PLURAL))?.into_inner();
            context.out.list(&answer.authorities, &answer.next_page_token)
        }
        Command::Rotate(output) => {
            let context = Context::new(connection, output).await?;
            let made = context.cloud.hosts().rotate_authority(ask(RotateAuthorityRequest::default())).await;
            let made = made.map_err(Error::refused(Authority::KIND))?.into_inner();
            context.out.changed(&[made])
        }
    }
}
