//! Events: what happened.

use super::{
    Page, PageRequest,
    page::{fingerprint, letter, no_token, other_list},
};
use crate::{
    CoreError,
    filter::{EVENT, Filter, Order, OrderBy},
    model::{Caller, Event},
    ports::{EventQuery, Store},
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

    /// The project's events, newest first where nothing else is said.
    ///
    /// # Errors
    /// Invalid filter, order or page token.
    pub async fn list(
        &self,
        caller: &Caller,
        filter: &EventFilter,
        page: &PageRequest,
    ) -> Result<Page<Event>, CoreError> {
        let shows = Filter::parse(EVENT, &page.filter)?;
        // The newest first, unless something else is said.
        let order = if page.order_by.is_empty() { "created_at desc" } else { &page.order_by };
        let order = Order::parse(order)?;
        if order.by != OrderBy::CreatedAt {
            return Err(CoreError::invalid("order_by", "events have no order but created_at and created_at desc"));
        }
        let hash = fingerprint(&shows, false);
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let limit = page.limit();
        let query = EventQuery {
            project: Some(caller.project),
            kind: some(&filter.kind),
            resource: some(&filter.resource),
            after: after(order, &hash, &page.token)?,
            filter: shows,
            oldest_first: !order.descending,
            limit: limit + 1,
        };
        let mut rows = self.store.list_events(&query).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let token = |last: &Event| format!("{}.{hash}.{}", letter(order), last.revision);
        let next = rows.last().filter(|_| more).map(token).unwrap_or_default();
        Ok(Page { rows, next })
    }
}

/// The revision of a token `<order>.<hash>.<revision>`.
fn after(order: Order, hash: &str, token: &str) -> Result<Option<u64>, CoreError> {
    if token.is_empty() {
        return Ok(None);
    }
    let mut parts = token.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next().map(str::parse)) {
        (Some(of), Some(shows), Some(Ok(revision))) if of == letter(order) && shows == hash => Ok(Some(revision)),
        (Some(_), Some(_), Some(Ok(_))) => Err(other_list()),
        _ => Err(no_token()),
    }
}
