//! The flags that every agent has.

use std::path::PathBuf;

use clap::Args;

use crate::Address;

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
}
