//! Flags, environment and configuration file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cloud_domain::CloudId;
use cloud_service_kit::{agent::AgentArgs, config::DaemonArgs};

use crate::adapters::accelerator::AcceleratorSetting;

/// The compute-agent: runs this host's guests by libvirt.
#[derive(Debug, Clone, Parser)]
#[command(name = "cloud-compute-agent", version)]
pub struct Config {
    /// Flags of every daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// Flags of every agent.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// How guests run.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Without one: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags of this daemon alone.
#[derive(Debug, Clone, Args)]
pub struct ComputeArgs {
    /// The libvirt to use.
    #[arg(long, env = "CLOUD_LIBVIRT_URI", value_name = "URI", default_value = "qemu:///system")]
    pub libvirt_uri: String,
    /// What guests run under; `auto` starts a tiny guest under KVM to know, once per boot of the machine.
    #[arg(long, env = "CLOUD_ACCELERATOR", value_enum, default_value_t)]
    pub accelerator: AcceleratorSetting,
    /// The emulator; by default the distribution's.
    #[arg(long, env = "CLOUD_EMULATOR", value_name = "FILE")]
    pub emulator: Option<PathBuf>,
    /// Memory that guests never get, in MiB.
    #[arg(long, env = "CLOUD_RESERVED_MEMORY_MIB", value_name = "MIB", default_value_t = 256)]
    pub reserved_memory_mib: u64,
    /// Let guests leave checksums and segmentation to the host. Only with a switch in the kernel (datapath=system): a userspace datapath
    /// takes such packets for invalid.
    #[arg(long, env = "CLOUD_NIC_OFFLOAD", default_value_t)]
    pub nic_offload: bool,
}

/// Things to do once, without a gateway.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// The guests on this host.
    Guests {
        /// What to do with them.
        #[command(subcommand)]
        command: GuestsCommand,
    },
}

/// What to do with guests.
#[derive(Debug, Clone, Subcommand)]
pub enum GuestsCommand {
    /// Print them.
    Ls {
        /// Which.
        #[command(flatten)]
        selection: Selection,
    },
    /// Shut them down, and power off those that do not follow. They count as stopped by the host, and start again with the cloud.
    Stop {
        /// Which.
        #[command(flatten)]
        selection: Selection,
        /// Seconds until a guest is powered off.
        #[arg(long, default_value_t = 20)]
        grace: u64,
    },
    /// Power them off and remove them with their files. Their disks stay.
    Remove {
        /// Which.
        #[command(flatten)]
        selection: Selection,
    },
}

/// Which guests.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = false)]
pub struct Selection {
    /// Those of this cloud.
    #[arg(long)]
    pub cloud_id: Option<CloudId>,
    /// Those of any cloud that have files in this agent's state directory.
    #[arg(long)]
    pub all_of_host_state: bool,
}
