//! The certificates of a gateway, put together: the authority, its own certificate, and what is served with them.

use std::{sync::Arc, time::Duration};

use cloud_core::{
    ports::{CertificateAuthority as _, Store},
    services::JoinService,
};
use cloud_domain::join;
use cloud_service_kit::{
    error::chain,
    server::{ServerCertificate, ServerOptions, TlsFiles},
    tls::{CredentialError, Credentials, Expect, server_config},
};
use rcgen::KeyPair;
use tokio_util::sync::CancellationToken;

use crate::{
    adapters::pki::{Authorities, Keeper, OwnError, PkiError, PublicCertificate, Revocations, gateway_credentials},
    config::{Config, TlsMode},
    gateway::GatewayError,
};

/// The certificates of a gateway.
pub struct Certificates {
    /// What they come from.
    pub authorities: Arc<Authorities>,
    own: Option<(Arc<Credentials>, KeyPair)>,
    revocations: Arc<Revocations>,
    lifetime: Duration,
}

impl Certificates {
    /// Finds the authority, or makes it, and issues the gateway's own certificate.
    ///
    /// # Errors
    /// The authority cannot be used, and agents of other machines are to be served; or its files are wrong.
    pub async fn open<S: Store>(config: &Config, store: &S) -> Result<Self, OwnError> {
        let flags = &config.join;
        let authorities = match (&flags.ca_cert, &flags.ca_key) {
            (Some(certificate), Some(key)) => Authorities::of_files(store.identity().0, certificate, key)?,
            _ => {
                let overlap = Duration::from_secs(flags.host_certificate_lifetime);
                let lifetime = Duration::from_secs(flags.ca_lifetime);
                Authorities::built_in(store, &config.master_key_file(), overlap, lifetime).await?
            }
        };
        let lifetime = Duration::from_secs(flags.gateway_certificate_lifetime);
        let key = KeyPair::generate().map_err(PkiError::Make)?;
        let own = match gateway_credentials(&authorities, &key, lifetime) {
            Ok(material) => Some((Credentials::new(material), key)),
            Err(error) if flags.agents_address.is_some() => return Err(error),
            Err(error) => {
                // On one machine, nothing needs it.
                tracing::warn!(
                    error = chain(&error),
                    "this gateway has no certificate: it reaches only agents of this machine"
                );
                None
            }
        };
        Ok(Self { authorities: Arc::new(authorities), own, revocations: Arc::default(), lifetime })
    }

    /// What the gateway shows agents.
    #[must_use]
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        self.own.as_ref().map(|(credentials, _)| Arc::clone(credentials))
    }

    /// How agents of other machines are served.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn server_options(&self) -> Result<Option<ServerOptions>, CredentialError> {
        let Some((credentials, _)) = &self.own else { return Ok(None) };
        // Who joins has no certificate yet.
        let tls = Some(server_config(credentials, Expect::AnyAgent, true)?);
        Ok(Some(ServerOptions { tls, guard: Some(self.revocations.clone()), ..ServerOptions::default() }))
    }

    /// TLS of the public port, and the certificate that it shows.
    ///
    /// # Errors
    /// The files are wrong, or the authority's key cannot be used.
    pub fn public(&self, tls: &PublicTls, config: &Config) -> Result<PublicServer, GatewayError> {
        let (certificate, key, names) = match tls {
            PublicTls::Off => return Ok((None, None)),
            PublicTls::Files(files) => (files.certificate()?, None, Vec::new()),
            PublicTls::BuiltIn => {
                let (names, key) = (config.server_names(), KeyPair::generate().map_err(PkiError::Make)?);
                let chain = self.authorities.server_chain(&key, &names, self.lifetime)?;
                let certificate = ServerCertificate::from_pem(&chain, &key.serialize_pem())?;
                for fingerprint in self.authorities.fingerprints() {
                    let fingerprint = join::hex(&fingerprint);
                    tracing::info!(
                        fingerprint,
                        "clients know the public port by this: cloud login URL --fingerprint …"
                    );
                }
                (certificate, Some(Arc::new(key)), names)
            }
        };
        let tls = certificate.config()?;
        Ok((Some(tls), Some(PublicCertificate { certificate, key, names })))
    }

    /// What keeps them.
    pub fn keeper<S: Store>(self, store: S, joins: JoinService<S>, public: Option<PublicCertificate>) -> Keeper<S> {
        let Self { authorities, own, revocations, lifetime } = self;
        Keeper { store, joins, authorities, own, public, revocations, lifetime }
    }
}

/// TLS of the public port, and what it shows.
pub type PublicServer = (Option<Arc<rustls::ServerConfig>>, Option<PublicCertificate>);

/// How the public port speaks TLS.
pub enum PublicTls {
    /// Not at all.
    Off,
    /// By files.
    Files(TlsFiles),
    /// By the cloud's own authority.
    BuiltIn,
}

impl PublicTls {
    /// As configured.
    ///
    /// # Errors
    /// What is said about it does not fit together, or the files cannot be used.
    pub fn of(config: &Config) -> Result<Self, GatewayError> {
        Ok(match config.tls_mode().map_err(GatewayError::PublicTls)? {
            TlsMode::Off => Self::Off,
            TlsMode::BuiltIn => Self::BuiltIn,
            TlsMode::Files => match config.tls.files()? {
                None => Self::Off,
                Some(files) => {
                    files.load()?;
                    Self::Files(files)
                }
            },
        })
    }

    /// Whether it does.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// Takes over what the files say, until `shutdown`.
    pub async fn keep_loaded(&self, public: Option<&PublicCertificate>, shutdown: CancellationToken) {
        if let (Self::Files(files), Some(public)) = (self, public) {
            files.keep_loaded(Arc::clone(&public.certificate), shutdown).await;
        }
    }
}
