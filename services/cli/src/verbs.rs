//! What can be done. Verbs that are alike for all resources stand here as generic functions; the others under their noun.

pub mod admin;
pub mod api_key;
mod batch;
mod completion;
pub mod event;
pub mod host;
pub mod image;
pub mod instance;
pub mod login;
mod ls;
pub mod project;
pub mod quota;
mod rm;
mod show;
pub mod snapshot;
pub mod subnet;
mod version;
pub mod volume;
pub mod vpc;
mod watch;

use cloud_contracts::v1;

use crate::{
    args::{Cli, Command, Connection, LsShow, ShowDeleted},
    context::Context,
    error::Error,
    resources::{Fetch, Listed, follow::Follow},
};

/// Does what was asked.
pub async fn run(cli: Cli) -> Result<(), Error> {
    let connection = cli.connection;
    match cli.command {
        Command::Instance(command) => instance::run(connection, command).await,
        Command::Volume(command) => volume::run(connection, command).await,
        Command::Snapshot(command) => snapshot::run(connection, command).await,
        Command::Image(command) => image::run(connection, command).await,
        Command::Vpc(command) => vpc::run(connection, command).await,
        Command::Subnet(command) => subnet::run(connection, command).await,
        Command::Port(command) => look::<v1::Port>(connection, command).await,
        Command::Host(command) => host::run(connection, command).await,
        Command::Event(command) => event::run(connection, command).await,
        Command::Type(command) => look::<v1::InstanceType>(connection, command).await,
        Command::Project(command) => project::run(connection, command).await,
        Command::ApiKey(command) => api_key::run(connection, command).await,
        Command::Quota(command) => quota::run(connection, command).await,
        Command::Admin(command) => admin::run(connection, command).await,
        Command::Login(args) => login::run(connection, args).await,
        Command::Completion { shell } => completion::run(shell),
        Command::Version(output) => version::run(output),
    }
}

/// `ls`, `show` and `watch` of what cannot be changed from here.
async fn look<R: Listed + Fetch<Scope = ()> + Follow<Of = ()>>(
    connection: Connection,
    command: LsShow,
) -> Result<(), Error> {
    match command {
        LsShow::Ls { list, output } => {
            let context = Context::new(connection, output).await?;
            ls::run::<R>(&context, list, ShowDeleted::default()).await
        }
        LsShow::Show { names, output } => {
            let context = Context::new(connection, output).await?;
            show::run::<R>(&context, &(), names).await
        }
        LsShow::Watch { name, args, output } => {
            watch::run::<R>(&Context::new(connection, output).await?, (), name, args).await
        }
    }
}
