//! Opening a database: the pools, the lock, the migrations, the cloud's identity.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use cloud_core::ports::StoreError;
use cloud_domain::CloudId;
use sqlx::{
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{
    backup,
    dialect::Dialect,
    engine::{ACQUIRE, DatabaseError, Pool, SqlitePool, statement},
    identity,
    notify::Notifications,
    quota,
    writer::Writer,
};

/// Counts commits, for those who wait for one.
pub(super) type Commits = watch::Sender<u64>;

/// Connections that read a SQLite database.
const READERS: u32 = 8;
/// Connections to a PostgreSQL database.
const CONNECTIONS: u32 = 24;

/// Why a database was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Neither `sqlite:` nor `postgres:`.
    #[error("`{0}` is not a database URL: use sqlite:/path/to/file or postgres://user@host/name")]
    Url(String),
    /// Another gateway has it.
    #[error("another process uses {0}: one gateway to a SQLite file; use PostgreSQL for several")]
    Locked(PathBuf),
    /// The lock file cannot be made.
    #[error("cannot lock {path}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A backup waits, and cannot be put in the database's place.
    #[error("cannot put the backup in the place of {path}")]
    Restore {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database does not answer or is not ours.
    #[error("cannot open the database")]
    Database(#[from] DatabaseError),
    /// The schema cannot be brought up to date.
    #[error("cannot migrate the database")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// What should be in it is not.
    #[error("the database is not whole: {0}")]
    Content(&'static str),
}

impl OpenError {
    /// Whether the database did not answer, which may pass.
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::Database(error) => super::error::is_away(error),
            Self::Migrate(sqlx::migrate::MigrateError::Execute(error)) => super::error::is_server_away(error),
            _ => false,
        }
    }
}

pub(super) struct Inner {
    pub(super) dialect: Dialect,
    pub(super) readers: Pool,
    pub(super) writers: Pool,
    /// SQLite's one writer.
    pub(super) writer: Option<Writer>,
    /// What copies its log, and its connection.
    checkpoint: Option<(Pool, AbortOnDropHandle<()>)>,
    /// Connections of PostgreSQL that work which nobody waits for may hold at once.
    background: Arc<Semaphore>,
    pub(super) commits: Commits,
    /// Where there may be other gateways.
    notifications: Option<Notifications>,
    pub(super) cloud: CloudId,
    pub(super) epoch: u64,
    pub(super) secret: [u8; 32],
    /// Of SQLite.
    pub(super) file: Option<PathBuf>,
    /// Held until the store is closed.
    lock: Option<File>,
}

/// The store on a SQL database. Cheap to clone.
#[derive(Clone)]
pub struct SqlStore {
    pub(super) inner: Arc<Inner>,
}

impl Inner {
    /// Something was committed here: wakes those who wait for it.
    pub(super) fn committed(&self) {
        self.commits.send_modify(|n| *n += 1);
        if let Some(others) = &self.notifications {
            others.committed.notify_one();
        }
    }
}

impl SqlStore {
    /// Opens (and makes, on SQLite) the database, and brings its schema up to date.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let dialect = Dialect::of(url).ok_or_else(|| OpenError::Url(url.to_owned()))?;
        let (owned, writers, readers, log) = if dialect.is_sqlite() {
            let (lock, file) = own_file(url)?;
            backup::sweep(&file);
            backup::finish_restore(&file).map_err(|source| OpenError::Restore { path: file.clone(), source })?;
            migrate_sqlite(&file).await?;
            let pool = |size| Pool::Sqlite(SqlitePool::new(&file, size));
            let (writers, readers, log) = (pool(1), pool(READERS), pool(1));
            (Some((lock, file)), writers, readers, Some(log))
        } else {
            // Connections stay: opening one costs more than keeping it.
            let options = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE);
            let pool = options.connect(url).await.map_err(DatabaseError::from)?;
            sqlx::migrate!("./migrations").run(&pool).await?;
            let pool = Pool::Postgres(pool);
            (None, pool.clone(), pool, None)
        };
        quota::fill(&writers, dialect).await?;
        let (cloud, epoch, secret) = identity::ensure(&writers).await?;
        if dialect.is_sqlite() {
            // Nor is anything due later than now: the clock may have been set back since, and what failed may do now.
            let mut connection = writers.acquire().await?;
            let now = dialect.now(&mut connection).await?;
            let sql = "UPDATE work SET lease_token = NULL, lease_until = NULL, due_at = CASE WHEN due_at > $1 THEN $1 ELSE due_at END";
            statement(sql).bind(now.0).execute(&mut connection).await?;
        }
        let commits = watch::Sender::new(0);
        let (writer, notifications) = if dialect.is_sqlite() {
            let revision = identity::revision(&writers).await?;
            (Some(Writer::start(writers.clone(), revision)), None)
        } else {
            (None, Some(Notifications::start(url.to_owned(), writers.clone(), commits.clone())))
        };
        let checkpoint = log.zip(writer.as_ref()).map(|(log, writer): (Pool, &Writer)| {
            let task = writer.copy_log(log.clone());
            (log, task)
        });
        let background = Arc::new(Semaphore::new(CONNECTIONS as usize / 2));
        let (lock, file) = owned.unzip();
        let inner = Inner {
            dialect,
            readers,
            writers,
            writer,
            checkpoint,
            background,
            commits,
            notifications,
            cloud,
            epoch,
            secret,
            file,
            lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Waits for a place of background work at the writers.
    pub(super) async fn background(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let places = Arc::clone(&self.inner.background);
        places.acquire_owned().await.map_err(|closed| StoreError::Fault(Box::new(closed)))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        statement("SELECT 1").fetch_one(&mut self.inner.readers.acquire().await?).await.map(|_| ())
    }

    /// Closes all connections, and lets go of the file: whoever still has the store can do nothing with it.
    pub async fn close(&self) {
        if let Some(writer) = &self.inner.writer {
            writer.close().await;
        }
        if let Some((log, _)) = &self.inner.checkpoint {
            log.close().await;
        }
        self.inner.readers.close().await;
        self.inner.writers.close().await;
        if let Some(lock) = &self.inner.lock
            && let Err(error) = lock.unlock()
        {
            tracing::warn!(%error, "cannot unlock the database");
        }
    }
}

/// Brings the schema of a file up to date; makes the file where there is none.
async fn migrate_sqlite(file: &Path) -> Result<(), OpenError> {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true).foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(DatabaseError::from)?;
    let done = sqlx::migrate!("./migrations").run(&pool).await;
    pool.close().await;
    Ok(done?)
}

fn own_file(url: &str) -> Result<(File, PathBuf), OpenError> {
    let path = url.trim_start_matches("sqlite:").split('?').next().unwrap_or_default();
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.contains(":memory:") {
        return Err(OpenError::Url(url.to_owned()));
    }
    let lock = PathBuf::from(format!("{path}.lock"));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .map_err(|source| OpenError::Lock { path: lock.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok((file, PathBuf::from(path))),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked(PathBuf::from(path))),
        Err(std::fs::TryLockError::Error(source)) => Err(OpenError::Lock { path: lock, source }),
    }
}
