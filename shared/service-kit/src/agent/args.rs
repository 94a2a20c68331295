//! The flags that every agent has.

use std::path::PathBuf;

use clap::Args;

use crate::{Address, tls::CredentialFiles};

/// The flags that every agent has besides [`crate::config::DaemonArgs`]; `#[command(flatten)]` it.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// Where the gateway's host service listens; several, with commas between, where there are several gateways: the agent turns to another
    /// one when its own does not answer.
    #[arg(
        long,
        env = "CLOUD_GATEWAY",
        value_name = "ADDRESS",
        value_delimiter = ',',
        required = false,
        default_value = "unix:/var/lib/thecloud/host.sock"
    )]
    pub gateway: Vec<Address>,
    /// The directory of this daemon's sockets and files.
    #[arg(long, env = "CLOUD_STATE_DIR", value_name = "DIRECTORY", default_value = "/var/lib/thecloud")]
    pub state_dir: PathBuf,
    /// This host's name in the cloud; by default the machine's own, up to its first dot.
    #[arg(long, env = "CLOUD_HOST_NAME", value_name = "NAME")]
    pub host_name: Option<String>,
    /// The file with this host's id, shared by its three agents; made by the first of them that starts.
    #[arg(long, env = "CLOUD_HOST_ID_FILE", value_name = "FILE", default_value = "/var/lib/thecloud/host-id")]
    pub host_id_file: PathBuf,
    /// Where the gateway reaches this agent, if that is not where it listens.
    #[arg(long, env = "CLOUD_ADVERTISE", value_name = "ADDRESS")]
    pub advertise: Option<Address>,
    /// Mutual TLS, for hosts that the gateway reaches over a network.
    #[command(flatten)]
    pub tls: AgentTlsArgs,
}

/// The flags of an agent's mutual TLS: all three or none. `cloud-agent-join` sets them. The files are read again when they change.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentTlsArgs {
    /// This agent's certificate (PEM); its URI says cloud, host and role.
    #[arg(long, env = "CLOUD_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, env = "CLOUD_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// The authorities (PEM) that the gateway's certificate must come from.
    #[arg(long, env = "CLOUD_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Do not have the gateway renew the certificate: somebody else puts new files in place.
    #[arg(long, env = "CLOUD_TLS_EXTERNAL")]
    pub tls_external: bool,
}

impl AgentTlsArgs {
    /// The files, if TLS is configured.
    ///
    /// # Errors
    /// The first flag that is missing where others are given.
    pub fn files(&self) -> Result<Option<CredentialFiles>, &'static str> {
        match (&self.tls_cert, &self.tls_key, &self.tls_ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(authorities)) => Ok(Some(CredentialFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                authorities: authorities.clone(),
            })),
            (None, _, _) => Err("--tls-cert"),
            (_, None, _) => Err("--tls-key"),
            (_, _, None) => Err("--tls-ca"),
        }
    }
}
