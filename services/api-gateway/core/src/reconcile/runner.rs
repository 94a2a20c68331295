//! The workers: claim, run, keep the lease, finish.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use rand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::Instrument;

use super::{Backends, Context, Failure, Outcome, audit, host, network::Slices, watch};
use crate::{
    ports::{Store, StoreError, WorkItem},
    services::{HostRegistry, Settings},
};

/// Work under way at once, over all hosts. The clients of the agents limit it for each host.
const WORKERS: usize = 256;
/// Work claimed in one go.
const BATCH: u32 = 32;
/// How long to look at the table at the latest, where nothing wakes.
const IDLE: Duration = Duration::from_secs(1);
/// What running work has to end, at shutdown. What does not goes on at the next start.
const GRACE: Duration = Duration::from_secs(5);
/// The first wait after a failure, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Runs an attempt as part of the trace that caused it (W3C traceparent).
pub type Traced = Arc<dyn Fn(Option<&str>, BoxFuture<'static, ()>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Everything that goes on in the background.
pub struct Workers<S> {
    context: Arc<Context<S>>,
    traced: Traced,
}

impl<S: Store> Workers<S> {
    /// Workers over a store and the agents.
    pub fn new(store: S, registry: Arc<HostRegistry>, backends: Backends, settings: Settings) -> Self {
        let (slices, pushes) = (Slices::default(), super::locks::KeyedLocks::default());
        let context = Arc::new(Context { store, registry, backends, settings, slices, pushes });
        Self { context, traced: Arc::new(|_, attempt| attempt) }
    }

    /// The same, whose attempts run as part of the traces that caused them.
    #[must_use]
    pub fn traced(mut self, traced: Traced) -> Self {
        self.traced = traced;
        self
    }

    /// Works until `shutdown`, then lets running work end for a few seconds.
    pub async fn run(self, shutdown: CancellationToken) {
        let watchers = tokio::spawn(watch::run(Arc::clone(&self.context), shutdown.clone()));
        let watchers = AbortOnDropHandle::new(watchers);
        let _auditor = AbortOnDropHandle::new(tokio::spawn(audit::run(Arc::clone(&self.context))));
        let _fencing = AbortOnDropHandle::new(tokio::spawn(host::look_for_silent(Arc::clone(&self.context))));
        let mut tasks = JoinSet::new();
        let mut commits = self.context.store.commits();
        while !shutdown.is_cancelled() {
            commits.mark_unchanged();
            let wait = self.claim(&mut tasks).await;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(wait) => {}
                Ok(()) = commits.changed(), if tasks.len() < WORKERS => {}
                Some(done) = tasks.join_next(), if !tasks.is_empty() => report(done),
            }
            while let Some(done) = tasks.try_join_next() {
                report(done);
            }
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(GRACE, ended).await.is_err() {
            tracing::info!("work that did not end goes on at the next start");
            tasks.shutdown().await;
        }
        if watchers.await.is_err() {
            tracing::error!("the watchers of the hosts failed");
        }
    }

    /// Starts what is due, and says how long there is nothing else to do.
    async fn claim(&self, tasks: &mut JoinSet<()>) -> Duration {
        let free = u32::try_from(WORKERS - tasks.len().min(WORKERS)).unwrap_or(0);
        if free == 0 {
            return IDLE;
        }
        match self.context.store.claim_work(free.min(BATCH), self.context.settings.work_lease).await {
            Ok(items) if items.is_empty() => match self.context.store.work_status().await {
                // What is due already is under way, and wakes this loop when it ends.
                Ok((Some(next), _, _)) => next.min(IDLE),
                _ => IDLE,
            },
            Ok(items) => {
                for item in items {
                    let trace = item.trace.clone();
                    let context = Arc::clone(&self.context);
                    let attempt = async move {
                        // Made when it begins: its parent is then the span of the trace that it is part of.
                        let span = tracing::info_span!("attempt", kind = item.kind.as_str(), id = %item.id, attempt = item.attempts);
                        attempt(context, item).instrument(span).await;
                    };
                    tasks.spawn((self.traced)(trace.as_deref(), attempt.boxed()));
                }
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the work table cannot be read");
                IDLE
            }
        }
    }
}

fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done {
        // Its lease runs out and the work is tried again.
        tracing::error!(%error, "a reconciler panicked");
    }
}

async fn attempt<S: Store>(context: Arc<Context<S>>, item: WorkItem) {
    let started = Instant::now();
    let result = tokio::select! {
        result = context.reconcile(&item) => result,
        () = keep_lease(&context, &item) => {
            tracing::warn!("the lease was lost: another worker has the work");
            return;
        }
    };
    let (again, error) = match result {
        Ok(Outcome::Done) => (None, None),
        Ok(Outcome::Again(after)) => (Some(after), None),
        // The row changed under the worker's hands: look at once.
        Err(Failure::Store(StoreError::Stale)) => (Some(Duration::from_millis(5)), None),
        Err(failure) => {
            let wait = backoff(item.attempts);
            let cause = &failure as &dyn std::error::Error;
            tracing::warn!(error = cause, retry_in = ?wait, "work failed");
            (Some(wait), Some(failure.to_string()))
        }
    };
    tracing::debug!(took = ?started.elapsed(), ?again, "work attempted");
    match context.store.finish_work(&item, again, error.as_deref()).await {
        Ok(()) => {}
        Err(StoreError::Stale) => tracing::warn!("the lease was lost at the end of the work"),
        // The lease runs out and the work is tried again.
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the end of the work could not be written");
        }
    }
}

/// Returns when the lease is lost.
async fn keep_lease<S: Store>(context: &Context<S>, item: &WorkItem) {
    let lease = context.settings.work_lease;
    let mut lost_at = Instant::now() + lease;
    loop {
        sleep(lease / 3).await;
        match context.store.renew_lease(item, lease).await {
            Ok(()) => lost_at = Instant::now() + lease,
            Err(StoreError::Stale) => return,
            Err(_) if Instant::now() + lease / 3 < lost_at => {}
            Err(_) => return,
        }
    }
}

/// Longer with every attempt, and never the same for all.
fn backoff(attempts: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let wait = first.saturating_mul(1 << attempts.min(10)).min(longest);
    wait.mul_f64(rand::rng().random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_is_bounded() {
        assert!(backoff(0) < Duration::from_millis(251));
        for attempts in 0..100 {
            let wait = backoff(attempts);
            assert!(
                wait >= Duration::from_millis(150) && wait <= Duration::from_millis(37_500),
                "{attempts}: {wait:?}"
            );
        }
    }
}
