//! TLS by files: TLS 1.3 only, HTTP/2 and HTTP/1.1 by ALPN, client certificates where an authority for them is configured.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio_util::sync::CancellationToken;

use crate::{error::chain as chain_of, tls::CredentialError};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The flags of a server's TLS.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// Certificate chain in PEM; with --tls-key, the server speaks TLS. The files are read again when they change.
    #[arg(long, env = "CLOUD_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key in PEM.
    #[arg(long, env = "CLOUD_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// The files, if TLS is configured.
    ///
    /// # Errors
    /// One of the two is missing (clap does not see that if the other comes from a file).
    pub fn files(&self) -> Result<Option<TlsFiles>, TlsError> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: None })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(TlsError::Incomplete { missing: "tls-key" }),
            (None, Some(_)) => Err(TlsError::Incomplete { missing: "tls-cert" }),
        }
    }
}

/// The files that TLS is made of, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain, its own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority of client certificates. With it, a client without one is refused.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of certificate and key is configured without the other.
    #[error("TLS needs a certificate and a key, --{missing} is missing")]
    Incomplete {
        /// The flag that is missing.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file has nothing of what it should have.
    #[error("{} has no {what} in PEM form", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// The key does not belong to the certificate, or either is unusable.
    #[error("the certificate in {} and the key in {} cannot be used together", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// A file is missing, is not PEM, or does not fit the others.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Unusable {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| unusable(e.into()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|e| unusable(e.into()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|e| unusable(e.into()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates(&self.cert)?, private_key(&self.key)?)
            .map_err(|e| unusable(e.into()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A server's certificate with its key, as of now: every handshake takes what is in it then.
#[derive(Debug)]
pub struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// Of PEM texts: the chain, the server's own certificate first, and its key.
    ///
    /// # Errors
    /// They are not PEM, or do not fit each other.
    pub fn from_pem(chain: &str, key: &str) -> Result<Arc<Self>, CredentialError> {
        Ok(Arc::new(Self(RwLock::new(certified(chain, key)?))))
    }

    /// Counts from the next handshake on.
    ///
    /// # Errors
    /// As [`Self::from_pem`].
    pub fn replace(&self, chain: &str, key: &str) -> Result<(), CredentialError> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified(chain, key)?;
        Ok(())
    }

    /// The certificate that is shown now.
    #[must_use]
    pub fn shown(&self) -> Option<CertificateDer<'static>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).cert.first().cloned()
    }

    /// TLS 1.3 with it, for clients without certificates.
    ///
    /// # Errors
    /// Never in practice: the provider speaks TLS 1.3.
    pub fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, CredentialError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(CredentialError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn certified(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, CredentialError> {
    let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut chain.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or(CredentialError::Empty { of: "the certificate", what: "certificate" })?;
    let key = rustls_pemfile::private_key(&mut key.as_bytes()).ok().flatten();
    let key = key.ok_or(CredentialError::Empty { of: "the key", what: "private key" })?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(CredentialError::Unusable)?;
    Ok(Arc::new(certified))
}

impl TlsFiles {
    /// Takes over what the files say whenever that changes, until `shutdown`. What cannot be used is said and left.
    pub async fn keep_loaded(&self, certificate: Arc<ServerCertificate>, shutdown: CancellationToken) {
        let mut known = self.texts().await;
        let mut ticks = tokio::time::interval(LOOK);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let found = self.texts().await;
            if found == known {
                continue;
            }
            let replaced = match &found {
                Some((chain, key)) => certificate.replace(chain, key),
                None => Err(CredentialError::Certificate("a file is missing".to_owned())),
            };
            match replaced {
                Ok(()) => tracing::info!(certificate = %self.cert.display(), "the certificate was replaced"),
                Err(error) => {
                    let error = chain_of(&error);
                    tracing::warn!(certificate = %self.cert.display(), error, "the new files cannot be used: going on with what was there before");
                }
            }
            known = found;
        }
    }

    async fn texts(&self) -> Option<(String, String)> {
        Some((tokio::fs::read_to_string(&self.cert).await.ok()?, tokio::fs::read_to_string(&self.key).await.ok()?))
    }

    /// The certificate of the files, which must be whole.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn certificate(&self) -> Result<Arc<ServerCertificate>, TlsError> {
        // Says which file is wrong.
        self.load()?;
        let read =
            |path: &PathBuf| fs::read_to_string(path).map_err(|source| TlsError::Read { path: path.clone(), source });
        ServerCertificate::from_pem(&read(&self.cert)?, &read(&self.key)?).map_err(|e| TlsError::Unusable {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source: e.into(),
        })
    }
}

fn open(path: &Path) -> Result<io::BufReader<fs::File>, TlsError> {
    let file = fs::File::open(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    Ok(io::BufReader::new(file))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = rustls_pemfile::certs(&mut open(path)?)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), what: "certificate" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    rustls_pemfile::private_key(&mut open(path)?)
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?
        .ok_or_else(|| TlsError::Empty { path: path.to_owned(), what: "private key" })
}
