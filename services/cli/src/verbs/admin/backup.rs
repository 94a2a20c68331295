//! `cloud admin backup`: the file is whole, and on the disk, or it is not there.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use cloud_contracts::v1::BackupDatabaseRequest;

use crate::{
    args::{Connection, OutputArgs},
    connect::within,
    context::Context,
    error::Error,
};

/// The longest that a backup may take.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);
const SUBJECT: &str = "the database";

/// How to.
#[derive(Debug, Args)]
pub struct Backup {
    /// Where to; keep it as safe as the database, which has hashes of API keys
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// A file that is being written. Gone when it is dropped before it has its name.
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Unfinished {
    fn beside(path: &Path) -> Result<Self, Error> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}~", uuid::Uuid::new_v4().simple()));
        let path = PathBuf::from(name);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(Self { path, file })
    }

    /// On the disk under its name; where another file has it, that one is replaced or this is an error.
    fn finish(&self, path: &Path, force: bool) -> std::io::Result<()> {
        self.file.sync_all()?;
        if force {
            fs::rename(&self.path, path)?;
        } else {
            fs::hard_link(&self.path, path)?;
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        File::open(parent)?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing is there any more where it was renamed.
        let _gone = fs::remove_file(&self.path);
    }
}

/// Backs up.
pub async fn run(connection: Connection, args: Backup) -> Result<(), Error> {
    let path = &args.file;
    if !args.force && fs::symlink_metadata(path).is_ok() {
        return Err(Error::usage(format!("{} is there already: --force replaces it", path.display())));
    }
    let unwritten = |source| Error::Write { path: path.clone(), source };
    let mut to = Unfinished::beside(path)?;
    let context = Context::new(connection, args.output).await?;
    let mut client = context.cloud.admin();
    let answer = client.backup_database(within(DEADLINE, BackupDatabaseRequest {})).await;
    let mut data = answer.map_err(Error::refused(SUBJECT))?.into_inner();
    let mut size = 0_u64;
    while let Some(message) = data.message().await.map_err(Error::refused(SUBJECT))? {
        to.file.write_all(&message.data).map_err(unwritten)?;
        size += message.data.len() as u64;
    }
    to.finish(path, args.force).map_err(unwritten)?;
    let text = format!("{}: {}", path.display(), crate::output::human::bytes(size));
    context.out.plain(&text, &serde_json::json!({ "file": path, "size_bytes": size }))?;
    eprintln!("the master key is not in it: keep the gateway's master.key apart");
    Ok(())
}
