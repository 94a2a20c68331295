//! Telling the other gateways on one PostgreSQL database that something was committed, and hearing it from them.
//!
//! It only saves them time: everything is right without, since workers look at the table once a second anyway. What is told is coalesced
//! and sent outside of the transactions: PostgreSQL makes those that notify commit one after another.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgListener;
use tokio::{sync::Notify, time::sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{
    engine::{DatabaseError, Pool, statement},
    open::Commits,
};

const CHANNEL: &str = "cloud_commits";
/// At most one notification in this time.
const COALESCE: Duration = Duration::from_millis(5);
/// How long to wait before connecting again.
const AGAIN: Duration = Duration::from_secs(1);

/// Both tasks; they end with it.
pub(super) struct Notifications {
    /// Something was committed here.
    pub(super) committed: Arc<Notify>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Notifications {
    pub(super) fn start(url: String, pool: Pool, commits: Commits) -> Self {
        let committed = Arc::new(Notify::new());
        let me = uuid::Uuid::new_v4().to_string();
        let tell = tokio::spawn(tell(pool, Arc::clone(&committed), me.clone()));
        let hear = tokio::spawn(hear(url, commits, me));
        Self { committed, _tasks: [AbortOnDropHandle::new(tell), AbortOnDropHandle::new(hear)] }
    }
}

async fn tell(pool: Pool, committed: Arc<Notify>, me: String) {
    loop {
        committed.notified().await;
        let told = async {
            let mut connection = pool.acquire().await?;
            let told = statement("SELECT CAST(pg_notify($1, $2) AS TEXT)").bind(CHANNEL).bind(me.clone());
            told.execute(&mut connection).await
        };
        if let Err(error) = told.await {
            debug!(%error, "other gateways could not be told of a commit");
        }
        sleep(COALESCE).await;
    }
}

async fn hear(url: String, commits: Commits, me: String) {
    loop {
        if let Err(error) = listen(&url, &commits, &me).await {
            debug!(%error, "other gateways cannot be heard now");
        }
        sleep(AGAIN).await;
    }
}

async fn listen(url: &str, commits: &Commits, me: &str) -> Result<(), DatabaseError> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // None: the connection was lost and made anew; something may have been missed.
        let heard = listener.try_recv().await?;
        if heard.is_none_or(|told| told.payload() != me) {
            commits.send_modify(|n| *n += 1);
        }
    }
}
