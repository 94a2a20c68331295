//! The command line.

use std::{
    net::{IpAddr, UdpSocket},
    path::PathBuf,
};

use clap::{Parser, ValueEnum};
use cloud_domain::{Daemon, HostName, join::JoinToken};

use crate::error::Error;

/// Lets this host join a cloud: makes a key for each of its three agents, has the gateway sign them, writes the agents' configuration and
/// starts them.
///
/// The token comes from `cloud host token create`. It is told to nobody but a gateway with the certificate authority whose fingerprint
/// stands in it.
#[derive(Debug, Parser)]
#[command(name = "cloud-agent-join", version)]
pub struct Args {
    /// The token; `-` reads it from stdin, where other users of this machine cannot see it.
    #[arg(value_name = "TOKEN")]
    token: String,
    /// This host's name in the cloud; by default the machine's own, up to its first dot.
    #[arg(long, env = "CLOUD_HOST_NAME", value_name = "NAME")]
    host_name: Option<String>,
    /// The address that the gateway reaches this host's agents at; by default the one that this host reaches the gateway from.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// The address that tunnels of other hosts end at; by default --address, where that is IPv4.
    #[arg(long, value_name = "IP")]
    tunnel_address: Option<IpAddr>,
    /// Where the compute-agent listens.
    #[arg(long, value_name = "PORT", default_value_t = 9441)]
    compute_port: u16,
    /// Where the storage-agent listens.
    #[arg(long, value_name = "PORT", default_value_t = 9442)]
    storage_port: u16,
    /// Where the network-agent listens.
    #[arg(long, value_name = "PORT", default_value_t = 9443)]
    network_port: u16,
    /// Where the agents' configuration is written.
    #[arg(long, value_name = "DIRECTORY", default_value = "/etc/thecloud")]
    pub config_dir: PathBuf,
    /// Where the agents keep what is theirs: keys and certificates, the host's id, volumes.
    #[arg(long, env = "CLOUD_STATE_DIR", value_name = "DIRECTORY", default_value = "/var/lib/thecloud")]
    pub state_dir: PathBuf,
    /// One more setting of the compute-agent, such as `libvirt-uri=qemu:///system`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    compute: Vec<(String, String)>,
    /// One more setting of the storage-agent, such as `pool-dir=/srv/volumes`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    storage: Vec<(String, String)>,
    /// One more setting of the network-agent, such as `bridge=br-int`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    network: Vec<(String, String)>,
    /// Join again although this host's certificates still count; with a token that is bound to it.
    #[arg(long)]
    pub again: bool,
    /// Write the configuration also where there is one.
    #[arg(long)]
    pub rewrite_config: bool,
    /// How the agents are started.
    #[arg(long, value_enum, default_value_t, conflicts_with = "no_start")]
    start: Start,
    /// Start nothing; the same as `--start no`.
    #[arg(long)]
    no_start: bool,
    /// Where the agents' programs are; by default beside this one.
    #[arg(long, value_name = "DIRECTORY")]
    pub bin_dir: Option<PathBuf>,
}

/// How the agents are started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Start {
    /// By systemd where it runs and has their units, else as `processes`.
    #[default]
    Auto,
    /// By systemd: `cloud-compute-agent.service` and the two others are enabled and started.
    Systemd,
    /// As processes of their own in the background, with logs and process ids in the state directory. Nothing starts them again after a crash
    /// or a reboot: that is for a machine without systemd, where something else should.
    Processes,
    /// Not at all.
    No,
}

/// What the agents' configuration says.
#[derive(Debug)]
pub struct Plan {
    /// The host's name.
    pub host_name: HostName,
    /// Where the gateways are.
    pub gateways: Vec<String>,
    /// Where each agent listens.
    pub listen: [(Daemon, String); 3],
    /// Where tunnels end.
    pub tunnel_address: Option<IpAddr>,
    /// What was said of each agent beside that.
    pub settings: [(Daemon, Vec<(String, String)>); 3],
}

impl Args {
    /// The token.
    pub fn token(&self) -> Result<JoinToken, Error> {
        let text = match self.token.as_str() {
            "-" => std::io::read_to_string(std::io::stdin()).map_err(Error::Stdin)?,
            text => text.to_owned(),
        };
        Ok(text.parse()?)
    }

    /// How the agents are started.
    pub fn start(&self) -> Start {
        if self.no_start { Start::No } else { self.start }
    }

    /// What the agents' configuration will say.
    pub fn plan(&self, token: &JoinToken) -> Result<Plan, Error> {
        let address = match self.address {
            Some(address) => address,
            None => own_address(&token.gateways)?,
        };
        let name = match &self.host_name {
            Some(name) => name.clone(),
            None => {
                let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
                name.split('.').next().unwrap_or_default().to_owned()
            }
        };
        let host = match address {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let listen = |daemon, port: u16| (daemon, format!("tcp:{host}:{port}"));
        Ok(Plan {
            host_name: name.parse().map_err(|problem| Error::HostName { name, problem })?,
            gateways: token.gateways.iter().map(|gateway| format!("tcp:{gateway}")).collect(),
            listen: [
                listen(Daemon::Compute, self.compute_port),
                listen(Daemon::Storage, self.storage_port),
                listen(Daemon::Network, self.network_port),
            ],
            tunnel_address: self.tunnel_address.or(Some(address).filter(|ip| ip.is_ipv4() && !ip.is_loopback())),
            settings: [
                (Daemon::Compute, self.compute.clone()),
                (Daemon::Storage, self.storage.clone()),
                (Daemon::Network, self.network.clone()),
            ],
        })
    }
}

/// The address that packets to a gateway leave from. None is sent: a datagram socket is only told where they would go.
fn own_address(gateways: &[String]) -> Result<IpAddr, Error> {
    let mut why = std::io::Error::other("the token has no gateway");
    for gateway in gateways {
        let found = ["0.0.0.0:0", "[::]:0"].into_iter().map(|any| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(gateway.as_str())?;
            Ok(socket.local_addr()?.ip())
        });
        for address in found {
            match address {
                Ok(address) => return Ok(address),
                Err(error) => why = error,
            }
        }
    }
    Err(Error::OwnAddress(why))
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE, such as bridge=br-int".to_owned()),
    }
}
