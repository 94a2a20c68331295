//! What a daemon shows and whom it trusts, as of now.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore, SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring,
    pki_types::CertificateDer,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CredentialError, Identity, peers::identity_of, provider};

/// From when to when a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its beginning.
    pub from: SystemTime,
    /// Its end.
    pub until: SystemTime,
}

impl Validity {
    /// Of a certificate.
    ///
    /// # Errors
    /// It is none.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CredentialError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|e| CredentialError::Certificate(e.to_string()))?;
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let validity = parsed.validity();
        Ok(Self { from: at(validity.not_before.timestamp()), until: at(validity.not_after.timestamp()) })
    }

    /// When two thirds of it have passed: time to renew.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        let lifetime = self.until.duration_since(self.from).unwrap_or_default();
        self.from + lifetime * 2 / 3
    }

    /// Whether its end is past.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.until <= SystemTime::now()
    }
}

/// A certificate with its key, and the authorities that others' certificates must come from.
pub struct Material {
    /// Whom the certificate speaks for.
    pub identity: Identity,
    /// From when to when it counts.
    pub validity: Validity,
    pub(super) own: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Material {
    /// Of PEM texts: the certificate (with others that lead to an authority after it), its key, and the authorities.
    ///
    /// # Errors
    /// One of them is not PEM or does not fit the others, or the certificate has no identity.
    pub fn from_pem(certificate: &str, key: &str, authorities: &str) -> Result<Self, CredentialError> {
        let chain = certificates(certificate, "the certificate")?;
        let first = chain.first().ok_or(CredentialError::Empty { of: "the certificate", what: "certificate" })?;
        let (identity, validity) = (identity_of(first).map_err(CredentialError::Certificate)?, Validity::of(first)?);
        let key = rustls_pemfile::private_key(&mut key.as_bytes())
            .ok()
            .flatten()
            .ok_or(CredentialError::Empty { of: "the key", what: "private key" })?;
        let own = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(CredentialError::Unusable)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities, "the file of authorities")? {
            roots.add(authority).map_err(CredentialError::Unusable)?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|e| CredentialError::Certificate(e.to_string()))?;
        Ok(Self { identity, validity, own: Arc::new(own), roots, clients })
    }
}

pub(super) fn certificates(pem: &str, of: &'static str) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(CredentialError::Empty { of, what: "certificate" }),
    }
}

/// What a daemon shows and whom it trusts. Every handshake takes what is in it then.
#[derive(Debug)]
pub struct Credentials {
    now: RwLock<Arc<Material>>,
    replaced: watch::Sender<u64>,
}

impl Credentials {
    /// To begin with.
    #[must_use]
    pub fn new(material: Material) -> Arc<Self> {
        Arc::new(Self { now: RwLock::new(Arc::new(material)), replaced: watch::Sender::new(0) })
    }

    /// What counts now.
    #[must_use]
    pub fn now(&self) -> Arc<Material> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts from the next handshake on.
    pub fn replace(&self, material: Material) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(material);
        self.replaced.send_modify(|n| *n += 1);
    }

    /// How often they were replaced.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.replaced.borrow()
    }

    /// Tells when they are replaced.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().own))
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().own))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
