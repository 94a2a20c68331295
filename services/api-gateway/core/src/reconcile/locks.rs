//! One lock for each key, kept as long as somebody holds or awaits it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

/// Locks by key.
#[derive(Debug)]
pub(super) struct KeyedLocks<K> {
    locks: Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>,
}

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self { locks: Mutex::default() }
    }
}

impl<K: Eq + Hash + Clone> KeyedLocks<K> {
    /// Waits for the key's lock.
    pub(super) async fn lock(&self, key: &K) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever holds or awaits a lock has a second reference to it: the others are forgotten.
            locks.retain(|k, lock| k == key || Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(key.clone()).or_default())
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_key_excludes_and_two_do_not() {
        let locks = KeyedLocks::default();
        let first = locks.lock(&1).await;
        let _other = locks.lock(&2).await;
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), locks.lock(&1)).await.is_err());
        drop(first);
        let _again = locks.lock(&1).await;
    }

    #[tokio::test]
    async fn locks_nobody_holds_are_forgotten() {
        let locks = KeyedLocks::default();
        for key in 0..100 {
            drop(locks.lock(&key).await);
        }
        assert_eq!(locks.locks.lock().unwrap().len(), 1);
    }
}
