//! One piece of work at a time per instance.
//!
//! Ensuring, stopping and removing one guest must not overlap, also when a caller gave up and calls again while the first call's work goes on.
//! So each piece of work holds its instance's turn for its whole length, in a task that the caller's going away does not cancel.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use cloud_domain::InstanceId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who works on which instance.
#[derive(Debug, Default)]
pub struct Turns {
    by_instance: Mutex<HashMap<InstanceId, Weak<Semaphore>>>,
}

/// The right to work on an instance, until dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    /// Waits for the instance's turn; `None` where `limit` passed.
    pub async fn take(&self, id: InstanceId, limit: Duration) -> Option<Turn> {
        let semaphore = self.of(id);
        let permit = tokio::time::timeout(limit, semaphore.acquire_owned()).await.ok()?.ok()?;
        Some(Turn { _permit: permit })
    }

    fn of(&self, id: InstanceId) -> Arc<Semaphore> {
        let mut all = self.lock();
        if let Some(semaphore) = all.get(&id).and_then(Weak::upgrade) {
            return semaphore;
        }
        // Entries of instances that nobody works on any more go when another one comes.
        all.retain(|_, semaphore| semaphore.strong_count() > 0);
        let semaphore = Arc::new(Semaphore::new(1));
        all.insert(id, Arc::downgrade(&semaphore));
        semaphore
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Weak<Semaphore>>> {
        self.by_instance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_per_instance_and_end_with_their_holder() {
        let turns = Turns::default();
        let (a, b) = (InstanceId::random(), InstanceId::random());
        let short = Duration::from_millis(5);
        let held = turns.take(a, short).await;
        assert!(held.is_some());
        assert!(turns.take(a, short).await.is_none());
        assert!(turns.take(b, short).await.is_some());
        drop(held);
        assert!(turns.take(a, short).await.is_some());
        assert_eq!(turns.lock().len(), 1, "idle entries do not pile up");
    }
}
