//! Keeps the gateway's own certificate, the authorities and the revocations at what they shall be.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cloud_core::{
    ports::{CertificateAuthority as _, Store},
    services::JoinService,
};
use cloud_service_kit::{
    error::chain,
    server::ServerCertificate,
    tls::{CredentialError, Credentials, Material, Validity},
};
use rcgen::KeyPair;
use tokio_util::sync::CancellationToken;

use super::{Authorities, PkiError, Revocations};

/// How often the database is asked.
const LOOK: Duration = Duration::from_secs(1);
/// How often rows that count no more are removed.
const SWEEP: Duration = Duration::from_secs(600);

/// Why a gateway has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The authority.
    #[error(transparent)]
    Authority(#[from] PkiError),
    /// The certificate.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

/// What a gateway shows hosts, and whom it trusts.
///
/// # Errors
/// The authority's key cannot be used here.
pub fn gateway_credentials(authorities: &Authorities, key: &KeyPair, lifetime: Duration) -> Result<Material, OwnError> {
    let chain = authorities.gateway_chain(key, lifetime)?;
    Ok(Material::from_pem(&chain, &key.serialize_pem(), &authorities.trusted())?)
}

/// What the public port shows.
#[derive(Clone)]
pub struct PublicCertificate {
    /// As of now.
    pub certificate: Arc<ServerCertificate>,
    /// Its key, where the cloud's own authority issues it.
    pub key: Option<Arc<KeyPair>>,
    /// The names in it.
    pub names: Vec<String>,
}

/// Keeps all of it until the gateway ends.
pub struct Keeper<S> {
    /// The store.
    pub store: S,
    /// The tokens and certificates of hosts.
    pub joins: JoinService<S>,
    /// The authorities.
    pub authorities: Arc<Authorities>,
    /// The gateway's own certificate, with its key; none where no certificate can be issued.
    pub own: Option<(Arc<Credentials>, KeyPair)>,
    /// What the public port shows.
    pub public: Option<PublicCertificate>,
    /// Who is no longer let in.
    pub revocations: Arc<Revocations>,
    /// How long the gateway's certificate counts.
    pub lifetime: Duration,
}

impl<S: Store> Keeper<S> {
    /// Until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut swept = Instant::now();
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.joins.revoked().await {
                Ok(revoked) => self.revocations.set(revoked),
                Err(error) => tracing::debug!(%error, "which certificates were revoked could not be looked up"),
            }
            if let Err(error) = self.look().await {
                tracing::warn!(error = chain(&error), "the certificates could not be looked after: trying again");
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                if let Err(error) = self.tidy().await {
                    tracing::warn!(error = chain(&error), "certificates that count no more could not be removed");
                }
            }
        }
    }

    async fn look(&self) -> Result<(), OwnError> {
        let changed = self.authorities.refresh(&self.store).await?;
        if changed {
            tracing::info!("the authorities of certificates have changed");
        }
        self.look_at_public(changed)?;
        let Some((credentials, key)) = &self.own else { return Ok(()) };
        if changed || credentials.now().validity.renew_at() <= SystemTime::now() {
            credentials.replace(gateway_credentials(&self.authorities, key, self.lifetime)?);
            tracing::info!("the gateway's certificate was issued anew");
        }
        Ok(())
    }

    fn look_at_public(&self, changed: bool) -> Result<(), OwnError> {
        let Some(PublicCertificate { certificate, key: Some(key), names }) = &self.public else { return Ok(()) };
        let shown = certificate.shown().map(|shown| Validity::of(&shown)).transpose()?;
        if changed || shown.is_none_or(|validity| validity.renew_at() <= SystemTime::now()) {
            let chain = self.authorities.server_chain(key, names, self.lifetime)?;
            certificate.replace(&chain, &key.serialize_pem())?;
            tracing::info!("the certificate of the public port was issued anew");
        }
        Ok(())
    }

    async fn tidy(&self) -> Result<(), PkiError> {
        self.joins.sweep().await?;
        if self.authorities.is_ending(&self.store).await? {
            tracing::info!("the authority of certificates nears its end: replacing it");
            self.authorities.rotate(&self.store).await?;
        }
        Ok(())
    }
}
