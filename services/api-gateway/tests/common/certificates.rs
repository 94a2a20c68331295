//! Certificates and the end of their host.

use std::{sync::Arc, time::Duration};

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    CoreError,
    model::{AgentRole, Authority, Host, HostCertificate, Labels, Meta, Timestamp},
    ports::{AuthorityError, CertificateAuthority, Issued, NoAuthority, Query, Store, TrustedAuthority, Tx},
    services::{JoinService, JoinSettings, revoke_certificates},
};
use cloud_domain::{HostId, Identity, ProjectId};
use uuid::Uuid;

use super::Cloud;

/// Signs everything.
struct Willing;

impl CertificateAuthority for Willing {
    fn issue(&self, request: &str, _identity: Identity, _lifetime: Duration) -> Result<Issued, AuthorityError> {
        Ok(Issued { certificate: String::new(), serial: request.to_owned(), expires_at: Timestamp::now() })
    }

    fn trusted(&self) -> String {
        String::new()
    }

    fn authorities(&self) -> Vec<TrustedAuthority> {
        Vec::new()
    }

    fn successor(&self, number: u32) -> Result<Authority, AuthorityError> {
        NoAuthority.successor(number)
    }
}

async fn certificate(store: &SqlStore, host: HostId, serial: &str) {
    let mut tx = store.begin().await.unwrap();
    let row = HostCertificate {
        meta: Meta::new(Uuid::new_v4(), ProjectId::from(Uuid::nil()), "", serial, Labels::new()),
        host,
        role: AgentRole::Storage,
        serial: serial.to_owned(),
        expires_at: Timestamp::now(),
        revoked_at: None,
    };
    tx.insert(&row).await.unwrap();
    tx.commit().await.unwrap();
}

/// A host that is being removed gets no certificate which its removal does not see.
pub async fn no_certificate_outlives_its_host(c: &Cloud) {
    let joins = JoinService::new(c.store.clone(), Arc::clone(&c.registry), Arc::new(Willing), JoinSettings::default());
    certificate(&c.store, c.host, "first").await;
    joins.renew((c.host, AgentRole::Storage), "first", "second").await.unwrap();

    // The removal of a host, held between its writes and its commit.
    let mut tx = c.store.begin().await.unwrap();
    tx.lock_capacity_used(c.host).await.unwrap();
    let mut host: Host = tx.get(*c.host.as_uuid()).await.unwrap().unwrap();
    host.meta.deleted_at = Some(Timestamp::now());
    tx.update(&mut host).await.unwrap();
    revoke_certificates(&mut tx, c.host).await.unwrap();
    let renewing = {
        let (joins, host) = (joins.clone(), c.host);
        tokio::spawn(async move { joins.renew((host, AgentRole::Storage), "second", "third").await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!renewing.is_finished(), "it was not waited for the host's removal");
    tx.commit().await.unwrap();
    let renewed = renewing.await.unwrap();
    assert!(matches!(renewed, Err(CoreError::NotFound { .. })), "{renewed:?}");
    let live = Query { columns: vec![("revoked", cloud_core::model::Value::Int(0))], ..Query::default() };
    let live: Vec<HostCertificate> = c.store.list(&live).await.unwrap();
    assert!(live.iter().all(|row| row.host != c.host), "{live:?}");
}
