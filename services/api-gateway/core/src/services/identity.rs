//! Who calls.

use std::sync::Arc;

use cloud_domain::ProjectId;
use uuid::Uuid;

use super::{key_cache::KeyCache, lookup::any};
use crate::{
    CoreError,
    model::{ApiKey, Caller, Project, Role, Timestamp, Value},
    ports::{Query, Store},
};

/// How the secret of a key begins, so that a secret that leaks is recognised.
pub const SECRET_PREFIX: &str = "tck_";
/// Characters of a secret that are kept and shown.
const SHOWN: usize = 10;

/// The hash of a key's secret, in hex.
pub struct KeyHash;

impl KeyHash {
    /// BLAKE3 of the secret: it has 256 random bits, so a fast hash is enough.
    #[must_use]
    pub fn of(secret: &str) -> String {
        blake3::hash(secret.as_bytes()).to_hex().to_string()
    }
}

/// A new secret: 256 random bits in hex, after [`SECRET_PREFIX`].
#[must_use]
pub fn new_secret() -> String {
    rand::random::<[u8; 32]>().iter().fold(SECRET_PREFIX.to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// What is kept of a secret for people to tell it by.
pub(super) fn shown(secret: &str) -> String {
    secret.chars().take(SHOWN).collect()
}

/// Who holds a key.
#[derive(Clone)]
pub struct IdentityService<S> {
    store: S,
    cache: KeyCache,
}

impl<S: Store> IdentityService<S> {
    /// The service over a store.
    pub(super) fn new(store: S, cache: KeyCache) -> Self {
        Self { store, cache }
    }

    /// Who holds this secret. `project` is the one that the call names; empty: the key's own. The source and the request id are the handler's
    /// to fill in.
    ///
    /// # Errors
    /// Unauthenticated where there is no such key or it has ended; `NotFound` where the key has no part in the project.
    pub async fn authenticate(&self, secret: &str, project: &str) -> Result<Caller, CoreError> {
        let hash = KeyHash::of(secret);
        let key = self.key(&hash).await?;
        if !key.opens(&hash, Timestamp::now()) {
            return Err(CoreError::Unauthenticated("this API key has ended"));
        }
        let own = project.is_empty() || project == key.meta.project_name || project == key.meta.project.to_string();
        let (id, name) = if own {
            (key.meta.project, key.meta.project_name.clone())
        } else if key.role == Role::Operator {
            let row: Project = any(&self.store, ProjectId::from(Uuid::nil()), project).await?;
            if row.meta.deleted_at.is_some() {
                return Err(CoreError::not_found(crate::Kind::Project, project));
            }
            (row.meta.id.into(), row.meta.name)
        } else {
            return Err(CoreError::not_found(crate::Kind::Project, project));
        };
        Ok(Caller {
            key: key.meta.id.into(),
            hash,
            key_name: key.meta.name.clone(),
            role: key.role,
            project: id,
            project_name: name,
            source: String::new(),
            request_id: String::new(),
            once: None,
        })
    }

    async fn key(&self, hash: &str) -> Result<Arc<ApiKey>, CoreError> {
        if let Some(key) = self.cache.get(hash) {
            return Ok(key);
        }
        let generation = self.cache.generation();
        // Most secrets are a key's current one.
        for column in ["hash", "old_hash"] {
            let columns = vec![(column, Value::Text(hash.to_owned()))];
            let query = Query { columns, limit: Some(1), ..Query::default() };
            if let Some(key) = self.store.list::<ApiKey>(&query).await?.pop() {
                let key = Arc::new(key);
                self.cache.put(hash, &key, generation);
                return Ok(key);
            }
        }
        Err(CoreError::Unauthenticated("there is no such API key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_256_bits_and_are_recognised() {
        let (one, other) = (new_secret(), new_secret());
        assert_ne!(one, other);
        assert!(one.starts_with(SECRET_PREFIX) && one.len() == SECRET_PREFIX.len() + 64, "{one}");
        assert!(one[SECRET_PREFIX.len()..].bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(shown(&one), one[..10]);
    }
}
