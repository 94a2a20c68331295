//! One lock per key, as long as somebody holds or wants it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Locks by key. What nobody holds takes no memory after the next call.
#[derive(Debug)]
pub struct KeyedLocks<K> {
    locks: Mutex<HashMap<K, Weak<RwLock<()>>>>,
}

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self { locks: Mutex::default() }
    }
}

impl<K: Eq + Hash> KeyedLocks<K> {
    /// The key alone.
    pub async fn write(&self, key: K) -> OwnedRwLockWriteGuard<()> {
        self.lock(key).write_owned().await
    }

    /// The key together with other readers.
    pub async fn read(&self, key: K) -> OwnedRwLockReadGuard<()> {
        self.lock(key).read_owned().await
    }

    fn lock(&self, key: K) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(key, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_key_is_serialised_and_others_are_not() {
        let locks = KeyedLocks::default();
        let first = locks.write(1).await;
        assert!(locks.write(1).now_or_never().is_none());
        assert!(locks.read(1).now_or_never().is_none());
        assert!(locks.write(2).now_or_never().is_some());
        drop(first);
        let reader = locks.read(1).await;
        assert!(locks.read(1).now_or_never().is_some());
        assert!(locks.write(1).now_or_never().is_none());
        drop(reader);
        assert!(locks.write(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_nobody_holds_is_forgotten() {
        let locks = KeyedLocks::default();
        for key in 0..1000 {
            drop(locks.write(key).await);
        }
        assert_eq!(locks.locks.lock().unwrap().len(), 1);
    }
}
