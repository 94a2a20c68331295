//! Keys that were looked up, so that an authenticated call need not read the database for its key.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::model::ApiKey;

/// Keys at most.
const ROOM: usize = 10_000;

/// Keys by the hash of a secret of theirs. It is kept only where this process alone writes the database: nothing else can revoke a key behind
/// its back. Whatever changes keys calls [`KeyCache::clear`] after its commit, and before it answers.
#[derive(Clone, Default)]
pub(super) struct KeyCache(Option<Arc<RwLock<Keys>>>);

#[derive(Default)]
struct Keys {
    by_hash: HashMap<String, Arc<ApiKey>>,
    /// Goes up with every change of keys: what was read before one is not remembered after it.
    generation: u64,
}

impl KeyCache {
    /// A cache, where this process is the only writer; else none.
    pub(super) fn new(exclusive: bool) -> Self {
        Self(exclusive.then(Arc::default))
    }

    /// The key, where it is known.
    pub(super) fn get(&self, hash: &str) -> Option<Arc<ApiKey>> {
        let keys = self.0.as_ref()?.read().unwrap_or_else(PoisonError::into_inner);
        keys.by_hash.get(hash).cloned()
    }

    /// To be asked before a key is read from the database, and handed to [`Self::put`].
    pub(super) fn generation(&self) -> u64 {
        self.0.as_ref().map_or(0, |keys| keys.read().unwrap_or_else(PoisonError::into_inner).generation)
    }

    /// Remembers a key that was read at this generation.
    pub(super) fn put(&self, hash: &str, key: &Arc<ApiKey>, generation: u64) {
        let Some(keys) = &self.0 else { return };
        let mut keys = keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.generation != generation {
            return;
        }
        if keys.by_hash.len() >= ROOM {
            keys.by_hash.clear();
        }
        keys.by_hash.insert(hash.to_owned(), Arc::clone(key));
    }

    /// Forgets all keys: some have changed.
    pub(super) fn clear(&self) {
        let Some(keys) = &self.0 else { return };
        let mut keys = keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.generation += 1;
        keys.by_hash.clear();
    }
}

#[cfg(test)]
mod tests {
    use cloud_domain::ProjectId;
    use uuid::Uuid;

    use super::*;
    use crate::model::{Labels, Meta, Role};

    fn key() -> Arc<ApiKey> {
        Arc::new(ApiKey {
            meta: Meta::new(Uuid::new_v4(), ProjectId::random(), "p", "k", Labels::new()),
            prefix: String::new(),
            hash: "h".to_owned(),
            role: Role::Viewer,
            expires_at: None,
            revoked_at: None,
            old: None,
            retired: Vec::new(),
        })
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let cache = KeyCache::new(true);
        let before = cache.generation();
        cache.clear();
        cache.put("h", &key(), before);
        assert!(cache.get("h").is_none());
        cache.put("h", &key(), cache.generation());
        assert!(cache.get("h").is_some());
        cache.clear();
        assert!(cache.get("h").is_none());
    }

    #[test]
    fn beside_other_writers_nothing_is_remembered() {
        let cache = KeyCache::new(false);
        cache.put("h", &key(), cache.generation());
        assert!(cache.get("h").is_none());
    }
}
