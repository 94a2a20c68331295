//! `cloud admin restore`: the backup goes up, and then the gateway is waited for.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use cloud_contracts::v1::{
    ListInstanceTypesRequest, RestoreDatabaseHeader, RestoreDatabaseRequest, restore_database_request::Message,
};
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::{
    args::{Connection, OutputArgs, duration},
    connect::{Cloud, within},
    context::Context,
    error::Error,
};

/// How much goes into a message: well under the 4 MiB that gRPC takes.
const CHUNK: u64 = 1 << 20;
/// The longest that a restore may take.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// Between two looks at whether the gateway is back, and how long each may take.
const PAUSE: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_secs(5);
const SUBJECT: &str = "the database";

/// How to.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also a backup of another cloud than the present database is of
    #[arg(long)]
    allow_other_cloud: bool,
    /// How long to wait for the gateway afterwards, such as 90s or 5m
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// Restores.
pub async fn run(connection: Connection, args: Restore) -> Result<(), Error> {
    let unread = |source| Error::Read { path: args.file.clone(), source };
    let (file, sha256) = open(&args.file).map_err(unread)?;
    let context = Context::new(connection.clone(), args.output).await?;
    let header = RestoreDatabaseHeader { allow_other_cloud: args.allow_other_cloud, sha256 };
    let first = RestoreDatabaseRequest { message: Some(Message::Header(header)) };
    let messages = stream::iter([first]).chain(stream::unfold(file, |file| async move {
        let mut data = Vec::new();
        // One that cannot be read to its end arrives with another SHA-256, and is refused.
        (&file).take(CHUNK).read_to_end(&mut data).ok().filter(|count| *count > 0)?;
        Some((RestoreDatabaseRequest { message: Some(Message::Data(data.into())) }, file))
    }));
    let answer = context.cloud.admin().restore_database(within(DEADLINE, messages)).await;
    let restored = answer.map_err(Error::refused(SUBJECT))?.into_inner();
    let line = context.progress.line(SUBJECT);
    line.status("restored; the gateway starts again");
    is_back(&connection, args.timeout).await?;
    drop(line);
    let text = format!("cloud {}, epoch {}", restored.cloud_id, restored.epoch);
    let document = serde_json::json!({ "cloud_id": restored.cloud_id, "epoch": restored.epoch });
    context.out.plain(&text, &document)
}

/// The file, and its SHA-256.
fn open(path: &Path) -> io::Result<(File, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    file.rewind()?;
    Ok((file, hex::encode(hash.finalize())))
}

/// Waits until the gateway answers, on a new connection: the old ones end with the old database. An answer that refuses is one too, as where the
/// backup does not know this key.
async fn is_back(connection: &Connection, timeout: Duration) -> Result<(), Error> {
    let until = Instant::now() + timeout;
    loop {
        sleep(PAUSE).await;
        let reason = match look(connection).await {
            Ok(()) => return Ok(()),
            Err(Error::Refused { status, .. })
                if !matches!(
                    status.code(),
                    Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled
                ) =>
            {
                return Ok(());
            }
            Err(error @ (Error::Refused { .. } | Error::Unreachable { .. })) => error.to_string(),
            Err(error) => return Err(error),
        };
        if Instant::now() >= until {
            let subject = "the gateway, its database restored,".to_owned();
            return Err(Error::Late { subject, status: "away".to_owned(), reason, waited: timeout });
        }
    }
}

async fn look(connection: &Connection) -> Result<(), Error> {
    let cloud = Cloud::connect(connection.clone()).await?;
    let request = ListInstanceTypesRequest { page_size: 1, ..Default::default() };
    cloud.types().list_instance_types(within(LOOK, request)).await.map_err(Error::refused(SUBJECT))?;
    Ok(())
}
