//! Pages of lists: by key, so that a page stays right while rows come and go.
//!
//! A token says where the list goes on, and of which list it is: its order, and a hash of what it shows. With another filter or order it is
//! refused, since its place would mean nothing there.

use cloud_domain::ProjectId;
use uuid::Uuid;

use crate::{
    CoreError,
    filter::{Filter, Order, OrderBy},
    model::{Resource, Timestamp},
    ports::{Cursor, Key, Query, Store},
};

/// Rows on a page where the caller does not say.
const DEFAULT_SIZE: u32 = 50;

/// Which page.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// Rows at most; 0: the default of 50.
    pub size: u32,
    /// The token of the page before; empty: the first page.
    pub token: String,
    /// Also deleted rows.
    pub show_deleted: bool,
    /// Which rows, in the filter language; empty: all.
    pub filter: String,
    /// In which order; empty: the list's own.
    pub order_by: String,
}

/// A page.
#[derive(Debug, Clone)]
pub struct Page<R> {
    /// The rows.
    pub rows: Vec<R>,
    /// Continues the list; empty at its end.
    pub next: String,
}

/// What is wrong with a token that is none of ours.
pub(super) fn no_token() -> CoreError {
    CoreError::invalid("page_token", "is not a token of this list: use next_page_token as it came")
}

/// What is wrong with a token of another list.
pub(super) fn other_list() -> CoreError {
    let message = "is of a list with another filter, order_by or show_deleted: send the same ones for every page";
    CoreError::invalid("page_token", message)
}

/// Tells lists apart by what they show.
pub(super) fn fingerprint(filter: &Filter, show_deleted: bool) -> String {
    let shows = format!("{filter}\n{show_deleted}");
    blake3::hash(shows.as_bytes()).to_hex().chars().take(16).collect()
}

/// The letter of an order in tokens.
pub(super) fn letter(order: Order) -> &'static str {
    match (order.by, order.descending) {
        (OrderBy::CreatedAt, false) => "c",
        (OrderBy::CreatedAt, true) => "C",
        (OrderBy::Name, false) => "n",
        (OrderBy::Name, true) => "N",
    }
}

/// `<order>.<hash>.<key>.<id>`. A key may have dots.
fn token<R: Resource>(order: Order, shows: &str, last: &R) -> String {
    let meta = last.meta();
    let key = match order.by {
        OrderBy::CreatedAt => format!("{:x}", meta.created_at.0),
        OrderBy::Name => meta.name.clone(),
    };
    format!("{}.{shows}.{key}.{}", letter(order), meta.id)
}

fn cursor(order: Order, shows: &str, token: &str) -> Result<Option<Cursor>, CoreError> {
    if token.is_empty() {
        return Ok(None);
    }
    let parts = || {
        let (of, rest) = token.split_once('.')?;
        let (hash, rest) = rest.split_once('.')?;
        let (key, id) = rest.rsplit_once('.')?;
        Some((of, hash, key, Uuid::try_parse(id).ok()?))
    };
    let (of, hash, key, id) = parts().ok_or_else(no_token)?;
    if of != letter(order) || hash != shows {
        return Err(other_list());
    }
    let key = match order.by {
        OrderBy::CreatedAt => Key::CreatedAt(Timestamp(i64::from_str_radix(key, 16).map_err(|_| no_token())?)),
        OrderBy::Name => Key::Name(key.to_owned()),
    };
    Ok(Some(Cursor { key, id }))
}

impl PageRequest {
    /// Rows at most.
    #[must_use]
    pub fn limit(&self) -> u32 {
        if self.size == 0 { DEFAULT_SIZE } else { self.size.min(500) }
    }

    /// The page of a query.
    ///
    /// # Errors
    /// Invalid where the filter, the order or the token is; the store's.
    pub async fn list<R: Resource, S: Store>(
        &self,
        store: &S,
        project: Option<ProjectId>,
        mut query: Query,
    ) -> Result<Page<R>, CoreError> {
        query.project = project;
        query.deleted = self.show_deleted;
        query.filter = Filter::parse(R::FIELDS, &self.filter)?;
        query.order = Order::parse(&self.order_by)?;
        let shows = fingerprint(&query.filter, self.show_deleted);
        query.after = cursor(query.order, &shows, &self.token)?;
        query.limit = Some(self.limit() + 1);
        let mut rows: Vec<R> = store.list(&query).await?;
        let more = rows.len() > self.limit() as usize;
        rows.truncate(self.limit() as usize);
        let next = rows.last().filter(|_| more).map(|last| token(query.order, &shows, last)).unwrap_or_default();
        Ok(Page { rows, next })
    }

    /// The page of rows that are at hand: few, and all of them.
    ///
    /// # Errors
    /// Invalid where the filter, the order or the token is.
    pub fn of<R: Resource>(&self, rows: Vec<R>) -> Result<Page<R>, CoreError> {
        let filter = Filter::parse(R::FIELDS, &self.filter)?;
        let order = Order::parse(&self.order_by)?;
        cursor(order, &fingerprint(&filter, self.show_deleted), &self.token)?;
        Ok(Page { rows: rows.into_iter().filter(|row| filter.matches(row)).collect(), next: String::new() })
    }
}
