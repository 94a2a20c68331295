//! The record of refusals: calls that would have changed something, and did not.

use uuid::Uuid;

use super::lookup::as_id;
use crate::{
    CoreError, Kind,
    model::{Caller, NewEvent},
    ports::{Store, Tx},
};

/// The longest name and message of a refusal that are kept, in characters: they are what the caller sent.
const LONGEST: usize = 300;

/// A call that was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What it would have changed.
    pub kind: Kind,
    /// The action, as events call it.
    pub action: &'static str,
    /// The resource's id or name, as the caller gave it; empty where the call was refused before that was read.
    pub subject: String,
    /// The status code, such as `PERMISSION_DENIED`.
    pub outcome: &'static str,
    /// What the caller was told.
    pub message: String,
}

/// Writes refusals down, as events of the caller's project.
#[derive(Clone)]
pub struct AuditService<S> {
    store: S,
}

impl<S: Store> AuditService<S> {
    pub(super) fn new(store: S) -> Self {
        Self { store }
    }

    /// Writes a refusal down.
    ///
    /// # Errors
    /// The store's.
    pub async fn refused(&self, caller: &Caller, refusal: Refusal) -> Result<(), CoreError> {
        let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let mut tx = self.store.begin().await?;
        tx.event(NewEvent {
            project: caller.project,
            kind: refusal.kind,
            resource: as_id(&refusal.subject).unwrap_or(Uuid::nil()),
            name: short(&refusal.subject),
            action: refusal.action,
            actor: caller.key_name.clone(),
            source: caller.source.clone(),
            outcome: refusal.outcome,
            message: short(&refusal.message),
            request_id: caller.request_id.clone(),
            once: None,
        })
        .await?;
        Ok(tx.commit().await?)
    }
}
