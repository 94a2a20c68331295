//! Opening a database: the pools, the lock, the migrations, the cloud's identity.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use cloud_core::ports::StoreError;
use cloud_domain::CloudId;
use sqlx::{Any, AnyPool, Executor, Transaction, any::AnyPoolOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    backup, dialect::Dialect, error::fault, error::from_sqlx, identity, notify::Notifications, quota, writer::Writer,
};

/// Counts commits, for those who wait for one.
pub(super) type Commits = watch::Sender<u64>;

/// Connections that read a SQLite database.
const READERS: u32 = 8;
/// Connections to a PostgreSQL database.
const CONNECTIONS: u32 = 24;
/// How long a call waits for a connection: a database that is away is said to be.
const ACQUIRE: Duration = Duration::from_secs(3);

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
    Database(#[from] sqlx::Error),
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
            Self::Database(error) | Self::Migrate(sqlx::migrate::MigrateError::Execute(error)) => {
                super::error::is_away(error)
            }
            _ => false,
        }
    }
}

pub(super) struct Inner {
    pub(super) dialect: Dialect,
    pub(super) readers: AnyPool,
    pub(super) writers: AnyPool,
    /// SQLite's one writer.
    pub(super) writer: Option<Writer>,
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
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(url).ok_or_else(|| OpenError::Url(url.to_owned()))?;
        let (owned, url) = if dialect.is_sqlite() {
            let (lock, file) = own_file(url)?;
            backup::sweep(&file);
            backup::finish_restore(&file).map_err(|source| OpenError::Restore { path: file.clone(), source })?;
            let url = format!("sqlite://{}?mode=rwc", file.display());
            (Some((lock, file)), url)
        } else {
            (None, url.to_owned())
        };
        let writers = pool(dialect, if dialect.is_sqlite() { 1 } else { CONNECTIONS }).connect(&url).await?;
        sqlx::migrate!("./migrations").run(&writers).await?;
        quota::fill(&writers, dialect).await?;
        let readers = if dialect.is_sqlite() { pool(dialect, READERS).connect(&url).await? } else { writers.clone() };
        let (cloud, epoch, secret) = identity::ensure(&writers).await?;
        if dialect.is_sqlite() {
            // Nor is anything due later than now: the clock may have been set back since, and what failed may do now.
            let now = dialect.now(&mut *writers.acquire().await?).await?;
            let sql = "UPDATE work SET lease_token = NULL, lease_until = NULL, due_at = CASE WHEN due_at > $1 THEN $1 ELSE due_at END";
            sqlx::query(sql).bind(now.0).execute(&writers).await?;
        }
        let commits = watch::Sender::new(0);
        let (writer, notifications) = if dialect.is_sqlite() {
            let revision = identity::revision(&writers).await?;
            (Some(Writer::start(writers.clone(), revision)), None)
        } else {
            (None, Some(Notifications::start(url, writers.clone(), commits.clone())))
        };
        let background = Arc::new(Semaphore::new(CONNECTIONS as usize / 2));
        let (lock, file) = owned.unzip();
        let inner = Inner {
            dialect,
            readers,
            writers,
            writer,
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
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT 1").execute(&self.inner.readers).await.map(|_| ())
    }

    /// Closes all connections, and lets go of the file: whoever still has the store can do nothing with it.
    pub async fn close(&self) {
        if let Some(writer) = &self.inner.writer {
            writer.close().await;
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

/// Begins a transaction, by this statement or the usual one. In a task that is not cancelled with the caller: of a transaction whose BEGIN was on
/// its way when the caller went, sqlx knows nothing, and its connection would go back to the pool inside of it. What others wrote there would
/// not be committed, and after a read-only one nobody could write.
pub(super) async fn begin(
    pool: &AnyPool,
    statement: Option<&'static str>,
) -> Result<Transaction<'static, Any>, StoreError> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move {
        match statement {
            Some(statement) => pool.begin_with(statement).await,
            None => pool.begin().await,
        }
    });
    begun.await.map_err(fault)?.map_err(from_sqlx)
}

fn pool(dialect: Dialect, size: u32) -> AnyPoolOptions {
    let options = AnyPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE);
    if !dialect.is_sqlite() {
        return options;
    }
    // Connections stay: opening one costs more than keeping it.
    options.min_connections(size).idle_timeout(None).max_lifetime(None).test_before_acquire(false).after_connect(
        |connection, _| {
            Box::pin(async move {
                // A commit is on the disk when it returns (synchronous=FULL), and readers do not wait for it (WAL).
                for pragma in [
                    "PRAGMA busy_timeout = 10000",
                    "PRAGMA journal_mode = WAL",
                    "PRAGMA synchronous = FULL",
                    "PRAGMA foreign_keys = ON",
                    "PRAGMA cache_size = -2000",
                ] {
                    connection.execute(pragma).await?;
                }
                Ok(())
            })
        },
    )
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
