//! What can be asked: the command line as types.

mod common;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
pub use common::{Format, Labels, ListArgs, NameArg, Names, OutputArgs, ShowDeleted, WaitArgs, WatchArgs, duration};

use crate::verbs::{
    admin, api_key, event, host, image, instance, login, project, quota, snapshot, subnet, volume, vpc,
};

/// Exit codes, shown under every `--help` of the top level.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the gateway failed, or the resource went to ERROR
  2  the command line or a value in it is wrong
  3  not found
  4  conflict: the name is taken, the resource is in use or in another state
  5  no API key, or not allowed
  6  the gateway cannot be reached
  7  out of time (--timeout, or the gateway's deadline)

With several names, the code is that of the first one that failed.
`make up` in a checkout is all that `cloud` needs there: it reads .run/env.";

/// The Cloud from a shell: instances, volumes, images and networks.
#[derive(Debug, Parser)]
#[command(name = "cloud", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the gateway is, and who asks.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The gateway's URL, http or https [default: http://127.0.0.1:8080]
    #[arg(long, global = true, env = "CLOUD_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// A file that holds the API key; CLOUD_API_KEY holds the key itself
    #[arg(long, global = true, env = "CLOUD_API_KEY_FILE", value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// The project to work in, by name or id [default: the key's own]
    #[arg(long, global = true, env = "CLOUD_PROJECT", value_name = "PROJECT")]
    pub project: Option<String>,
    /// Makes a change that is sent again with the same id the same change: 1 to 64 printable ASCII characters, kept for a day
    /// [default: a new one for each change]
    #[arg(long, global = true, value_name = "ID", value_parser = request_id)]
    pub request_id: Option<String>,
    /// Certificates (PEM) to trust for https, in place of the system's
    #[arg(long, global = true, env = "CLOUD_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Virtual machines
    #[command(subcommand, visible_alias = "instances")]
    Instance(instance::Command),
    /// Disks that outlive instances
    #[command(subcommand, visible_alias = "volumes")]
    Volume(volume::Command),
    /// What volumes were at one moment
    #[command(subcommand, visible_alias = "snapshots")]
    Snapshot(snapshot::Command),
    /// Disks to launch instances from
    #[command(subcommand, visible_alias = "images")]
    Image(image::Command),
    /// Isolated networks
    #[command(subcommand, visible_alias = "vpcs")]
    Vpc(vpc::Command),
    /// Address ranges of VPCs
    #[command(subcommand, visible_alias = "subnets")]
    Subnet(subnet::Command),
    /// Network interfaces
    #[command(subcommand, visible_alias = "ports")]
    Port(LsShow),
    /// The machines under the cloud (operators)
    #[command(subcommand, visible_alias = "hosts")]
    Host(host::Command),
    /// What happened, and who did it
    #[command(subcommand, visible_alias = "events")]
    Event(event::Command),
    /// Sizes that instances come in
    #[command(subcommand, visible_alias = "types")]
    Type(LsShow),
    /// Tenants
    #[command(subcommand, visible_alias = "projects")]
    Project(project::Command),
    /// Keys that callers authenticate with
    #[command(subcommand, visible_alias = "api-keys")]
    ApiKey(api_key::Command),
    /// What projects may have, and have
    #[command(subcommand, visible_alias = "quotas")]
    Quota(quota::Command),
    /// Remembers a gateway, how it is known, and the API key for it
    Login(login::Login),
    /// The care of the cloud's own database (operators)
    #[command(subcommand)]
    Admin(admin::Command),
    /// Prints a completion script
    #[command(after_help = "For bash: cloud completion bash > ~/.local/share/bash-completion/completions/cloud")]
    Completion {
        /// The shell to complete in
        shell: clap_complete::Shell,
    },
    /// Prints the version of this command
    Version(OutputArgs),
}

/// A noun that can be looked at only.
#[derive(Debug, Subcommand)]
pub enum LsShow {
    /// Lists them
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Shows one or several
    #[command(visible_alias = "get")]
    Show {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Prints them, then every change as it comes
    Watch {
        /// Only this one, by name or id
        name: Option<String>,
        #[command(flatten)]
        args: WatchArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

fn request_id(text: &str) -> Result<String, String> {
    if (1..=64).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Ok(text.to_owned());
    }
    Err("must have 1 to 64 printable ASCII characters".to_owned())
}

#[cfg(test)]
mod tests;
