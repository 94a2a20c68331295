//! This machine, for one cloud of the tests at a time: they share bridges, names of namespaces and the hypervisor.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use cloud_testkit::process::binary;
use tempfile::TempDir;

use crate::real::run;

/// The integration bridge of the clouds of one host.
pub const BRIDGE: &str = "br-e2e";
/// What the namespaces of the clouds of several hosts are called after, and the first two numbers of their wires' addresses.
pub const NAME: &str = "e2e";
/// See [`NAME`].
pub const UNDERLAY: &str = "198.19";
/// Where the hypervisor's user can read it.
const STATE: &str = "/var/lib";
const PREFIX: &str = "thecloud-e2e.";
/// Held as long as a cloud of the tests is on this machine.
const LOCK: &str = "/run/lock/thecloud-e2e";

/// A state directory on a machine that is ours alone until this is dropped.
#[derive(Debug)]
pub struct OwnMachine {
    // Removed before the lock ends.
    dir: TempDir,
    _lock: File,
}

impl OwnMachine {
    /// Waits until no other test has a cloud on this machine, and removes what killed ones left.
    ///
    /// # Errors
    /// It is not allowed (root), or something that was left cannot be removed.
    pub fn take() -> anyhow::Result<Self> {
        let lock = File::create(LOCK).with_context(|| LOCK.to_owned())?;
        lock.lock()?;
        remove_remains().context("what a killed test left on this machine cannot be removed")?;
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(STATE)?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The state directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the guests whose state is in `dir` and the bridge, with the agents' own commands.
pub(crate) fn remove_from_host(dir: &Path) -> anyhow::Result<()> {
    let state = format!("--state-dir={}", dir.display());
    run(binary("cloud-compute-agent")?, &[&state, "guests", "remove", "--all-of-host-state"])?;
    run(binary("cloud-network-agent")?, &["cleanup", "--bridge", BRIDGE])?;
    Ok(())
}

/// What `deploy/up.sh` and `deploy/hosts.sh` are told of a cloud of several hosts whose state is in `dir`.
pub(crate) fn environment(dir: &Path) -> Vec<(String, String)> {
    [
        ("CLOUD_STATE_DIR", dir.join("state").display().to_string()),
        ("CLOUD_RUN_DIR", dir.join("run").display().to_string()),
        ("CLOUD_HOSTS_NAME", NAME.to_owned()),
        ("CLOUD_UNDERLAY", UNDERLAY.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// A program in `deploy`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

fn remove_remains() -> anyhow::Result<()> {
    for entry in fs::read_dir(STATE)? {
        let dir = entry?.path();
        if !dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            continue;
        }
        eprintln!("a killed test left {}: its cloud is removed", dir.display());
        if dir.join("run").is_dir() {
            let envs = environment(&dir);
            let destroyed = std::process::Command::new(script("hosts.sh")).arg("destroy").envs(envs).output()?;
            anyhow::ensure!(
                destroyed.status.success(),
                "deploy/hosts.sh destroy: {}",
                String::from_utf8_lossy(&destroyed.stderr)
            );
        } else {
            kill_daemons_of(&dir)?;
            remove_from_host(&dir)?;
        }
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// SIGKILL to the daemons that were started with their state in `dir`.
fn kill_daemons_of(dir: &Path) -> anyhow::Result<()> {
    let dir = dir.display().to_string();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(arguments) = fs::read(path.join("cmdline")) else { continue };
        let mut arguments = arguments.split(|&byte| byte == 0).map(String::from_utf8_lossy);
        let program = arguments.next().unwrap_or_default();
        let ours = Path::new(&*program).file_name().is_some_and(|name| name.to_string_lossy().starts_with("cloud-"));
        if ours && arguments.any(|argument| argument.contains(&dir)) {
            let pid = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
            run("kill", &["-KILL", &pid])?;
        }
    }
    Ok(())
}
