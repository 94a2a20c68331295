//! Pages of lists: by key, so that a page stays right while rows come and go.

use cloud_domain::ProjectId;
use uuid::Uuid;

use crate::{
    CoreError,
    model::{Resource, Timestamp},
    ports::{Cursor, Query, Store},
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
}

/// A page.
#[derive(Debug, Clone)]
pub struct Page<R> {
    /// The rows.
    pub rows: Vec<R>,
    /// Continues the list; empty at its end.
    pub next: String,
}

impl PageRequest {
    /// Rows at most.
    #[must_use]
    pub fn limit(&self) -> u32 {
        if self.size == 0 { DEFAULT_SIZE } else { self.size.min(500) }
    }

    fn cursor(&self) -> Result<Option<Cursor>, CoreError> {
        if self.token.is_empty() {
            return Ok(None);
        }
        let parse = || {
            let (at, id) = self.token.split_once('.')?;
            Some(Cursor { created_at: Timestamp(i64::from_str_radix(at, 16).ok()?), id: Uuid::try_parse(id).ok()? })
        };
        parse().map(Some).ok_or_else(|| {
            CoreError::invalid("page_token", "is not a token of this list: use next_page_token as it came")
        })
    }

    /// The page of a query, oldest row first.
    ///
    /// # Errors
    /// Invalid where the token is not one of ours; the store's.
    pub async fn list<R: Resource, S: Store>(
        &self,
        store: &S,
        project: Option<ProjectId>,
        mut query: Query,
    ) -> Result<Page<R>, CoreError> {
        query.project = project;
        query.deleted = self.show_deleted;
        query.after = self.cursor()?;
        query.limit = Some(self.limit() + 1);
        let mut rows: Vec<R> = store.list(&query).await?;
        let more = rows.len() > self.limit() as usize;
        rows.truncate(self.limit() as usize);
        let next = match rows.last() {
            Some(last) if more => format!("{:x}.{}", last.meta().created_at.0, last.meta().id),
            _ => String::new(),
        };
        Ok(Page { rows, next })
    }
}
