//! Where a lab is: its name, its addresses, its directories.

use std::path::{Path, PathBuf};

/// The place of one lab. Labs of different names and addresses do not meet.
#[derive(Debug, Clone)]
pub struct Site {
    /// What namespace and devices are called after: at most eight letters and digits.
    pub name: String,
    /// The first three numbers of the management network.
    pub mgmt: String,
    /// The first three numbers of the network for tunnels.
    pub underlay: String,
}

/// The project's directory.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

fn directory(variable: &str, default: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| root().join(default), PathBuf::from);
    std::path::absolute(&path).unwrap_or(path)
}

/// What is kept between labs: image, snapshots.
pub fn cache() -> PathBuf {
    directory("CLOUD_CACHE_DIR", ".cache").join("lab")
}

impl Site {
    /// The lab of `make lab`.
    #[must_use]
    pub fn of_users() -> Self {
        Self { name: "lab".into(), mgmt: "198.18.64".into(), underlay: "198.18.65".into() }
    }

    /// The lab of the tests.
    #[must_use]
    pub fn of_tests() -> Self {
        Self { name: "labtest".into(), mgmt: "198.18.66".into(), underlay: "198.18.67".into() }
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> String {
        format!("cloud-{}", self.name)
    }

    /// The device by which this machine is in the management network.
    #[must_use]
    pub fn device(&self) -> String {
        format!("{}-gw", self.name)
    }

    /// Its disks, logs and the gateway's state.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        directory("CLOUD_RUN_DIR", ".run").join(&self.name)
    }

    /// Its sockets, whose paths have to be short (unix(7)).
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        Path::new("/run").join(self.namespace())
    }

    /// Where the gateway is.
    #[must_use]
    pub fn gateway(&self) -> String {
        format!("{}.1", self.mgmt)
    }

    /// Where this machine is.
    #[must_use]
    pub fn machine(&self) -> String {
        format!("{}.254", self.mgmt)
    }

    /// Where a host is on the management network.
    #[must_use]
    pub fn management_of(&self, number: u8) -> String {
        format!("{}.{}", self.mgmt, 10 + number)
    }

    /// Where a host's tunnels end.
    #[must_use]
    pub fn underlay_of(&self, number: u8) -> String {
        format!("{}.{}", self.underlay, 10 + number)
    }
}
