//! Request ids: what was done under one is not done again.
//!
//! The transaction that carries a call out writes its id down: the store does so with the call's first event, which every call that
//! changes something writes through `lookup::event`. So a new call honours request ids without a line of its own. What is left to do here is
//! to look before a call is made, and after one that wrote nothing: it found nothing to do, or it was refused, or another one was faster.

use std::time::Duration;

use super::Settings;
use crate::{
    CoreError,
    model::{Caller, DoneRequest, RequestKey, Timestamp},
    ports::{Store, StoreError, Tx},
};

/// What is known of a call before it is made.
#[derive(Debug)]
pub enum Known {
    /// Nothing: this is to go with it.
    New(RequestKey),
    /// It was carried out, on this resource.
    Done(String),
}

/// The memory of calls.
#[derive(Clone)]
pub struct RequestService<S> {
    store: S,
    keep: Duration,
}

impl<S: Store> RequestService<S> {
    /// The service over a store.
    pub fn new(store: S, settings: &Settings) -> Self {
        Self { store, keep: settings.keep_requests }
    }

    /// Looks a call up by its id. `body` is what is asked, in a form that is the same for the same call.
    ///
    /// # Errors
    /// `RequestReused` where the id was another call's.
    pub async fn begin(
        &self,
        caller: &Caller,
        id: String,
        method: &'static str,
        body: &[u8],
    ) -> Result<Known, CoreError> {
        let mut hash = blake3::Hasher::new();
        // A method's name has no NUL.
        hash.update(method.as_bytes()).update(&[0]).update(body);
        let key = RequestKey::new(caller.project, id, method, hash.finalize().to_hex().to_string(), self.keep);
        Ok(match self.done(&key).await? {
            Some(resource) => Known::Done(resource),
            None => Known::New(key),
        })
    }

    async fn done(&self, key: &RequestKey) -> Result<Option<String>, CoreError> {
        judge(key, self.store.request(key.project, &key.id).await?)
    }

    /// The resource that another call with the id was carried out on, where one was while this one was made.
    ///
    /// # Errors
    /// `RequestReused` where that was another call.
    pub async fn done_meanwhile(&self, key: &RequestKey) -> Result<Option<String>, CoreError> {
        // What a transaction runs into may be committed and not durable yet: then nobody else can read it. A commit after it waits for it.
        let mut tx = self.store.begin().await?;
        let Some(done) = tx.request(key.project, &key.id).await? else { return Ok(None) };
        tx.commit().await?;
        judge(key, Some(done))
    }

    /// Writes down a call that ended well and found nothing to do, so that it has nothing to do later either. The resource, where another
    /// call with the id was faster.
    ///
    /// # Errors
    /// `RequestReused` where the id was another call's.
    pub async fn unchanged(&self, key: &RequestKey, resource: &str) -> Result<Option<String>, CoreError> {
        // Ended before another one is begun: there is one writer.
        let written = {
            let mut tx = self.store.begin().await?;
            match tx.record(key, resource).await {
                Ok(()) => tx.commit().await,
                Err(error) => Err(error),
            }
        };
        match written {
            Ok(()) => Ok(None),
            Err(StoreError::Repeated) => self.done_meanwhile(key).await,
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether what was done under an id is this call.
fn judge(key: &RequestKey, done: Option<DoneRequest>) -> Result<Option<String>, CoreError> {
    match done.filter(|d| d.expires_at > Timestamp::now()) {
        None => Ok(None),
        Some(done) if done.fingerprint == key.fingerprint => Ok(Some(done.resource)),
        Some(_) => Err(CoreError::RequestReused { id: key.id.clone() }),
    }
}
