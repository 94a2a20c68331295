//! The gateways of an agent's cloud, and how they are reached.

use std::sync::Arc;

use cloud_contracts::agent::host_service_client::HostServiceClient;

use crate::{
    Address,
    channel::{AgentChannel, agent_channel_by},
    tls::{CredentialError, Credentials, Expect, client_config},
};

/// The gateways of an agent's cloud.
#[derive(Debug, Clone)]
pub struct Gateways {
    /// Where they are.
    pub addresses: Vec<Address>,
    /// What this agent shows them, and whom it trusts; without, nothing.
    pub credentials: Option<Arc<Credentials>>,
}

impl Gateways {
    /// Reached without TLS: over unix sockets or loopback.
    #[must_use]
    pub const fn plain(addresses: Vec<Address>) -> Self {
        Self { addresses, credentials: None }
    }

    /// A client of each, in the same order.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn clients(&self) -> Result<Vec<HostServiceClient<AgentChannel>>, CredentialError> {
        let tls = self.credentials.as_ref().map(|own| client_config(own, Expect::Gateway)).transpose()?;
        let client = |address| HostServiceClient::new(agent_channel_by(address, tls.clone()));
        Ok(self.addresses.iter().map(client).collect())
    }

    /// How often the credentials were replaced: clients that were made before show the earlier ones until they connect anew.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.credentials.as_ref().map_or(0, |own| own.generation())
    }
}
