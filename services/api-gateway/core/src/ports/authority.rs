//! What certificates come from.

use std::time::Duration;

use cloud_domain::{Identity, join::Fingerprint};

use crate::model::{Authority, Timestamp};

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its serial number, in hex.
    pub serial: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The request is none, or is not signed by the key that it is for.
    #[error("{0}")]
    Request(String),
    /// There is no authority here whose key can be used.
    #[error("{0}")]
    Closed(String),
    /// A fault.
    #[error("cannot issue a certificate")]
    Fault(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An authority that is trusted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedAuthority {
    /// Its name.
    pub name: String,
    /// The digest of its certificate.
    pub fingerprint: Fingerprint,
    /// From when gateways show certificates of it.
    pub active_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whether hosts get their certificates from it.
    pub issues: bool,
}

/// What certificates come from.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Issues a certificate for the key of a request (PKCS #10, PEM). Nothing but the key is taken from it.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    fn issue(&self, request: &str, identity: Identity, lifetime: Duration) -> Result<Issued, AuthorityError>;

    /// The certificates of all authorities that are to be trusted now, in PEM.
    fn trusted(&self) -> String;

    /// These authorities, the oldest first.
    fn authorities(&self) -> Vec<TrustedAuthority>;

    /// The digests of their certificates.
    fn fingerprints(&self) -> Vec<Fingerprint> {
        self.authorities().into_iter().map(|authority| authority.fingerprint).collect()
    }

    /// A new authority with this number, its key sealed. It is one when its row is committed.
    ///
    /// # Errors
    /// Closed where authorities do not come from the database, or the master key is not this cloud's.
    fn successor(&self, number: u32) -> Result<Authority, AuthorityError>;
}

/// No authority: a gateway without one, such as a test's.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAuthority;

impl CertificateAuthority for NoAuthority {
    fn issue(&self, _request: &str, _identity: Identity, _lifetime: Duration) -> Result<Issued, AuthorityError> {
        Err(AuthorityError::Closed("this gateway has no certificate authority".to_owned()))
    }

    fn trusted(&self) -> String {
        String::new()
    }

    fn authorities(&self) -> Vec<TrustedAuthority> {
        Vec::new()
    }

    fn successor(&self, _number: u32) -> Result<Authority, AuthorityError> {
        Err(AuthorityError::Closed("this gateway has no certificate authority".to_owned()))
    }
}
