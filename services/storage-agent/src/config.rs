//! Flags, environment and file.

use std::{path::PathBuf, str::FromStr, time::Duration};

use cloud_image_probe::Limits;
use cloud_service_kit::{agent::AgentArgs, config::DaemonArgs};

use crate::{
    adapters::{directory, lvm, lvm::LvmPlace},
    core::{Limits as PoolLimits, Rules, model::PoolName},
    handlers::wire::DEFAULT_POOL,
};

/// A pool, as `--pool` names it: `NAME=lvm:GROUP/POOL` or `NAME=directory:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolArg {
    name: PoolName,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Directory(PathBuf),
    Lvm(LvmPlace),
}

impl FromStr for PoolArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("must be `NAME=lvm:GROUP/POOL` or `NAME=directory:PATH`, is `{text}`");
        let (name, place) = text.split_once('=').ok_or_else(form)?;
        let name = name.parse::<PoolName>().map_err(|e| format!("`{name}` is no name of a pool: {e}"))?;
        let place = match place.split_once(':').ok_or_else(form)? {
            ("lvm", place) => Place::Lvm(place.parse().map_err(|e| format!("{e}"))?),
            ("directory", path) if !path.is_empty() => Place::Directory(path.into()),
            _ => return Err(form()),
        };
        Ok(Self { name, place })
    }
}

/// How the pools are opened.
pub(crate) enum PoolOptions {
    Directory(directory::Options),
    Lvm(lvm::Options),
}

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
    /// A pool: `NAME=lvm:GROUP/POOL` is a thin pool in a volume group, made there where it is missing; `NAME=directory:PATH` is a directory.
    /// Several may be given, each thin pool in a group of its own. Without one called `default`, that is the directory of --pool-dir.
    #[arg(long = "pool", env = "CLOUD_POOLS", value_name = "NAME=KIND:PLACE", value_delimiter = ',')]
    pub pools: Vec<PoolArg>,
    /// The directory of the pool `default`, unless --pool says where that is. The hypervisor's user must be able to enter every directory above it.
    #[arg(long, env = "CLOUD_POOL_DIR", value_name = "DIRECTORY", default_value = "/var/lib/thecloud/pools/default")]
    pub pool_dir: PathBuf,
    /// MiB of the pool that new volumes and images leave free; by default 1024 or 5 % of the pool, whichever is less.
    #[arg(long, env = "CLOUD_POOL_RESERVE_MIB", value_name = "MIB")]
    pub pool_reserve_mib: Option<u32>,
    /// Percent of a thin pool's data, what its group can add included, beyond which nothing is made, grown or taken there.
    #[arg(long, env = "CLOUD_POOL_DATA_LIMIT", value_name = "PERCENT", default_value_t = 95,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub pool_data_limit: u32,
    /// Percent of a thin pool's metadata, likewise.
    #[arg(long, env = "CLOUD_POOL_METADATA_LIMIT", value_name = "PERCENT", default_value_t = 90,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub pool_metadata_limit: u32,
    /// How many times a thin pool's size all its volumes and snapshots together may have.
    #[arg(long, env = "CLOUD_POOL_VIRTUAL_RATIO", value_name = "TIMES", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pool_virtual_ratio: u32,
    /// How many qemu-img processes, and how many LVM commands, run at the same time in a pool.
    #[arg(long, env = "CLOUD_MAX_COMMANDS", value_name = "NUMBER", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub max_commands: u16,
    /// The largest disk, in GiB, that an image may describe.
    #[arg(long, env = "CLOUD_MAX_IMAGE_GIB", value_name = "GIB", default_value_t = 2048)]
    pub max_image_gib: u32,
}

impl Config {
    /// Every pool, the default one first.
    pub(crate) fn pools(&self) -> anyhow::Result<Vec<PoolOptions>> {
        let mut pools = self.pools.clone();
        let default: PoolName = DEFAULT_POOL.parse()?;
        if !pools.iter().any(|pool| pool.name == default) {
            pools.insert(0, PoolArg { name: default, place: Place::Directory(self.pool_dir.clone()) });
        }
        for (index, pool) in pools.iter().enumerate() {
            anyhow::ensure!(
                !pools[..index].iter().any(|other| other.name == pool.name),
                "--pool: `{}` is given twice",
                pool.name
            );
            anyhow::ensure!(
                !pools[..index].iter().any(|other| other.place == pool.place),
                "--pool: `{}` has the place of another pool",
                pool.name
            );
            // Volumes are known by their names in the group, whatever pool they are in.
            if let Place::Lvm(place) = &pool.place {
                let shares = |other: &PoolArg| matches!(&other.place, Place::Lvm(its) if its.group == place.group);
                anyhow::ensure!(
                    !pools[..index].iter().any(shares),
                    "--pool: `{}` is in volume group {}, which has a pool already: give each pool a group of its own",
                    pool.name,
                    place.group
                );
            }
        }
        pools.into_iter().map(|pool| self.options(pool)).collect()
    }

    fn options(&self, PoolArg { name, place }: PoolArg) -> anyhow::Result<PoolOptions> {
        let memory = self.agent.state_dir.join(format!("storage-pool-{name}.json"));
        let max_commands = self.max_commands.into();
        let probe = Limits { max_virtual_size: u64::from(self.max_image_gib) << 30, ..Limits::default() };
        let handover = Duration::from_secs(30);
        Ok(match place {
            Place::Directory(path) => {
                let directory = std::path::absolute(path)?;
                PoolOptions::Directory(directory::Options { name, directory, memory, max_commands, probe, handover })
            }
            Place::Lvm(place) => {
                let incoming = self.agent.state_dir.join(format!("storage-incoming-{name}"));
                PoolOptions::Lvm(lvm::Options { name, place, memory, incoming, max_commands, probe, handover })
            }
        })
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            reserve_bytes: self.pool_reserve_mib.map(|mib| u64::from(mib) << 20),
            limits: PoolLimits {
                data_percent: self.pool_data_limit,
                metadata_percent: self.pool_metadata_limit,
                virtual_ratio: self.pool_virtual_ratio,
            },
            ..Rules::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_named_with_their_kind_and_place() {
        let read = |text: &str| text.parse::<PoolArg>();
        let lvm = LvmPlace { group: "vg0".into(), pool: "thin".into() };
        assert_eq!(read("ssd=lvm:vg0/thin").unwrap(), PoolArg { name: "ssd".parse().unwrap(), place: Place::Lvm(lvm) });
        let directory = Place::Directory("/srv/a:b".into());
        assert_eq!(read("default=directory:/srv/a:b").unwrap().place, directory);
        for wrong in [
            "",
            "ssd",
            "ssd=",
            "ssd=lvm",
            "ssd=lvm:",
            "ssd=lvm:vg0",
            "ssd=lvm:vg0/",
            "ssd=lvm:-x/y",
            "ssd=lvm:../x/y",
            "ssd=lvm:a/b/c",
            "ssd=zfs:tank/x",
            "../x=lvm:vg0/thin",
            "ssd=directory:",
            "ssd=lvm:vg 0/thin",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pools_share_neither_name_nor_place_nor_group() {
        use clap::Parser as _;

        let of = |pools: &[&str]| {
            let flags = pools.iter().map(|pool| format!("--pool={pool}"));
            Config::parse_from(std::iter::once("cloud-storage-agent".to_owned()).chain(flags)).pools()
        };
        assert_eq!(of(&["ssd=lvm:vg0/fast", "hdd=lvm:vg1/slow"]).unwrap().len(), 3, "and `default`");
        for (wrong, why) in [
            (["ssd=lvm:vg0/fast", "ssd=lvm:vg1/fast"], "given twice"),
            (["ssd=directory:/a", "hdd=directory:/a"], "the place of another"),
            (["ssd=lvm:vg0/fast", "hdd=lvm:vg0/slow"], "which has a pool already"),
        ] {
            let error = of(&wrong).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
