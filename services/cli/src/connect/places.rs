//! What the surroundings of the command offer: environment, directories, the one-machine gateway's key.

use std::{env, path::PathBuf};

/// Where the gateway of a one-machine cloud leaves its first key.
const MACHINE_KEY: &str = "/var/lib/thecloud/admin.key";

/// The surroundings, named so that tests can have their own.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// `CLOUD_API_KEY`.
    pub api_key: Option<String>,
    /// `$XDG_CONFIG_HOME/thecloud`, or `~/.config/thecloud`.
    pub config: Option<PathBuf>,
    /// The working directory.
    pub working: Option<PathBuf>,
    /// The one-machine gateway's key file.
    pub machine_key: PathBuf,
}

impl Places {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        let config = variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
        Self {
            api_key: variable("CLOUD_API_KEY").map(|key| key.to_string_lossy().into_owned()),
            config: config.map(|path| path.join("thecloud")),
            working: env::current_dir().ok(),
            machine_key: MACHINE_KEY.into(),
        }
    }
}
