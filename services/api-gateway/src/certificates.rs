//! The certificates of a gateway, put together: the authority, its own certificate, and what is served with them.

use std::{sync::Arc, time::Duration};

use cloud_core::{ports::Store, services::JoinService};
use cloud_service_kit::{
    error::chain,
    server::ServerOptions,
    tls::{CredentialError, Credentials, Expect, server_config},
};
use rcgen::KeyPair;

use crate::{
    adapters::pki::{Authorities, Keeper, OwnError, PkiError, Revocations, gateway_credentials},
    config::Config,
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

    /// What keeps them.
    pub fn keeper<S: Store>(self, store: S, joins: JoinService<S>) -> Keeper<S> {
        let Self { authorities, own, revocations, lifetime } = self;
        Keeper { store, joins, authorities, own, revocations, lifetime }
    }
}
