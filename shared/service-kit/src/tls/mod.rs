//! Mutual TLS between the daemons: who somebody is stands in the URI of a certificate, and nothing else counts.
//!
//! # Theory of operation
//!
//! A daemon has one [`Credentials`]: its certificate, its key and the authorities it trusts, as they are **now**. Every handshake looks at
//! them anew, so a certificate that was renewed, and an authority that was added or taken away, count from the next connection on, and no
//! connection ends by it.
//!
//! A certificate's host names are not looked at: addresses change, and whoever holds a certificate for an address may hold it for another
//! cloud. What is checked is the chain to an authority, the time, and that the one URI in the certificate is the [`Identity`] that is expected
//! here: the gateway of our own cloud, or a certain daemon of a certain host of it. A connection is never resumed from an earlier one, which
//! would leave these checks out. Only TLS 1.3 is spoken.

mod credentials;
mod files;
mod peers;
pub mod request;

use std::{io, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
    server::NoServerSessionStorage,
    version::TLS13,
};
use sha2::{Digest as _, Sha256};

pub use cloud_domain::{Daemon, Identity, join::Fingerprint};
pub use credentials::{Credentials, Material, Validity};
pub use files::{CredentialFiles, keep_loaded};
pub use peers::{Expect, identity_of, serial_of};
use peers::{Peers, Pinned};

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A text has nothing of what it should have.
    #[error("{of} has no {what} in PEM form")]
    Empty {
        /// Which text.
        of: &'static str,
        /// What was expected.
        what: &'static str,
    },
    /// The certificate does not say who it is for.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// It is for somebody else.
    #[error("the certificate is for {found}, and this is {expected}")]
    SomebodyElse {
        /// Whom it is for.
        found: String,
        /// Who this is.
        expected: String,
    },
    /// rustls does not take it.
    #[error("certificate, key and authorities cannot be used together")]
    Unusable(#[source] rustls::Error),
    /// A key or a request for a certificate cannot be made.
    #[error("cannot make a key or a certificate request")]
    Make(#[source] rcgen::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// TLS of a server: whoever connects must be as expected. `optional`: who shows no certificate at all is let in too, as nobody.
///
/// # Errors
/// Never in practice: the provider speaks TLS 1.3.
pub fn server_config(
    credentials: &Arc<Credentials>,
    expect: Expect,
    optional: bool,
) -> Result<Arc<ServerConfig>, CredentialError> {
    let peers = Arc::new(Peers::new(Arc::clone(credentials), expect, optional));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(CredentialError::Unusable)?
        .with_client_cert_verifier(peers)
        .with_cert_resolver(Arc::clone(credentials) as _);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// TLS of a client that shows its certificate, and connects to nobody but whom it expects.
///
/// # Errors
/// As [`server_config`].
pub fn client_config(credentials: &Arc<Credentials>, expect: Expect) -> Result<Arc<ClientConfig>, CredentialError> {
    let peers = Arc::new(Peers::new(Arc::clone(credentials), expect, false));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(CredentialError::Unusable)?
        .dangerous()
        .with_custom_certificate_verifier(peers)
        .with_client_cert_resolver(Arc::clone(credentials) as _);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// TLS of a client without a certificate, which knows the gateway by the authority behind its certificate: for joining.
///
/// # Errors
/// As [`server_config`].
pub fn pinned_config(authorities: Vec<Fingerprint>) -> Result<Arc<ClientConfig>, CredentialError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(CredentialError::Unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned::new(authorities)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The SHA-256 digest of a certificate.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Sha256::digest(certificate.as_ref()).into()
}

#[cfg(test)]
mod tests;
