//! The authorities that certificates come from, as operators see and replace them.

use super::{JoinService, refusal};
use crate::{
    CoreError,
    model::{Authority, Caller, Timestamp},
    ports::{Query, Store, TrustedAuthority, Tx},
    services::lookup::{event, insert, operator},
};

impl<S: Store> JoinService<S> {
    /// The authorities that hosts trust now, the oldest first (operators).
    ///
    /// # Errors
    /// Denied.
    pub fn authorities(&self, caller: &Caller) -> Result<Vec<TrustedAuthority>, CoreError> {
        operator(caller, "see certificate authorities")?;
        Ok(self.authority.authorities())
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
