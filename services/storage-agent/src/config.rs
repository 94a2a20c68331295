//! Flags, environment and file.

use std::{path::PathBuf, time::Duration};

use cloud_image_probe::Limits;
use cloud_service_kit::{agent::AgentArgs, config::DaemonArgs};

use crate::{adapters::directory::Options, core::Rules, handlers::wire::DEFAULT_POOL};

/// The storage-agent keeps volumes and cached images of one host for a cloud.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "cloud-storage-agent", version)]
pub struct Config {
    /// The flags of every daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// The flags of every agent.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// The directory of the pool `default`. The hypervisor's user must be able to enter every directory above it.
    #[arg(long, env = "CLOUD_POOL_DIR", value_name = "DIRECTORY", default_value = "/var/lib/thecloud/pools/default")]
    pub pool_dir: PathBuf,
    /// MiB of the pool that new volumes and images leave free; by default 1024 or 5 % of the pool, whichever is less.
    #[arg(long, env = "CLOUD_POOL_RESERVE_MIB", value_name = "MIB")]
    pub pool_reserve_mib: Option<u32>,
    /// How many qemu-img processes run at the same time.
    #[arg(long, env = "CLOUD_MAX_COMMANDS", value_name = "NUMBER", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub max_commands: u16,
    /// The largest disk, in GiB, that an image may describe.
    #[arg(long, env = "CLOUD_MAX_IMAGE_GIB", value_name = "GIB", default_value_t = 2048)]
    pub max_image_gib: u32,
}

impl Config {
    pub(crate) fn pool(&self) -> anyhow::Result<Options> {
        Ok(Options {
            name: DEFAULT_POOL.parse()?,
            directory: std::path::absolute(&self.pool_dir)?,
            memory: self.agent.state_dir.join(format!("storage-pool-{DEFAULT_POOL}.json")),
            max_commands: self.max_commands.into(),
            probe: Limits { max_virtual_size: u64::from(self.max_image_gib) << 30, ..Limits::default() },
            handover: Duration::from_secs(30),
        })
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules { reserve_bytes: self.pool_reserve_mib.map(|mib| u64::from(mib) << 20), ..Rules::default() }
    }
}
