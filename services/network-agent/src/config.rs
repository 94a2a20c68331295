//! The flags of the network-agent.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use cloud_domain::CloudId;
use cloud_service_kit::{agent::AgentArgs, config::DaemonArgs};

use crate::adapters::ovs::{BridgeConfig, Datapath};

/// The network-agent of a host: virtual networks on Open vSwitch.
#[derive(Debug, Clone, Parser)]
#[command(name = "cloud-network-agent", version)]
pub struct Config {
    /// What every daemon has.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// What every agent has.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// The switch.
    #[command(flatten)]
    pub switch: SwitchArgs,
    /// Which datapath a new bridge gets, and an existing one must have.
    #[arg(long, env = "CLOUD_DATAPATH", value_enum, default_value = "auto")]
    pub datapath: DatapathChoice,
    /// This host's address for tunnels to other hosts. Without it, guests reach only guests of the same host.
    #[arg(long, env = "CLOUD_TUNNEL_ADDRESS", value_name = "IP")]
    pub tunnel_address: Option<Ipv4Addr>,
    /// Seconds between two looks at whether the switch still has the flows it was given.
    #[arg(long, env = "CLOUD_SWEEP_SECONDS", value_name = "SECONDS", default_value_t = 2,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub sweep_seconds: u64,
    /// Something else than running as a daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Which switch, for the daemon and for `cleanup`.
#[derive(Debug, Clone, Args)]
pub struct SwitchArgs {
    /// The integration bridge: at most ten letters, digits, `-` and `_`.
    #[arg(long, env = "CLOUD_BRIDGE", value_name = "NAME", default_value = "br-int", global = true, value_parser = bridge_name)]
    pub bridge: String,
    /// Where Open vSwitch has its sockets.
    #[arg(long, env = "OVS_RUNDIR", value_name = "DIRECTORY", default_value = "/var/run/openvswitch", global = true)]
    pub ovs_rundir: PathBuf,
}

/// What the program does besides running as a daemon.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Removes the integration bridge and every tap, if they are tagged as a cloud's. Guests on this host lose their network.
    Cleanup {
        /// The cloud whose things are removed; by default the one that the bridge is tagged with.
        #[arg(long, value_name = "UUID")]
        cloud_id: Option<CloudId>,
    },
}

/// A choice of datapath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatapathChoice {
    /// `system` where the kernel has Open vSwitch, else `netdev`; an existing bridge stays as it is.
    Auto,
    /// The kernel's.
    System,
    /// The one within ovs-vswitchd.
    Netdev,
}

impl Config {
    /// How the bridge is made. Looks at the kernel where the choice is `auto`.
    pub async fn bridge(&self) -> BridgeConfig {
        let required = match self.datapath {
            DatapathChoice::Auto => None,
            DatapathChoice::System => Some(Datapath::System),
            DatapathChoice::Netdev => Some(Datapath::Netdev),
        };
        let preferred = match required {
            Some(datapath) => datapath,
            None => Datapath::detect().await,
        };
        BridgeConfig { tunnel_address: self.tunnel_address, ..self.switch.bridge(required, preferred) }
    }

    /// Time between two looks at the switch.
    #[must_use]
    pub const fn sweep(&self) -> Duration {
        Duration::from_secs(self.sweep_seconds)
    }
}

impl SwitchArgs {
    /// The bridge without tunnels.
    #[must_use]
    pub fn bridge(&self, required: Option<Datapath>, preferred: Datapath) -> BridgeConfig {
        BridgeConfig {
            name: self.bridge.clone(),
            required,
            preferred,
            tunnel_address: None,
            run_dir: self.ovs_rundir.clone(),
        }
    }
}

/// Devices are called after the bridge, with up to five characters more, and a device's name has fifteen at most (netdevice(7)).
fn bridge_name(text: &str) -> Result<String, String> {
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=10).contains(&text.len()) && text.chars().all(known) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("must have one to ten letters, digits, `-` and `_`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_before_and_after_the_subcommand() {
        let config = Config::try_parse_from(["cloud-network-agent", "cleanup", "--bridge", "br-x"]).unwrap();
        assert_eq!(config.switch.bridge, "br-x");
        assert!(matches!(config.command, Some(Command::Cleanup { cloud_id: None })));
        let config = Config::try_parse_from(["cloud-network-agent", "--bridge", "br-x"]).unwrap();
        assert_eq!((config.switch.bridge.as_str(), config.datapath), ("br-x", DatapathChoice::Auto));
    }

    #[test]
    fn names_that_are_no_bridges_are_refused() {
        for bad in ["", "a-long-bridge", "br/../x", "-br", "br x"] {
            assert!(Config::try_parse_from(["cloud-network-agent", &format!("--bridge={bad}")]).is_err(), "{bad}");
        }
    }
}
