//! Who calls.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use cloud_domain::ProjectId;
use uuid::Uuid;

use super::{Page, PageRequest, lookup::any};
use crate::{
    CoreError,
    model::{ApiKey, Caller, Project, Role, Timestamp, Value},
    ports::{Query, Store},
};

/// The hash of a key's secret, in hex.
pub struct KeyHash;

impl KeyHash {
    /// BLAKE3 of the secret: it has 256 random bits, so a fast hash is enough.
    #[must_use]
    pub fn of(secret: &str) -> String {
        blake3::hash(secret.as_bytes()).to_hex().to_string()
    }
}

/// Keys at most in the cache.
const CACHED: usize = 10_000;

/// Projects and API keys.
#[derive(Clone)]
pub struct IdentityService<S> {
    store: S,
    /// Keys by hash, kept only where this process alone writes the database: nothing else can revoke one behind its back.
    cache: Arc<RwLock<HashMap<String, Arc<ApiKey>>>>,
}

impl<S: Store> IdentityService<S> {
    /// The service over a store.
    pub fn new(store: S) -> Self {
        Self { store, cache: Arc::default() }
    }

    /// Who holds this secret. `project` is the one that the call names; empty: the key's own. The source and the request id are the handler's
    /// to fill in.
    ///
    /// # Errors
    /// Unauthenticated where there is no such key or it has ended; `NotFound` where the key has no part in the project.
    pub async fn authenticate(&self, secret: &str, project: &str) -> Result<Caller, CoreError> {
        let key = self.key(&KeyHash::of(secret)).await?;
        let ended = key.revoked_at.is_some()
            || key.meta.deleted_at.is_some()
            || key.expires_at.is_some_and(|at| at <= Timestamp::now());
        if ended {
            return Err(CoreError::Unauthenticated("this API key has ended"));
        }
        let own = project.is_empty() || project == key.meta.project_name || project == key.meta.project.to_string();
        let (id, name) = if own {
            (key.meta.project, key.meta.project_name.clone())
        } else if key.role == Role::Operator {
            let row: Project = any(&self.store, ProjectId::from(Uuid::nil()), project).await?;
            (row.meta.id.into(), row.meta.name)
        } else {
            return Err(CoreError::not_found(crate::Kind::Project, project));
        };
        Ok(Caller {
            key: key.meta.id.into(),
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
        if self.store.is_exclusive()
            && let Some(key) = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(hash)
        {
            return Ok(Arc::clone(key));
        }
        let query = Query { columns: vec![("hash", Value::Text(hash.to_owned()))], limit: Some(1), ..Query::default() };
        let mut found: Vec<ApiKey> = self.store.list(&query).await?;
        let key = Arc::new(found.pop().ok_or(CoreError::Unauthenticated("there is no such API key"))?);
        if self.store.is_exclusive() {
            let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
            if cache.len() >= CACHED {
                cache.clear();
            }
            cache.insert(hash.to_owned(), Arc::clone(&key));
        }
        Ok(key)
    }

    /// A project that the caller may see.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn project(&self, caller: &Caller, id: &str) -> Result<Project, CoreError> {
        let row: Project = any(&self.store, ProjectId::from(Uuid::nil()), id).await?;
        if caller.role == Role::Operator || row.meta.id == *caller.project.as_uuid() {
            return Ok(row);
        }
        Err(CoreError::not_found(crate::Kind::Project, id))
    }

    /// The projects that the caller may see.
    ///
    /// # Errors
    /// Invalid filter, order or page token.
    pub async fn projects(&self, caller: &Caller, page: &PageRequest) -> Result<Page<Project>, CoreError> {
        if caller.role == Role::Operator {
            return page.list(&self.store, None, Query::default()).await;
        }
        let own = self.project(caller, &caller.project.to_string()).await?;
        page.of(vec![own])
    }
}
