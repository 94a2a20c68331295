//! The authorities that certificates come from, as operators see and replace them.

use cloud_domain::join;

use super::{JoinService, refusal};
use crate::{
    CoreError,
    model::{Authority, Caller, Timestamp},
    ports::{Query, Store, TrustedAuthority, Tx},
    services::{
        Page,
        lookup::{event, insert, operator},
    },
};

/// How many to answer with where nothing is said.
const PAGE: usize = 50;

impl<S: Store> JoinService<S> {
    /// The authorities that hosts trust now, the oldest first (operators).
    ///
    /// # Errors
    /// Denied, invalid page token.
    pub fn authorities(&self, caller: &Caller, size: usize, token: &str) -> Result<Page<TrustedAuthority>, CoreError> {
        operator(caller, "see certificate authorities")?;
        let all = self.authority.authorities();
        // A page begins after the one that the token names.
        let after = |token: &str| all.iter().position(|one| join::hex(&one.fingerprint) == token).map(|at| at + 1);
        let from = match token {
            "" => 0,
            token => after(token).ok_or_else(|| CoreError::invalid("page_token", "is none of this list"))?,
        };
        let size = if size == 0 { PAGE } else { size };
        let rows: Vec<_> = all.iter().skip(from).take(size).cloned().collect();
        let more = from + rows.len() < all.len();
        let next = rows.last().filter(|_| more).map(|last| join::hex(&last.fingerprint)).unwrap_or_default();
        Ok(Page { rows, next })
    }

    /// Makes another authority, which replaces the present one in time (operators). Every gateway takes it over within seconds.
    ///
    /// # Errors
    /// Denied; Precondition where the authority is in files, or the one before is not in use yet.
    pub async fn rotate_authority(&self, caller: &Caller) -> Result<Authority, CoreError> {
        operator(caller, "replace the certificate authority")?;
        let mut tx = self.store.begin().await?;
        let rows: Vec<Authority> = tx.list(&Query::default()).await?;
        if let Some(row) = rows.iter().find(|row| row.active_at > Timestamp::now()) {
            let message = format!("{} is replacing the authority before it: wait until it is in use", row.meta.name);
            return Err(CoreError::precondition("NO_AUTHORITY", message));
        }
        let newest = rows.iter().filter_map(Authority::number).max().unwrap_or(0);
        let row = self.authority.successor(newest + 1).map_err(|e| refusal("request_id", e))?;
        insert(&mut tx, &row).await?;
        tx.event(event(caller, &row, "authority.rotate")).await?;
        tx.commit().await?;
        Ok(row)
    }
}
