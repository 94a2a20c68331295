//! One watcher: the current state, what was committed meanwhile, then the hub, without a gap between them.
//!
//! The order is what makes it right. The revision is read first, so that everything which the pages of the current state may miss comes
//! after it. When the last page is read, the store is asked for what came after that revision, up to one that is read now: from here on
//! nothing older than what was shown can appear. Only then does the hub's position count, and batches that end before the watcher's own
//! position are passed over.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    ChangeKind, Told, Watch,
    hub::{Batch, Hub},
    keys::{KeyGuard, Place},
    source::{SLICE, Source},
    token::Token,
};
use crate::{
    CoreError,
    ports::{Changed, Cursor, Query, Store},
};

/// How long to wait where the store has not come up to what it was at before.
const AGAIN: Duration = Duration::from_millis(20);

/// A row that is written again and again can be missed by one look after another, since it comes with its last revision only. No row is for
/// so long, so what was made before that is known.
const HIDDEN: Duration = Duration::from_secs(60);

/// Decides on a row.
type Predicate<T> = Box<dyn Fn(&T) -> bool + Send + Sync>;

/// What a watcher sees.
pub(super) struct Scope<T> {
    /// The rows of the current state, or more.
    pub(super) query: Query,
    /// Whether a row is the watcher's.
    pub(super) sees: Predicate<T>,
}

/// What is read next.
enum Phase {
    /// The current state, after this row.
    Current(Option<Cursor>),
    /// What was committed up to this revision.
    Behind(u64),
    /// What the hub finds.
    Live,
}

/// Everything of a watcher but its end.
pub(super) struct Tap<F: Source> {
    hub: Arc<Hub<F, F::Row>>,
    epoch: u64,
    scope: Scope<F::Row>,
    phase: Phase,
    joined: Option<Receiver<Batch<F::Row>>>,
    /// Up to here all is in `ready`, or was told.
    at: u64,
    ready: VecDeque<Told<F::Row>>,
    /// Rows that were made after this are new to the watcher, once.
    born: u64,
    /// Those of them that were told, and for a while the current state.
    known: HashMap<Uuid, Known>,
    /// Where this was a while ago, and when.
    mark: (u64, Instant),
}

/// A row as it was told.
struct Known {
    version: u64,
    /// The transaction that made it; 0 in the current state.
    created: u64,
}

impl<F: Source> Tap<F> {
    /// Checks the token and begins.
    pub(super) async fn open(
        hub: Arc<Hub<F, F::Row>>,
        epoch: u64,
        scope: Scope<F::Row>,
        resume_token: &str,
    ) -> Result<Self, CoreError> {
        let token = if resume_token.is_empty() { None } else { Some(Token::parse(resume_token)?) };
        let joined = if F::JOINS_FIRST { Some(hub.join().await?.0) } else { None };
        let now = hub.source().revision().await?;
        let (at, phase) = match token {
            None => (now, Phase::Current(None)),
            Some(token) => {
                token.check(epoch, now, hub.source().purged().await?)?;
                (token.revision, Phase::Behind(now))
            }
        };
        let (ready, known, mark) = (VecDeque::new(), HashMap::new(), (at, Instant::now()));
        Ok(Self { hub, epoch, scope, phase, joined, at, ready, born: at, known, mark })
    }

    fn token(&self, revision: u64) -> String {
        Token { epoch: self.epoch, revision }.to_string()
    }

    /// Waits for something to tell, or a step towards it.
    async fn fill(&mut self) -> Result<(), CoreError> {
        match &mut self.phase {
            Phase::Current(after) => {
                let after = after.take();
                self.page(after).await
            }
            Phase::Behind(until) if self.at < *until => self.catch_up().await,
            Phase::Behind(_) => self.join().await,
            Phase::Live => self.receive().await,
        }
    }

    /// Reads a page of the current state.
    async fn page(&mut self, after: Option<Cursor>) -> Result<(), CoreError> {
        let query = Query { after: after.clone(), limit: Some(SLICE), ..self.scope.query.clone() };
        let rows = self.hub.source().current(&query).await?;
        let more = rows.len() >= SLICE as usize;
        let mut last = after;
        for row in rows {
            let (place, version) = F::place(&row);
            let id = place.id;
            last = Some(place);
            if (self.scope.sees)(&row) {
                self.known.insert(id, Known { version, created: 0 });
                let kind = if F::is_deleted(&row) { ChangeKind::Deleted } else { ChangeKind::Current };
                self.ready.push_back(Told { kind, row: Some(row), resume_token: String::new() });
            }
        }
        if more {
            self.phase = Phase::Current(last);
        } else {
            let resume_token = self.token(self.at);
            self.ready.push_back(Told { kind: ChangeKind::Synced, row: None, resume_token });
            self.phase = Phase::Behind(self.hub.source().revision().await?);
        }
        Ok(())
    }

    /// Reads what was committed after where this is.
    async fn catch_up(&mut self) -> Result<(), CoreError> {
        let found = self.hub.source().after(self.at).await?;
        // Asked after the read: what was purged before it may be missing from it.
        let purged = self.hub.source().purged().await?;
        Token { epoch: self.epoch, revision: self.at }.check(self.epoch, u64::MAX, purged)?;
        if found.upto <= self.at {
            // Another connection saw more than this one does.
            tokio::time::sleep(AGAIN).await;
        }
        self.take(&found.rows, found.upto);
        Ok(())
    }

    /// Joins the hub, where this has not; what it has told before is read from the store.
    async fn join(&mut self) -> Result<(), CoreError> {
        if self.joined.is_none() {
            let (receiver, position) = self.hub.join().await?;
            self.joined = Some(receiver);
            if position > self.at {
                self.phase = Phase::Behind(position);
                return Ok(());
            }
        }
        self.forget(self.born);
        self.phase = Phase::Live;
        Ok(())
    }

    async fn receive(&mut self) -> Result<(), CoreError> {
        let received = match &mut self.joined {
            Some(joined) => joined.recv().await,
            None => Err(RecvError::Closed),
        };
        match received {
            Ok(batch) => {
                self.take(&batch.rows, batch.upto);
                self.take_unwritten(&batch.unwritten);
            }
            Err(RecvError::Lagged(_)) => return Err(CoreError::TooSlow),
            // Its task failed: the next one is joined from where this is.
            Err(RecvError::Closed) => {
                self.joined = None;
                self.phase = Phase::Behind(self.hub.source().revision().await?);
            }
        }
        Ok(())
    }

    /// Makes what is the watcher's of these rows ready.
    fn take(&mut self, rows: &[Changed<F::Row>], upto: u64) {
        let at = self.at;
        if upto <= at {
            return;
        }
        let is_new = |c: &&Changed<F::Row>| c.revision > at && (self.scope.sees)(&c.row);
        let was_told = |c: &&Changed<F::Row>| {
            let (place, version) = F::place(&c.row);
            self.known.get(&place.id).is_some_and(|known| known.version == version)
        };
        let mine: Vec<_> = rows.iter().filter(|c| is_new(c) && !was_told(c)).collect();
        for (i, change) in mine.iter().enumerate() {
            // A token says that all up to a revision was told: in the middle of one it is the revision before.
            let revision = match mine.get(i + 1) {
                None => upto,
                Some(next) if next.revision == change.revision => change.revision - 1,
                Some(_) => change.revision,
            };
            let told = Told {
                kind: self.kind(change),
                row: Some(change.row.clone()),
                resume_token: self.token(revision.max(at)),
            };
            self.ready.push_back(told);
        }
        self.at = upto;
        if self.mark.1.elapsed() > HIDDEN {
            self.forget(self.mark.0);
            self.mark = (upto, Instant::now());
        }
    }

    /// What a change is to this watcher.
    fn kind(&mut self, change: &Changed<F::Row>) -> ChangeKind {
        let (place, version) = F::place(&change.row);
        let known = self.known.get_mut(&place.id);
        let is_known = known.is_some() || change.created <= self.born;
        match known {
            Some(known) => known.version = version,
            None if change.created > self.born => {
                self.known.insert(place.id, Known { version, created: change.created });
            }
            None => {}
        }
        match () {
            () if F::is_deleted(&change.row) => ChangeKind::Deleted,
            () if is_known => ChangeKind::Updated,
            () => ChangeKind::Created,
        }
    }

    /// Takes every row that was made up to a revision for known.
    fn forget(&mut self, born: u64) {
        self.born = born;
        self.known.retain(|_, known| known.created > born);
        self.known.shrink_to_fit();
    }

    fn take_unwritten(&mut self, rows: &[F::Row]) {
        for row in rows.iter().filter(|row| (self.scope.sees)(row)) {
            let kind = if F::is_deleted(row) { ChangeKind::Deleted } else { ChangeKind::Updated };
            let resume_token = self.token(self.at);
            self.ready.push_back(Told { kind, row: Some(row.clone()), resume_token });
        }
    }

    /// The next message.
    #[cfg(test)]
    pub(super) async fn next(&mut self) -> Result<Told<F::Row>, CoreError> {
        loop {
            match self.ready.pop_front() {
                Some(told) => return Ok(told),
                None => self.fill().await?,
            }
        }
    }
}

/// A watcher and what can end it.
pub(super) struct Feed<S, F: Source> {
    tap: Tap<F>,
    guard: KeyGuard<S>,
    place: Place,
    shutdown: CancellationToken,
    over: bool,
}

impl<S: Store, F: Source> Feed<S, F> {
    pub(super) fn new(tap: Tap<F>, guard: KeyGuard<S>, place: Place, shutdown: CancellationToken) -> Self {
        Self { tap, guard, place, shutdown, over: false }
    }

    pub(super) fn into_stream(self) -> Watch<F::Row> {
        stream::unfold(self, |mut feed| async move { feed.next().await.map(|next| (next, feed)) }).boxed()
    }

    async fn next(&mut self) -> Option<Result<Told<F::Row>, CoreError>> {
        while !self.over {
            if let Some(told) = self.tap.ready.pop_front() {
                return Some(Ok(told));
            }
            let step = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => Err(CoreError::Unavailable {
                    message: "the gateway is going away: watch again with the last resume token".to_owned(),
                }),
                ended = self.guard.ended() => Err(ended),
                step = self.tap.fill() => step,
            };
            if let Err(error) = step {
                self.over = true;
                if matches!(error, CoreError::TooSlow) {
                    self.place.was_too_slow();
                }
                return Some(Err(error));
            }
        }
        None
    }
}
