//! Backing a SQLite database up while it is used, and putting a backup in its place.
//!
//! # Theory of operation
//!
//! A **backup** is a copy of one moment (`VACUUM INTO`): the gateway goes on meanwhile.
//!
//! A **restore** has two halves, so that it can be cut off anywhere. First the backup is made ready beside the database: checked, brought up
//! to date, given a new epoch and an event, and renamed to `<database>.restore`. From then on it is decided. Whoever opens the database next (the
//! gateway starts itself again for it) finds that file, keeps the old database under another name, and puts the new one in its place.
//!
//! The new epoch makes agents refuse calls of the old database, and watchers start anew. It is never one that was used before: not even
//! where both databases know less than an agent remembers, since it is also no less than the present time in seconds.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use cloud_core::{
    Kind,
    model::{Caller, NewEvent, Timestamp},
    ports::{Store, StoreError, Tx},
};
use sqlx::migrate::MigrateError;
use tempfile::TempDir;

use super::{
    OpenError, SqlStore,
    engine::{DatabaseError, Pool, SqlitePool, statement},
};
use crate::handlers::Backups;

/// Why a backup was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Not on this engine.
    #[error("the database is PostgreSQL: back it up and restore it with its own tools (pg_dump, pg_restore)")]
    NotSqlite,
    /// The file is no backup of a gateway's database.
    #[error("this is no backup of a gateway's database: {0}")]
    NotOurs(String),
    /// The file is of another cloud than the present database.
    #[error(
        "the backup is of cloud {backup}, and this database is of cloud {present}: restoring it needs allow_other_cloud"
    )]
    OtherCloud {
        /// Of the backup.
        backup: String,
        /// Of the present database.
        present: String,
    },
    /// The backup is of a later release.
    #[error("the backup is of a later release of the gateway: restore it with that one")]
    Newer,
    /// The backup does not open.
    #[error("the backup cannot be opened and brought up to date")]
    Open(#[source] OpenError),
    /// The database.
    #[error("the database failed")]
    Database(#[from] DatabaseError),
    /// An event could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files.
    #[error("the files could not be written")]
    Files(#[from] io::Error),
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The cloud that the backup is of.
    pub cloud: String,
    /// The epoch from here on.
    pub epoch: u64,
}

/// A backup in a directory of its own beside the database, so that it can take its place by a rename. Gone, with all that SQLite puts beside it, when
/// this is dropped; what a crash leaves is removed when the database is opened.
#[derive(Debug)]
pub struct BackupFile(TempDir);

impl BackupFile {
    fn beside(database: &Path) -> io::Result<Self> {
        tempfile::Builder::new().prefix(&prefix(database)).tempdir_in(directory(database)).map(Self)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().join("backup.db")
    }
}

/// What the directories of a database's backups begin with.
fn prefix(database: &Path) -> String {
    let name = database.file_name().unwrap_or_default().to_string_lossy();
    format!(".backup-{name}~")
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Removes what backups left that a crash cut off. Called with the database locked.
pub(super) fn sweep(database: &Path) {
    let prefix = prefix(database);
    let entries = fs::read_dir(directory(database)).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove what a backup left");
        }
    }
}

/// Where a backup that has been made ready waits for the next start.
fn decided(database: &Path) -> PathBuf {
    suffixed(database, ".restore")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Puts a backup in the database's place, if one waits. Called with the database locked and not open.
pub(super) fn finish_restore(database: &Path) -> io::Result<()> {
    let new = decided(database);
    if !new.try_exists()? {
        return Ok(());
    }
    let kept = suffixed(database, &format!(".before-restore-{}", Timestamp::now().0 / 1_000_000));
    for suffix in ["", "-wal", "-shm"] {
        match fs::rename(suffixed(database, suffix), suffixed(&kept, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(&new, database)?;
    sync_directory(database)?;
    tracing::warn!(kept = %kept.display(), "a backup was restored; the database before it is kept");
    Ok(())
}

fn sync_directory(file: &Path) -> io::Result<()> {
    fs::File::open(directory(file))?.sync_all()
}

impl SqlStore {
    /// The database file.
    fn file(&self) -> Result<&Path, BackupError> {
        self.inner.file.as_deref().ok_or(BackupError::NotSqlite)
    }

    /// Writes that something was done with the database into it.
    async fn tell(&self, caller: &Caller, action: &'static str, message: String) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.event(NewEvent {
            project: caller.project,
            kind: Kind::Database,
            resource: *self.inner.cloud.as_uuid(),
            name: "database".to_owned(),
            action,
            actor: caller.key_name.clone(),
            source: caller.source.clone(),
            outcome: NewEvent::OK,
            message,
            request_id: caller.request_id.clone(),
            once: None,
        })
        .await?;
        tx.commit().await
    }
}

#[async_trait]
impl Backups for SqlStore {
    async fn back_up(&self, caller: &Caller) -> Result<BackupFile, BackupError> {
        let copy = BackupFile::beside(self.file()?)?;
        let mut reader = self.inner.readers.acquire().await?;
        statement("VACUUM INTO $1").bind(copy.path().display().to_string()).execute_apart(&mut reader).await?;
        drop(reader);
        // Afterwards, and so not in the copy: a copy that failed is none.
        self.tell(caller, "database.backup", String::new()).await?;
        Ok(copy)
    }

    fn incoming(&self) -> Result<BackupFile, BackupError> {
        Ok(BackupFile::beside(self.file()?)?)
    }

    async fn restore(
        &self,
        caller: &Caller,
        file: BackupFile,
        allow_other_cloud: bool,
    ) -> Result<Restored, BackupError> {
        let (database, backup) = (self.file()?, file.path());
        let cloud = check(&backup).await?;
        let present = self.inner.cloud.to_string();
        if cloud != present && !allow_other_cloud {
            return Err(BackupError::OtherCloud { backup: cloud, present });
        }
        let store = SqlStore::open(&format!("sqlite:{}", backup.display())).await.map_err(unopened)?;
        let seconds = u64::try_from(Timestamp::now().0 / 1_000_000).unwrap_or(0);
        let epoch = seconds.max(self.inner.epoch.max(store.inner.epoch) + 1);
        let renewed = store.renew(epoch, caller).await;
        // Closing writes the log into the file.
        store.close().await;
        drop(store);
        renewed?;
        if suffixed(&backup, "-wal").try_exists()? {
            return Err(io::Error::other("the backup's log was not written into it").into());
        }
        fs::File::open(&backup)?.sync_all()?;
        fs::rename(&backup, decided(database))?;
        sync_directory(database)?;
        Ok(Restored { cloud, epoch })
    }
}

impl SqlStore {
    /// Gives a backup its new epoch, and the event of its restore.
    async fn renew(&self, epoch: u64, caller: &Caller) -> Result<(), BackupError> {
        self.tell(caller, "database.restore", format!("the epoch is {epoch}")).await?;
        let sql = "UPDATE meta SET value = $1 WHERE name = 'epoch'";
        statement(sql).bind(epoch.to_string()).execute(&mut self.inner.writers.acquire().await?).await?;
        Ok(())
    }
}

/// Why a backup that is a whole database does not open.
fn unopened(error: OpenError) -> BackupError {
    match error {
        OpenError::Migrate(MigrateError::VersionMissing(_)) => BackupError::Newer,
        OpenError::Migrate(MigrateError::VersionMismatch(version)) => {
            BackupError::NotOurs(format!("its migration {version} is not this release's"))
        }
        OpenError::Content(what) => BackupError::NotOurs(what.to_owned()),
        other => BackupError::Open(other),
    }
}

/// Whether the file is a whole database of a gateway; its cloud's id.
async fn check(backup: &Path) -> Result<String, BackupError> {
    let not_ours = |error: &dyn std::fmt::Display| BackupError::NotOurs(error.to_string());
    let pool = Pool::Sqlite(SqlitePool::new(backup, 1));
    let whole = async {
        let mut connection = pool.acquire().await?;
        let said = statement("PRAGMA integrity_check").fetch_all_apart(&mut connection).await?;
        let said: String = said.first().ok_or(DatabaseError::NoRow)?.try_get(0)?;
        if said != "ok" {
            return Ok(Err(said));
        }
        let sql = "SELECT value FROM meta WHERE name = 'cloud_id'";
        Ok::<_, DatabaseError>(Ok(statement(sql).fetch_one(&mut connection).await?.try_get::<String>(0)?))
    };
    let found = whole.await;
    pool.close().await;
    found.map_err(|e| not_ours(&e))?.map_err(|said| not_ours(&said))
}
