//! The gateway: a process in the lab's namespace, outside the hosts.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use cloud_testkit::RestClient;
use rustix::process::Signal;

use crate::{
    command::{end, eventually, program, running, tail},
    site::Site,
};

const NAME: &str = "cloud-api-gateway";
/// Clients' and agents' ports.
const PORTS: [u16; 2] = [8080, 8443];

/// The gateway of a lab.
#[derive(Debug, Clone)]
pub struct Gateway {
    site: Site,
    binaries: PathBuf,
    flags: Vec<String>,
}

impl Gateway {
    pub(crate) fn new(site: &Site, binaries: &Path, flags: &[String]) -> Self {
        Self { site: site.clone(), binaries: binaries.to_path_buf(), flags: flags.to_vec() }
    }

    /// Its database, keys and images.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.site.dir().join("gateway")
    }

    /// Where it writes what it does.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.site.dir().join("gateway.log")
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.site.gateway(), PORTS[0])
    }

    /// The operator's key.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.state().join("admin.key")
    }

    fn pid_file(&self) -> PathBuf {
        self.site.dir().join("gateway.pid")
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        running(&self.pid_file(), NAME).is_some()
    }

    /// Starts it on the state that there is, and waits until it is ready; REST with the operator's key.
    ///
    /// # Errors
    /// It ends, or takes too long; the end of its log is in the error.
    pub async fn start(&self) -> anyhow::Result<RestClient> {
        anyhow::ensure!(!self.runs(), "the gateway runs already");
        fs::create_dir_all(self.state())?;
        let output = File::options().create(true).append(true).open(self.log())?;
        let binary = self.binaries.join(NAME);
        anyhow::ensure!(binary.is_file(), "{} is not built", binary.display());
        let mut command = program("ip");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLOUD_")) {
            command.env_remove(name);
        }
        let (address, state) = (self.site.gateway(), self.state().display().to_string());
        let child = command
            .args(["netns", "exec", &self.site.namespace()])
            .arg(binary)
            // The lab's wires begin and end in this machine: nobody else hears what goes over them.
            .args(["--listen", &format!("{address}:{}", PORTS[0]), "--allow-plain-beyond-loopback"])
            .args(["--agents-address", &format!("{address}:{}", PORTS[1])])
            .args(["--state-dir", &state, "--rate-limit", "0"])
            .args(&self.flags)
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output))
            .process_group(0)
            .spawn()
            .context("cannot run ip")?;
        fs::write(self.pid_file(), child.id().context("the gateway has ended")?.to_string())?;
        let rest = RestClient::new(self.url());
        let ready = eventually("the gateway to be ready", Duration::from_secs(60), || async {
            anyhow::ensure!(self.runs() || running(&self.pid_file(), "ip").is_some(), "the gateway ended");
            Ok(match rest.get("/health/ready").await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(format!("{error:#}")),
            })
        });
        ready.await.with_context(|| tail(&self.log(), 3000))?;
        rest.with_key(fs::read_to_string(self.key_file())?.trim())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It goes on.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.end(Signal::TERM).await
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It goes on.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.end(Signal::KILL).await
    }

    async fn end(&self, signal: Signal) -> anyhow::Result<()> {
        match running(&self.pid_file(), NAME) {
            Some(pid) => end(pid, NAME, signal).await,
            None => Ok(()),
        }
    }
}
