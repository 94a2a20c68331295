//! Which calls an agent accepts.
//!
//! A gateway that lost its lease, or one of a restored or mistaken database, may still send calls. Each call therefore says which
//! cloud and which run of the agent it is meant for, and how new its intent is: `(epoch, version)`. The fence remembers the newest
//! it has seen per resource, of removed resources too, and refuses older ones.
//!
//! Checking alone would not order calls that run at the same time: an old call could pass the check, then a newer one pass and
//! finish, and then the old one act. [`Fence::admit`] therefore also lets only one call at a time through for a resource.

mod memory;

use std::{
    collections::HashMap,
    ops,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use cloud_contracts::agent::CallContext;
use cloud_domain::{CloudId, Incarnation, SessionId};
use tokio::sync::{OwnedMutexGuard, watch};
use uuid::Uuid;

use self::memory::Memory;
use crate::ServiceError;

/// Checks the [`CallContext`] of every call.
#[derive(Debug)]
pub struct Fence {
    session: SessionId,
    cloud: watch::Receiver<Option<CloudId>>,
    seen: Mutex<Memory>,
    turns: Mutex<HashMap<Uuid, Weak<tokio::sync::Mutex<()>>>>,
}

/// Who makes a call, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The cloud, which is the one that this agent registered with.
    pub cloud: CloudId,
    /// Changes when the gateway's database is restored.
    pub epoch: u64,
    /// The row version of the resource that the call carries out.
    pub version: u64,
    /// The incarnation that the call is about, where there is one.
    pub incarnation: Option<Incarnation>,
}

/// A call's turn on a resource; the next call on the same resource waits until it is dropped.
#[derive(Debug)]
pub struct Admission {
    caller: Caller,
    _turn: OwnedMutexGuard<()>,
}

impl ops::Deref for Admission {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Fence {
    /// The fence of one run of an agent; `cloud` is what it learned at its registration.
    #[must_use]
    pub fn new(session: SessionId, cloud: watch::Receiver<Option<CloudId>>) -> Self {
        Self { session, cloud, seen: Mutex::new(Memory::default()), turns: Mutex::new(HashMap::new()) }
    }

    /// Checks cloud and session only: for calls that read.
    ///
    /// # Errors
    /// INVALID_ARGUMENT without a context; UNAVAILABLE (`NOT_REGISTERED`) while the agent knows no cloud; FAILED_PRECONDITION with
    /// reason `WRONG_CLOUD` or `WRONG_SESSION`.
    pub fn caller(&self, context: Option<&CallContext>) -> Result<Caller, ServiceError> {
        let context = context.ok_or_else(|| ServiceError::invalid("context", "is required"))?;
        let Some(cloud) = *self.cloud.borrow() else {
            return Err(ServiceError::unavailable(
                "NOT_REGISTERED",
                "this agent has not registered with a gateway yet",
            ));
        };
        if context.cloud_id.parse() != Ok(cloud) {
            let message = format!("this agent belongs to cloud {cloud}, the call is from cloud `{}`", context.cloud_id);
            return Err(ServiceError::failed_precondition("WRONG_CLOUD", message));
        }
        if context.session_id.parse() != Ok(self.session) {
            let message = format!("this agent's session is {}, the call is for `{}`", self.session, context.session_id);
            return Err(ServiceError::failed_precondition("WRONG_SESSION", message));
        }
        let incarnation = match context.incarnation.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|e| ServiceError::invalid("context.incarnation", format!("{e}")))?),
        };
        Ok(Caller { cloud, epoch: context.epoch, version: context.version, incarnation })
    }

    /// Also checks that the call is not older than the newest seen for `resource`, and remembers it.
    ///
    /// # Errors
    /// As [`Self::caller`], and FAILED_PRECONDITION with reason `STALE_CALL`.
    pub fn check(&self, context: Option<&CallContext>, resource: &Uuid) -> Result<Caller, ServiceError> {
        let caller = self.caller(context)?;
        let order = (caller.epoch, caller.version);
        lock(&self.seen).advance(*resource, order).map_err(|newest| {
            let message = format!(
                "the call for {resource} has epoch {}, version {}, and epoch {}, version {} was here before",
                order.0, order.1, newest.0, newest.1,
            );
            ServiceError::failed_precondition("STALE_CALL", message)
        })?;
        Ok(caller)
    }

    /// Waits for this call's turn on `resource`, then does what [`Self::check`] does. For calls that change something: hold the
    /// admission until the change is done.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub async fn admit(&self, context: Option<&CallContext>, resource: &Uuid) -> Result<Admission, ServiceError> {
        // A call that is refused anyway need not wait.
        self.caller(context)?;
        let turn = self.turn(*resource).lock_owned().await;
        let caller = self.check(context, resource)?;
        Ok(Admission { caller, _turn: turn })
    }

    /// Says that a resource is gone from this host: what is remembered of it may be forgotten after 100,000 other removals.
    pub fn removed(&self, resource: &Uuid) {
        lock(&self.seen).retire(*resource);
    }

    fn turn(&self, resource: Uuid) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        if let Some(turn) = turns.get(&resource).and_then(Weak::upgrade) {
            return turn;
        }
        // Amortised: entries of calls that ended are swept when the map has doubled.
        if turns.len() >= 64 && turns.len() == turns.capacity() {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        turns.insert(resource, Arc::downgrade(&turn));
        turn
    }
}

/// What these locks guard is whole after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
