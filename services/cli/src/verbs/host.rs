//! `cloud host`.

mod authority;
mod set;
mod token;

use clap::{Args, Subcommand};
use cloud_contracts::v1::{
    AdoptOrphanRequest, CordonHostRequest, DrainHostRequest, FenceHostRequest, Host, ListOrphansRequest, Orphan,
    RemoveHostRequest, RemoveOrphanRequest, UncordonHostRequest,
};

use super::{batch, look, ls};
use crate::{
    args::{Connection, ListArgs, LsShow, Names, OutputArgs},
    connect::ask,
    context::Context,
    error::Error,
    resources::{PageOf, Resource},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Look(LsShow),
    /// Gives them no new instances; what is on them stays and runs
    Cordon(Which),
    /// Gives them new instances again
    Uncordon(Which),
    /// Gives them no new instances, and says when they hold none: DRAINING until then, CORDONED after it. Stops and moves nothing
    Drain(Which),
    /// Declares hosts dead that do not answer: their guests are taken not to run, and what is on them can be deleted
    Fence(Which),
    /// Removes hosts that hold nothing, for good: their agents are refused from then on
    #[command(visible_alias = "remove")]
    Rm(Which),
    /// Changes a host's labels, or what of it may be promised
    Set(Box<set::Set>),
    /// What a host has with this cloud's tag and the database does not know there
    #[command(subcommand, visible_alias = "orphans")]
    Orphan(OrphanCommand),
    /// What lets new hosts join
    #[command(subcommand, visible_alias = "tokens")]
    Token(token::Command),
    /// What the certificates of hosts and gateways come from
    #[command(subcommand, visible_alias = "authorities")]
    Authority(authority::Command),
}

/// Which hosts.
#[derive(Debug, Args)]
pub struct Which {
    #[command(flatten)]
    hosts: Names,
    /// Only if the host still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// What operators say of a host.
#[derive(Debug, Clone, Copy)]
enum Say {
    Cordon,
    Uncordon,
    Drain,
    Fence,
    Rm,
}

/// `cloud host orphan`.
#[derive(Debug, Subcommand)]
pub enum OrphanCommand {
    /// Lists a host's orphans
    #[command(visible_alias = "list")]
    Ls {
        /// The host, by name or id
        host: String,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Makes a volume of an orphan that is one, with its data, or an instance of a guest, with its disks and addresses
    Adopt(Adopt),
    /// Removes orphans from their host, volumes with their data. Nothing brings them back
    #[command(visible_alias = "delete")]
    Rm {
        /// The host, by name or id
        host: String,
        #[command(flatten)]
        orphans: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `cloud host orphan adopt`.
#[derive(Debug, Args)]
pub struct Adopt {
    /// The host, by name or id
    host: String,
    /// The orphan's id
    orphan: String,
    /// A volume: the project that it shall belong to, by name or id [default: the one worked in]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PROJECT")]
    into: String,
    /// The volume's name [default: `adopted-` and the first digits of its id]
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Look(command) => look::<Host>(connection, command).await,
        Command::Cordon(which) => say(connection, which, Say::Cordon).await,
        Command::Uncordon(which) => say(connection, which, Say::Uncordon).await,
        Command::Drain(which) => say(connection, which, Say::Drain).await,
        Command::Fence(which) => say(connection, which, Say::Fence).await,
        Command::Rm(which) => say(connection, which, Say::Rm).await,
        Command::Set(args) => set::run(connection, *args).await,
        Command::Token(command) => token::run(connection, command).await,
        Command::Authority(command) => authority::run(connection, command).await,
        Command::Orphan(OrphanCommand::Ls { host, list, output }) => {
            let context = Context::new(connection, output).await?;
            let page = |page: PageOf| list_orphans(&context, &host, page);
            let (items, token) = ls::collect(list, page).await?;
            context.out.list(&items, &token)
        }
        Command::Orphan(OrphanCommand::Adopt(args)) => adopt(connection, args).await,
        Command::Orphan(OrphanCommand::Rm { host, orphans, output }) => {
            let context = Context::new(connection, output).await?;
            let batch = batch::each(orphans.unique(), |orphan| remove(&context, &host, orphan)).await;
            context.out.changed(&batch.done)?;
            batch.finish()
        }
    }
}

async fn say(connection: Connection, which: Which, what: Say) -> Result<(), Error> {
    let context = Context::new(connection, which.output).await?;
    let batch = batch::each(which.hosts.unique(), |host| say_of(&context, host, &which.etag, what)).await;
    context.out.changed(&batch.done)?;
    batch.finish()
}

async fn say_of(context: &Context, id: String, etag: &str, what: Say) -> Result<Host, Error> {
    let (subject, mut hosts) = (format!("host {id}"), context.cloud.hosts());
    let (etag, request_id) = (etag.to_owned(), String::new());
    let answer = match what {
        Say::Cordon => hosts.cordon_host(ask(CordonHostRequest { id, etag, request_id })).await,
        Say::Uncordon => hosts.uncordon_host(ask(UncordonHostRequest { id, etag, request_id })).await,
        Say::Drain => hosts.drain_host(ask(DrainHostRequest { id, etag, request_id })).await,
        Say::Fence => hosts.fence_host(ask(FenceHostRequest { id, etag, request_id })).await,
        Say::Rm => hosts.remove_host(ask(RemoveHostRequest { id, etag, request_id })).await,
    };
    Ok(answer.map_err(Error::refused(subject))?.into_inner())
}

async fn list_orphans(context: &Context, host: &str, page: PageOf) -> crate::resources::Page<Orphan> {
    let request = ListOrphansRequest {
        id: host.to_owned(),
        page_size: page.size,
        page_token: page.token,
        filter: page.filter,
        order_by: page.order_by,
    };
    let answer = context.cloud.hosts().list_orphans(ask(request)).await?.into_inner();
    Ok((answer.orphans, answer.next_page_token))
}

async fn adopt(connection: Connection, args: Adopt) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let subject = format!("{} {}", Orphan::KIND, args.orphan);
    let request = AdoptOrphanRequest {
        id: args.host,
        orphan: args.orphan,
        project: args.into,
        name: args.name,
        request_id: String::new(),
    };
    let adopted = context.cloud.hosts().adopt_orphan(ask(request)).await.map_err(Error::refused(subject))?;
    context.out.changed(&[adopted.into_inner()])
}

async fn remove(context: &Context, host: &str, orphan: String) -> Result<Orphan, Error> {
    let subject = format!("{} {orphan}", Orphan::KIND);
    let request = RemoveOrphanRequest { id: host.to_owned(), orphan, request_id: String::new() };
    let removing = context.cloud.hosts().remove_orphan(ask(request)).await.map_err(Error::refused(subject))?;
    Ok(removing.into_inner())
}
