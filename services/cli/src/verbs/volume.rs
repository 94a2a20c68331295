//! `cloud volume`.

mod attachment;
mod update;

use clap::{Args, Subcommand};
use cloud_contracts::v1::{CreateVolumeRequest, Image, ResizeVolumeRequest, Snapshot, Volume, volume::Status as State};
use cloud_domain::Gib;
use tokio::time::Instant;

use super::{ls, rm, show, watch};
use crate::{
    args::{Connection, Labels, ListArgs, NameArg, Names, OutputArgs, ShowDeleted, WaitArgs, WatchArgs},
    connect::ask,
    context::Context,
    error::Error,
    resources::Fetch,
    wait::{self, Verdict},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a blank one, or a copy
    Create(Create),
    /// Grows one, also while an instance uses it
    Resize(Resize),
    /// Changes its labels, or how much may be read and written in a second, also while an instance uses it
    Update(update::Update),
    /// Attaches one to an instance, also while it runs
    Attach(attachment::Attach),
    /// Detaches one from its instance, also while it runs
    Detach(attachment::Detach),
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
    /// Deletes one or several, with their data
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

/// `cloud volume create`.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    name: NameArg,
    /// Its size in GiB [default: that of what it is a copy of]
    #[arg(long, value_name = "GIB", required_unless_present = "source")]
    size: Option<u32>,
    #[command(flatten)]
    from: From,
    /// The pool, as hosts call it [default: `default`, or that of what it is a copy of]
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Makes it on this host now, not where it is first attached; for operators
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Reads and writes a second, together, 10 to 1000000 [default: no limit]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    iops: u32,
    /// Megabytes read and written a second, together, at most 100000 [default: no limit]
    #[arg(long, value_name = "MB", default_value_t = 0, hide_default_value = true)]
    mb_per_second: u32,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What it starts as.
#[derive(Debug, Args)]
#[group(id = "source", multiple = false)]
struct From {
    /// Starts as a copy of this image
    #[arg(long, value_name = "IMAGE")]
    from_image: Option<String>,
    /// Starts as a copy of this snapshot: restores it
    #[arg(long, value_name = "SNAPSHOT")]
    from_snapshot: Option<String>,
    /// Starts as a copy of this volume, as it is now
    #[arg(long, value_name = "VOLUME")]
    from_volume: Option<String>,
}

/// `cloud volume resize`.
#[derive(Debug, Args)]
pub struct Resize {
    /// The volume, by name or id
    name: String,
    /// Its new size in GiB; a volume does not shrink
    #[arg(long, value_name = "GIB")]
    size: u32,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does one.
pub async fn run(connection: Connection, command: Command) -> Result<(), Error> {
    match command {
        Command::Create(args) => create(connection, args).await,
        Command::Resize(args) => resize(connection, args).await,
        Command::Update(args) => update::run(connection, args).await,
        Command::Attach(args) => attachment::attach(connection, args).await,
        Command::Detach(args) => attachment::detach(connection, args).await,
        Command::Ls { list, deleted, output } => {
            ls::run::<Volume>(&Context::new(connection, output).await?, list, deleted).await
        }
        Command::Watch { name, args, output } => {
            watch::run::<Volume>(&Context::new(connection, output).await?, (), name, args).await
        }
        Command::Show { names, output } => {
            show::run::<Volume>(&Context::new(connection, output).await?, &(), names).await
        }
        Command::Rm { names, wait, output } => {
            rm::run_watched::<Volume>(&Context::new(connection, output).await?, &(), names, wait).await
        }
    }
}

async fn create(connection: Connection, args: Create) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let name = args.name.into_name();
    let subject = format!("volume {name}");
    let size_gib = match args.size {
        Some(size) => size,
        None => size_of(&context, &args.from).await?,
    };
    let request = CreateVolumeRequest {
        name: name.clone(),
        size_gib,
        image: args.from.from_image.unwrap_or_default(),
        snapshot: args.from.from_snapshot.unwrap_or_default(),
        volume: args.from.from_volume.unwrap_or_default(),
        pool: args.pool.unwrap_or_default(),
        host: args.host.unwrap_or_default(),
        labels: args.labels.into_map(),
        iops: args.iops,
        mb_per_second: args.mb_per_second,
        ..Default::default()
    };
    let limit = (args.wait.timeout, Instant::now() + args.wait.timeout);
    let made = context.cloud.volumes().create_volume(ask(request)).await.map_err(Error::refused(subject.clone()))?;
    let mut made = made.into_inner();
    if args.wait.wait {
        let goal = wait::goal("AVAILABLE", |volume: &Volume| match volume.status() {
            State::Available | State::InUse => Verdict::Done,
            State::Deleting | State::Deleted | State::Error => Verdict::Never,
            _ => Verdict::Pending,
        });
        let line = context.progress.line(&subject);
        made = wait::until(&context.cloud, &(), made, &name, goal, limit, &line).await?;
    }
    context.out.changed(&[made])
}

/// The least size of a copy: that of what it is a copy of.
async fn size_of(context: &Context, from: &From) -> Result<u32, Error> {
    let cloud = &context.cloud;
    if let Some(name) = &from.from_snapshot {
        let found = Snapshot::fetch(cloud, &(), name).await;
        return Ok(found.map_err(Error::refused(format!("snapshot {name}")))?.size_gib);
    }
    if let Some(name) = &from.from_volume {
        let found = Volume::fetch(cloud, &(), name).await.map_err(Error::refused(format!("volume {name}")))?;
        return Ok(found.size_gib.max(found.growing_to_gib));
    }
    let name = from.from_image.as_deref().unwrap_or_default();
    let found = Image::fetch(cloud, &(), name).await.map_err(Error::refused(format!("image {name}")))?;
    Ok(Gib::holding(u64::try_from(found.virtual_size_bytes).unwrap_or(0)).map_or(1, Gib::get))
}

async fn resize(connection: Connection, args: Resize) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let subject = format!("volume {}", args.name);
    let limit = (args.wait.timeout, Instant::now() + args.wait.timeout);
    let request = ResizeVolumeRequest { id: args.name.clone(), size_gib: args.size, ..Default::default() };
    let asked = context.cloud.volumes().resize_volume(ask(request)).await.map_err(Error::refused(subject.clone()))?;
    let mut grown = asked.into_inner();
    if args.wait.wait {
        let size = args.size;
        let goal = wait::goal("grown", move |volume: &Volume| match volume.status() {
            _ if volume.size_gib >= size => Verdict::Done,
            State::Deleting | State::Deleted => Verdict::Never,
            // Given up, with the reason.
            _ if volume.growing_to_gib == 0 => Verdict::Never,
            _ => Verdict::Pending,
        });
        let line = context.progress.line(&subject);
        grown = wait::until(&context.cloud, &(), grown, &args.name, goal, limit, &line).await?;
    }
    context.out.changed(&[grown])
}
