//! A cloud of several hosts on this machine: what `make up HOSTS=…` runs, in a throw-away state directory and under a name of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::Context as _;
use cloud_testkit::{DaemonProcess, RestClient, free_port, process::binary, until};
use serde_json::Value;

use crate::{
    instances::Instances,
    machine::{NAME, OwnMachine, environment, script},
};

/// How long a cloud may take to be up, the image imported, on a busy machine.
const UP: Duration = Duration::from_secs(180);

/// How a cloud of several hosts begins.
#[derive(Debug, Clone, Default)]
pub struct HostsConfig {
    /// How many.
    pub hosts: usize,
    /// MiB of each host's disk; none: they share this machine's.
    pub disk_mib: Option<u32>,
    /// More environment of the gateway.
    pub envs: Vec<(String, String)>,
}

/// A cloud of several hosts. Dropping it removes all of it.
#[derive(Debug)]
pub struct HostsCloud {
    /// REST with the admin key.
    pub rest: RestClient,
    up: Option<DaemonProcess>,
    envs: Vec<(String, String)>,
    dir: OwnMachine,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

impl HostsCloud {
    /// Runs `deploy/up.sh` and waits until all hosts are UP and the image `tiny` is there.
    ///
    /// # Errors
    /// Something that is needed is missing, or it takes too long; what the script said is in the error.
    pub async fn start(config: HostsConfig) -> anyhow::Result<Self> {
        let dir = OwnMachine::take()?;
        let port = free_port()?;
        let program = binary("cloud")?;
        let binaries = program.parent().context("a program has a directory")?;
        let mut envs = vec![
            ("HOSTS".to_owned(), config.hosts.to_string()),
            ("CLOUD_BIN_DIR".to_owned(), binaries.display().to_string()),
            ("CLOUD_PORT".to_owned(), port.to_string()),
            // The same everywhere.
            ("CLOUD_ACCELERATOR".to_owned(), "tcg".to_owned()),
            ("CLOUD_RATE_LIMIT".to_owned(), "0".to_owned()),
        ];
        envs.extend(environment(dir.path()));
        envs.extend(config.disk_mib.map(|mib| ("CLOUD_HOST_DISK_MIB".to_owned(), mib.to_string())));
        envs.extend(config.envs);
        let rest = RestClient::new(format!("http://127.0.0.1:{port}"));
        let mut cloud = Self { rest, up: None, envs, dir };
        cloud.up().await?;
        Ok(cloud)
    }

    /// Runs `deploy/up.sh`, again after [`kill_everything`](Self::kill_everything).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn up(&mut self) -> anyhow::Result<()> {
        let ready = self.dir.path().join("run/env");
        let log = self.dir.path().join("up.log");
        let mut up = DaemonProcess::spawn(&script("up.sh"), &[], &self.envs, &log)?;
        let came_up = until("the cloud to be up", UP, || {
            let (ended, there) = (up.ended(), ready.exists());
            async move {
                if let Some(status) = ended? {
                    anyhow::bail!("deploy/up.sh ended: {status}");
                }
                Ok(if there { Ok(()) } else { Err("it is not") })
            }
        })
        .await;
        let log = up.log_tail();
        self.up = Some(up);
        came_up.with_context(|| format!("deploy/up.sh said:\n{log}"))?;
        let key = fs::read_to_string(self.state().join("admin.key"))?;
        self.rest = self.rest.clone().with_key(key.trim())?;
        Ok(())
    }

    /// SIGKILL to the script, the gateway and every daemon of every host; guests stay. And virtlogd: what guests write to their consoles goes
    /// through pipes of its, and would be lost until they start again.
    ///
    /// # Errors
    /// The system does not say what runs.
    pub fn kill_everything(&mut self) -> anyhow::Result<()> {
        self.up = None;
        let mut pids = vec![fs::read_to_string(self.dir.path().join("run/daemons/api-gateway.pid"))?];
        for host in self.namespaces()? {
            let found = Command::new("ip").args(["netns", "pids", &host]).output()?;
            pids.extend(text(&found.stdout).lines().map(str::to_owned));
        }
        for pid in pids.iter().map(|pid| pid.trim()) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if !name.starts_with("qemu") && name.trim() != "virtlogd" {
                Command::new("kill").args(["-KILL", pid]).status()?;
            }
        }
        fs::remove_file(self.dir.path().join("run/env"))?;
        Ok(())
    }

    /// Runs `deploy/down.sh`.
    ///
    /// # Errors
    /// It fails; what it said.
    pub fn down(&self) -> anyhow::Result<String> {
        self.run("down.sh", &[])
    }

    /// Runs `deploy/hosts.sh`.
    ///
    /// # Errors
    /// It fails; what it said.
    pub fn hosts(&self, args: &[&str]) -> anyhow::Result<String> {
        self.run("hosts.sh", args)
    }

    fn run(&self, name: &str, args: &[&str]) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } = self.command(name).args(args).output()?;
        anyhow::ensure!(status.success(), "deploy/{name} {args:?}: {status}\n{}\n{}", text(&stdout), text(&stderr));
        Ok(text(&stdout))
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(script(name));
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLOUD_")) {
            command.env_remove(name);
        }
        // `HOSTS` is for `up` alone.
        command.envs(self.envs.iter().skip(1).map(|(k, v)| (k, v)));
        command
    }

    /// Its instances, as clients see them.
    #[must_use]
    pub fn instances(&self) -> Instances<'_> {
        Instances(&self.rest)
    }

    /// A host as operators see it.
    ///
    /// # Errors
    /// Anything but 200.
    pub async fn host(&self, name: &str) -> anyhow::Result<Value> {
        self.rest.get(&format!("/hosts/{name}")).await?.expect(200)
    }

    /// Waits until a host is in a state.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn host_becomes(&self, name: &str, state: &str, patience: Duration) -> anyhow::Result<Value> {
        until(&format!("{name} to be {state}"), patience, || async {
            let host = self.host(name).await?;
            Ok(if host["state"] == state { Ok(host) } else { Err(host.to_string()) })
        })
        .await
        .map_err(|error| self.with_logs(error))
    }

    /// How many instances each host has, in the gateway's words.
    ///
    /// # Errors
    /// Anything but 200.
    pub async fn spread(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let answer = self.rest.get("/hosts").await?.expect(200)?;
        let hosts = answer["hosts"].as_array().context("a list of hosts")?;
        let number = |v: &Value| v.as_u64().or_else(|| v.as_str()?.parse().ok()).unwrap_or_default();
        Ok(hosts.iter().map(|h| (h["name"].as_str().unwrap_or_default().to_owned(), number(&h["instances"]))).collect())
    }

    /// The guests that run on a host, as its hypervisor says: names of domains.
    ///
    /// # Errors
    /// Its tools fail.
    pub fn guests_on(&self, host: &str) -> anyhow::Result<BTreeSet<String>> {
        let names = self.hosts(&["exec", host, "virsh", "-q", "-c", "qemu:///system", "list", "--name"])?;
        Ok(names.lines().map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect())
    }

    /// The process of a guest on a host.
    ///
    /// # Errors
    /// It does not run there.
    pub fn guest_pid(&self, host: &str, id: &str) -> anyhow::Result<u32> {
        let path = self.state().join(format!("hosts/{host}/run/libvirt/qemu/cloud-{id}.pid"));
        let pid = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?.trim().parse()?;
        anyhow::ensure!(Path::new(&format!("/proc/{pid}/exe")).exists(), "guest {id} of {host} has ended");
        Ok(pid)
    }

    /// The network namespaces of its hosts and of the wires.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn namespaces(&self) -> anyhow::Result<BTreeSet<String>> {
        let listed = Command::new("ip").args(["netns", "list"]).output()?;
        let listed = text(&listed.stdout);
        let names = listed.lines().filter_map(|line| line.split_whitespace().next());
        Ok(names.filter(|name| name.starts_with(&format!("{NAME}-"))).map(str::to_owned).collect())
    }

    /// What there is of the cloud on this machine: namespaces, devices, mounts, processes that name its directory.
    ///
    /// # Errors
    /// The system does not say.
    pub fn left(&self) -> anyhow::Result<Vec<String>> {
        let mut left: Vec<String> = self.namespaces()?.into_iter().map(|n| format!("namespace {n}")).collect();
        let directory = self.dir.path().display().to_string();
        for entry in fs::read_dir("/sys/class/net")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{NAME}-")) {
                left.push(format!("device {name}"));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        left.extend(mounts.lines().filter(|line| line.contains(&directory)).map(|line| format!("mount {line}")));
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let arguments = text(&fs::read(path.join("cmdline")).unwrap_or_default()).replace('\0', " ");
            if arguments.contains(&directory) {
                left.push(format!("process {} {arguments}", path.display()));
            }
        }
        Ok(left)
    }

    /// Where the state of the cloud and of its hosts is.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Adds the ends of the logs to an error.
    #[must_use]
    pub fn with_logs(&self, error: anyhow::Error) -> anyhow::Error {
        let mut found = String::new();
        for part in ["", "h1/", "h2/", "h3/"] {
            for name in ["api-gateway", "compute-agent", "storage-agent", "network-agent"] {
                let path = self.dir.path().join(format!("run/log/{part}{name}.log"));
                let Ok(bytes) = fs::read(&path) else { continue };
                found += &format!("{part}{name}'s log ends:\n{}\n", text(&bytes[bytes.len().saturating_sub(2000)..]));
            }
        }
        error.context(found)
    }
}

impl Drop for HostsCloud {
    fn drop(&mut self) {
        if let Err(error) = self.hosts(&["destroy"]) {
            eprintln!("something of the test's hosts is left on this machine: {error:#}");
        }
    }
}
