//! Request ids: what a caller calls a call, so that it can be sent again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cloud_domain::ProjectId;

use super::Timestamp;

/// A call with a request id, on its way. Whoever commits its work writes it down in the same transaction: see [`super::NewEvent::once`].
#[derive(Debug, Clone)]
pub struct RequestKey {
    /// The caller's project: ids of one do not meet those of another.
    pub project: ProjectId,
    /// The caller's id.
    pub id: String,
    /// The method's full name.
    pub method: &'static str,
    /// Tells calls under one id apart: a hash of the method and of what is asked.
    pub fingerprint: String,
    /// When it arrived.
    pub created_at: Timestamp,
    /// Until when it is remembered.
    pub expires_at: Timestamp,
    recorded: Arc<AtomicBool>,
}

/// Whether it was written down does not make it another call.
impl PartialEq for RequestKey {
    fn eq(&self, other: &Self) -> bool {
        (self.project, &self.id, &self.fingerprint) == (other.project, &other.id, &other.fingerprint)
    }
}

impl Eq for RequestKey {}

impl RequestKey {
    /// A call that arrives now.
    #[must_use]
    pub fn new(
        project: ProjectId,
        id: String,
        method: &'static str,
        fingerprint: String,
        keep: std::time::Duration,
    ) -> Self {
        let created_at = Timestamp::now();
        let expires_at = created_at.plus(keep);
        Self { project, id, method, fingerprint, created_at, expires_at, recorded: Arc::default() }
    }

    /// Says that a transaction that wrote it down was committed.
    pub fn set_recorded(&self) {
        self.recorded.store(true, Ordering::Release);
    }

    /// Whether one was.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire)
    }
}

/// What was done under a request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoneRequest {
    /// Tells calls under one id apart.
    pub fingerprint: String,
    /// What it was done to.
    pub resource: String,
    /// Until when it is remembered.
    pub expires_at: Timestamp,
}
