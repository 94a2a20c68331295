//! What was kept long enough goes: deleted rows, events, request ids.
//!
//! # Theory of operation
//!
//! Every gateway sweeps now and then, in small transactions that let callers go first. Two at a time do no harm: a row goes once, and whoever
//! comes second finds it gone.
//!
//! A deleted row has given its claims back when the objects on its host were gone; that is what made it a deleted row. It is purged only where
//! nothing that lives still says its id, and no work on it is left: a deleted image, say, stays until the last disk made from it is gone
//! and no host has a copy. What each kind has to wait for stands in one place, its [`Retained`].
//!
//! Whoever watches from before a purged change cannot be told of it any more: the highest purged revision is written down in the same
//! transaction ([`Store::purged`]), and older resume tokens are refused.

use std::{future::Future, sync::Arc, time::Duration};

use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::{
    CoreError,
    filter::{Field, FieldKind, Filter, Op, Term},
    model::{
        ApiKey, Host, Image, Instance, InstanceType, JoinToken, Orphan, Port, Project, Resource, Snapshot, Subnet,
        Timestamp, Volume, Vpc,
    },
    ports::{Query, Store, StoreError, Tx},
    services::{Settings, is_of_the_file},
};

/// Rows that one transaction removes at most.
const BATCH: u32 = 200;

/// Hears how many rows of which kind were purged.
pub type Purged = Arc<dyn Fn(&'static str, u64) + Send + Sync>;

/// A kind of row that is purged some time after its deletion.
trait Retained: Resource {
    /// Whether nothing needs a deleted row any more. What must outlive it is written here, in the transaction that removes it.
    fn may_go<S: Store>(&self, store: &S, tx: &mut S::Tx) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// The sweeps.
pub struct Retention<S> {
    store: S,
    settings: Settings,
    purged: Purged,
}

impl<S: Store> Retention<S> {
    /// Sweeps over a store.
    pub fn new(store: S, settings: Settings, purged: Purged) -> Self {
        Self { store, settings, purged }
    }

    /// Sweeps until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            // Gateways that were started together do not sweep together.
            let pause = self.settings.purge_interval.mul_f64(rand::rng().random_range(0.75..1.25));
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            match shutdown.run_until_cancelled(self.sweep()).await {
                Some(Ok(())) => {}
                // The next sweep does what this one did not.
                Some(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "a purge failed"),
                None => return,
            }
        }
    }

    /// Removes all that was kept long enough.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep(&self) -> Result<(), CoreError> {
        self.rows::<Port>().await?;
        self.rows::<Volume>().await?;
        self.rows::<Snapshot>().await?;
        self.rows::<Instance>().await?;
        self.rows::<Subnet>().await?;
        self.rows::<Vpc>().await?;
        self.rows::<Image>().await?;
        self.rows::<InstanceType>().await?;
        self.rows::<ApiKey>().await?;
        self.rows::<Orphan>().await?;
        self.rows::<JoinToken>().await?;
        self.rows::<Host>().await?;
        self.rows::<Project>().await?;
        self.events().await?;
        self.requests().await
    }

    async fn rows<R: Retained>(&self) -> Result<(), CoreError> {
        let before = ago(self.settings.keep_deleted);
        let mut after = None;
        loop {
            let found: Vec<R> = self.store.deleted(before, after, BATCH).await?;
            let Some(last) = found.last() else { return Ok(()) };
            // What stays is passed over, and looked at again in the next sweep.
            after = last.meta().deleted_at.map(|at| (at, last.meta().id));
            let mut tx = self.store.begin_background().await?;
            let mut gone = 0;
            for row in &found {
                if row.may_go(&self.store, &mut tx).await? && tx.purge(row).await? {
                    gone += 1;
                }
            }
            if gone > 0 {
                tx.commit().await?;
                (self.purged)(R::KIND.as_str(), gone);
            }
        }
    }

    async fn events(&self) -> Result<(), CoreError> {
        let before = ago(self.settings.keep_events);
        loop {
            let mut tx = self.store.begin_background().await?;
            match tx.purge_events(before, BATCH).await? {
                0 => return Ok(()),
                gone => {
                    tx.commit().await?;
                    (self.purged)("event", gone);
                }
            }
        }
    }

    async fn requests(&self) -> Result<(), CoreError> {
        let now = Timestamp::now();
        loop {
            let mut tx = self.store.begin_background().await?;
            match tx.purge_requests(now, BATCH).await? {
                0 => return Ok(()),
                gone => {
                    tx.commit().await?;
                    (self.purged)("request", gone);
                }
            }
        }
    }
}

fn ago(kept: Duration) -> Timestamp {
    let micros = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
    Timestamp(Timestamp::now().0.saturating_sub(micros))
}

/// Whether no live row of a kind has this value in this column.
async fn none<R: Resource, T: Tx>(
    tx: &mut T,
    column: &'static str,
    id: &(impl ToString + Sync),
) -> Result<bool, StoreError> {
    let query = Query { limit: Some(1), ..Query::by(column, id) };
    Ok(tx.list::<R>(&query).await?.is_empty())
}

impl Retained for Port {
    async fn may_go<S: Store>(&self, _: &S, _: &mut S::Tx) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Retained for Volume {
    async fn may_go<S: Store>(&self, _: &S, _: &mut S::Tx) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Retained for Snapshot {
    async fn may_go<S: Store>(&self, _: &S, _: &mut S::Tx) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Retained for Instance {
    async fn may_go<S: Store>(&self, _: &S, tx: &mut S::Tx) -> Result<bool, StoreError> {
        let id = self.id();
        Ok(!self.holds_capacity
            && none::<Volume, _>(tx, "instance_id", &id).await?
            && none::<Port, _>(tx, "instance_id", &id).await?)
    }
}

impl Retained for Subnet {
    async fn may_go<S: Store>(&self, _: &S, tx: &mut S::Tx) -> Result<bool, StoreError> {
        none::<Port, _>(tx, "subnet_id", &self.id()).await
    }
}

impl Retained for Vpc {
    async fn may_go<S: Store>(&self, _: &S, tx: &mut S::Tx) -> Result<bool, StoreError> {
        Ok(none::<Subnet, _>(tx, "vpc_id", &self.id()).await? && none::<Port, _>(tx, "vpc_id", &self.id()).await?)
    }
}

/// Where a volume says which image it is made from.
static MADE_FROM: Field = Field::new("image_id", FieldKind::Text, &["image"]);

impl Retained for Image {
    async fn may_go<S: Store>(&self, store: &S, _: &mut S::Tx) -> Result<bool, StoreError> {
        let made = Term { field: &MADE_FROM, key: None, op: Op::Is, value: self.id().to_string() };
        let query = Query { filter: Filter::of(vec![made]), limit: Some(1), ..Query::default() };
        // Looks at every volume, so not while nobody else can write: nothing new is made from an image that is deleted.
        Ok(store.list::<Volume>(&query).await?.is_empty())
    }
}

impl Retained for InstanceType {
    async fn may_go<S: Store>(&self, _: &S, _: &mut S::Tx) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Retained for ApiKey {
    async fn may_go<S: Store>(&self, _: &S, _: &mut S::Tx) -> Result<bool, StoreError> {
        // Forgotten, a secret that was ended would open again at the next start, if it still is in the operator's file.
        Ok(!is_of_the_file(self))
    }
}

impl Retained for Orphan {
    async fn may_go<S: Store>(&self, _: &S, _: &mut S::Tx) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Retained for JoinToken {
    async fn may_go<S: Store>(&self, _: &S, _: &mut S::Tx) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Retained for Host {
    /// Never: a removed host's identity is refused for as long as its row is there.
    async fn may_go<S: Store>(&self, _: &S, _: &mut S::Tx) -> Result<bool, StoreError> {
        Ok(false)
    }
}

impl Retained for Project {
    async fn may_go<S: Store>(&self, _: &S, tx: &mut S::Tx) -> Result<bool, StoreError> {
        // Its deleted rows too: whoever may look at them does so in their project.
        let all = Query { project: Some(self.meta.id.into()), deleted: true, limit: Some(1), ..Query::default() };
        Ok(tx.list::<Instance>(&all).await?.is_empty()
            && tx.list::<Volume>(&all).await?.is_empty()
            && tx.list::<Snapshot>(&all).await?.is_empty()
            && tx.list::<Port>(&all).await?.is_empty()
            && tx.list::<Image>(&all).await?.is_empty()
            && tx.list::<Vpc>(&all).await?.is_empty()
            && tx.list::<Subnet>(&all).await?.is_empty()
            && tx.list::<ApiKey>(&all).await?.is_empty())
    }
}
