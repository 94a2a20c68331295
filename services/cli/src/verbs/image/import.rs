//! `cloud image import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cloud_contracts::v1::{
    Image, ImportImageRequest, UploadImageHeader,
    image::{Format, Status as State, Visibility},
    import_image_request::Source,
};
use tokio::time::Instant;

use super::upload;
use crate::{
    args::{Connection, Labels, NameArg, OutputArgs, WaitArgs},
    connect::ask,
    context::Context,
    error::Error,
    wait::{self, Goal, Verdict},
};

/// Its arguments.
#[derive(Debug, Args)]
pub struct Import {
    #[command(flatten)]
    name: NameArg,
    #[command(flatten)]
    source: From,
    /// What the bytes must be [default: found out]
    #[arg(id = "layout", long = "format", value_enum, value_name = "FORMAT")]
    format: Option<Layout>,
    /// What their SHA-256 must be, in hex
    #[arg(long, default_value = "", hide_default_value = true, value_name = "HEX")]
    sha256: String,
    /// Whose machine code is on it, x86_64 or aarch64 [default: the gateway's own]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    architecture: String,
    /// Every project may use it (operators)
    #[arg(long)]
    public: bool,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where the bytes are.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct From {
    /// At an http or https URL, fetched by the gateway
    #[arg(long)]
    url: Option<String>,
    /// In a file here, uploaded; --timeout counts from its end
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// In a file beneath the gateway's import directory (operators)
    #[arg(long, value_name = "PATH")]
    import_file: Option<String>,
}

/// How bytes are laid out.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Layout {
    Qcow2,
    Raw,
}

impl From {
    /// What the gateway can fetch itself.
    fn remote(url: Option<String>, import_file: Option<String>) -> Option<Source> {
        url.map(Source::Url).or(import_file.map(Source::File))
    }
}

fn ready() -> Goal<impl Fn(&Image) -> Verdict> {
    wait::goal("READY", |seen: &Image| match seen.status() {
        State::Ready => Verdict::Done,
        State::Deleting | State::Deleted => Verdict::Never,
        _ => Verdict::Pending,
    })
}

/// Imports.
pub async fn run(connection: Connection, args: Import) -> Result<(), Error> {
    let format = match args.format {
        None => Format::Unspecified,
        Some(Layout::Qcow2) => Format::Qcow2,
        Some(Layout::Raw) => Format::Raw,
    };
    let visibility = if args.public { Visibility::Public } else { Visibility::Private };
    let header = UploadImageHeader {
        name: args.name.into_name(),
        format: format.into(),
        sha256: args.sha256,
        visibility: visibility.into(),
        labels: args.labels.into_map(),
        architecture: args.architecture,
        ..Default::default()
    };
    let name = header.name.clone();
    let subject = format!("image {name}");
    let file = args.source.file.map(upload::Source::open).transpose()?;
    let context = Context::new(connection, args.output).await?;
    let image = match file {
        Some(file) => upload::run(&context, file, header).await?,
        None => {
            let source = From::remote(args.source.url, args.source.import_file);
            let answer = context.cloud.images().import_image(ask(request(header, source))).await;
            answer.map_err(Error::refused(subject.clone()))?.into_inner()
        }
    };
    let image = if args.wait.wait {
        let limit = (args.wait.timeout, Instant::now() + args.wait.timeout);
        let line = context.progress.line(&subject);
        wait::until(&context.cloud, &(), image, &name, ready(), limit, &line).await?
    } else {
        image
    };
    context.out.changed(&[image])
}

fn request(header: UploadImageHeader, source: Option<Source>) -> ImportImageRequest {
    ImportImageRequest {
        name: header.name,
        source,
        format: header.format,
        sha256: header.sha256,
        visibility: header.visibility,
        labels: header.labels,
        architecture: header.architecture,
        ..Default::default()
    }
}
