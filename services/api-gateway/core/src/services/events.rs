//! Events: what happened.

use super::{Page, PageRequest};
use crate::{
    CoreError,
    model::{Caller, Event},
    ports::Store,
};

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only of this kind of resource; empty: all.
    pub kind: String,
    /// Only of this resource, by id; empty: all.
    pub resource: String,
}

/// The audit log.
#[derive(Clone)]
pub struct EventService<S> {
    store: S,
}

impl<S: Store> EventService<S> {
    /// The service over a store.
    pub fn new(store: S) -> Self {
        Self { store }
    }

    /// The project's events, newest first.
    ///
    /// # Errors
    /// Invalid page token.
    pub async fn list(
        &self,
        caller: &Caller,
        filter: &EventFilter,
        page: &PageRequest,
    ) -> Result<Page<Event>, CoreError> {
        let before = if page.token.is_empty() {
            None
        } else {
            let bad =
                || CoreError::invalid("page_token", "is not a token of this list: use next_page_token as it came");
            Some(page.token.parse::<u64>().map_err(|_| bad())?)
        };
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (kind, resource) = (some(&filter.kind), some(&filter.resource));
        let limit = page.limit();
        let mut rows =
            self.store.events(Some(caller.project), kind.as_deref(), resource.as_deref(), before, limit + 1).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|e| e.revision.to_string()).unwrap_or_default();
        Ok(Page { rows, next })
    }
}
