//! A thin pool of a test's own, in the group that it is given.

use crate::agent::{Agent, run};

/// The volume group. Without one the tests fail: a missing prerequisite is no success.
pub fn name() -> String {
    std::env::var("CLOUD_LAB_VG").expect("CLOUD_LAB_VG names a volume group that these tests may use")
}

/// What LVM says, a line for each.
pub fn lvs(fields: &str, what: &str) -> Vec<String> {
    let output = run("lvs", &["--noheadings", "--units", "b", "--nosuffix", "-o", fields, what]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// An agent whose default pool is a thin pool.
pub struct Pool {
    pub agent: Agent,
    pub name: String,
}

impl Pool {
    /// A pool of 256 MiB, made by hand.
    pub async fn start() -> Self {
        Self::start_with("256m", &[]).await
    }

    pub async fn start_with(size: &str, flags: &[&str]) -> Self {
        let name = format!("test-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        run(
            "lvcreate",
            &[
                "--yes",
                "--quiet",
                "--config",
                "activation/error_when_full=1",
                "--type",
                "thin-pool",
                "--name",
                &name,
                "--size",
                size,
                "--poolmetadatasize",
                "4m",
                "--chunksize",
                "64k",
                "--zero",
                "y",
                &crate::group::name(),
            ],
        );
        let place = format!("default=lvm:{}/{name}", crate::group::name());
        let agent = Agent::start_with(&[&["--pool", &place], flags].concat()).await;
        Self { agent, name }
    }

    /// `GROUP/NAME`.
    pub fn full(&self, name: &str) -> String {
        format!("{}/{name}", crate::group::name())
    }

    /// The logical volumes in the pool, in order.
    pub fn volumes(&self) -> Vec<String> {
        let mut all: Vec<_> = lvs("lv_name,pool_lv", &name())
            .iter()
            .filter_map(|line| {
                let (volume, pool) = line.split_once(' ')?;
                (pool.trim() == self.name).then(|| volume.to_owned())
            })
            .collect();
        all.sort_unstable();
        all
    }

    pub fn tags(&self, name: &str) -> String {
        lvs("lv_tags", &self.full(name)).pop().unwrap_or_default()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The agent's process ends with it, and may have a command under way.
        let full = self.full(&self.name);
        for _ in 0..20 {
            let removed = std::process::Command::new("lvremove").args(["--yes", "--quiet", &full]).output().unwrap();
            if removed.status.success() {
                return;
            }
        }
        eprintln!("thin pool {full} could not be removed");
    }
}
