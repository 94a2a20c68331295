//! The certificates of hosts: renewed, and revoked.

use std::collections::HashSet;

use cloud_domain::{HostId, Identity};

use super::{JoinService, held, own_meta, refusal};
use crate::{
    CoreError, Kind,
    model::{AgentRole, HostCertificate, Timestamp, Value},
    ports::{Issued, Query, Store, StoreError, Tx},
};

/// How many rows that count no more are removed at a time.
const AT_A_TIME: u32 = 500;

/// The row of a certificate.
pub(super) fn row(host: HostId, role: AgentRole, issued: &Issued) -> HostCertificate {
    HostCertificate {
        meta: own_meta(|_| issued.serial.clone()),
        host,
        role,
        serial: issued.serial.clone(),
        expires_at: issued.expires_at,
        revoked_at: None,
    }
}

/// Revokes all certificates of a host, in the transaction that ends it or lets it join again. Its connections are cut off within seconds.
///
/// # Errors
/// The store's.
pub async fn revoke_certificates<T: Tx>(tx: &mut T, host: HostId) -> Result<(), CoreError> {
    let columns = vec![("host_id", Value::Text(host.to_string())), ("revoked", Value::Int(0))];
    let rows: Vec<HostCertificate> = tx.list(&Query { columns, ..Query::default() }).await?;
    for mut row in rows {
        row.revoked_at = Some(Timestamp::now());
        tx.update(&mut row).await?;
    }
    Ok(())
}

impl<S: Store> JoinService<S> {
    /// A new certificate for an agent, which shows the one with this serial number. The earlier one goes on counting until its end: connections
    /// are open with it.
    ///
    /// # Errors
    /// Invalid request; Precondition where the certificate was not issued here or was revoked; `NotFound` where the host is gone.
    pub async fn renew(
        &self,
        (host, role): (HostId, AgentRole),
        serial: &str,
        request: &str,
    ) -> Result<(Issued, String), CoreError> {
        let mut tx = self.store.begin().await?;
        held(&mut tx, host).await?.ok_or_else(|| CoreError::not_found(Kind::Host, host.to_string()))?;
        let known: Option<HostCertificate> = tx.list(&Query::by("serial", &serial)).await?.pop();
        let known = known.filter(|row| row.host == host && row.role == role).ok_or_else(|| {
            let message = "this certificate was not issued by this cloud: whoever issued it renews it (--tls-external)";
            CoreError::precondition("NOT_ISSUED_HERE", message)
        })?;
        if known.revoked_at.is_some() {
            return Err(CoreError::precondition("CERTIFICATE_REVOKED", "this certificate was revoked"));
        }
        let identity = Identity::Agent { cloud: self.store.identity().0, host, daemon: role.into() };
        let issued = self.authority.issue(request, identity, self.settings.certificate_lifetime);
        let issued = issued.map_err(|e| refusal("certificate_request", e))?;
        tx.insert(&row(host, role, &issued)).await?;
        tx.commit().await?;
        Ok((issued, self.authority.trusted()))
    }

    /// The serial numbers of the certificates that were revoked and would count otherwise.
    ///
    /// # Errors
    /// The store's.
    pub async fn revoked(&self) -> Result<HashSet<String>, CoreError> {
        let columns = vec![("revoked", Value::Int(1))];
        let rows: Vec<HostCertificate> = self.store.list(&Query { columns, ..Query::default() }).await?;
        Ok(rows.into_iter().map(|row| row.serial).collect())
    }

    /// Removes the rows of certificates that count no more.
    pub(super) async fn sweep_certificates(&self, now: Timestamp) -> Result<(), CoreError> {
        let query = Query { limit: Some(AT_A_TIME), ..Query::default() };
        // The oldest come first, and they end first as well.
        let rows: Vec<HostCertificate> = self.store.list(&query).await?;
        for mut row in rows.into_iter().filter(|row| row.expires_at <= now) {
            let mut tx = self.store.begin_background().await?;
            row.meta.deleted_at = Some(now);
            match tx.update(&mut row).await {
                Ok(()) => {}
                // Another gateway was faster.
                Err(StoreError::Stale) => continue,
                Err(other) => return Err(other.into()),
            }
            tx.purge(&row).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
