//! A whole one-machine cloud on this machine's real hypervisor and switch, in a throw-away state directory and on a bridge of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use cloud_testkit::{DaemonProcess, GatewayConfig, GatewayProcess, RestClient, Role, process::binary, until};
use http::Method as Http;
use serde_json::Value;

pub use crate::instances::{BOOT, IMAGE, PATIENCE};
use crate::{
    instances::Instances,
    machine::{BRIDGE, OwnMachine, remove_from_host},
};

/// How MAC addresses of guests begin.
const GUEST_MACS: &str = "52:54:";
const LIBVIRT: [&str; 3] = ["-q", "-c", "qemu:///system"];

/// A cloud of four daemons. Dropping it removes its guests, its bridge and its state.
#[derive(Debug)]
pub struct RealCloud {
    /// The gateway.
    pub gateway: GatewayProcess,
    /// REST with the admin key.
    pub rest: RestClient,
    agents: BTreeMap<Role, DaemonProcess>,
    dir: OwnMachine,
}

/// What a cloud has on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnHost {
    /// Names of its guests, running or not.
    pub domains: Vec<String>,
    /// Files of its volumes.
    pub disks: Vec<String>,
    /// Taps on its bridge.
    pub taps: Vec<String>,
}

/// The guest image that the tests launch: `$CLOUD_TINY_IMAGE`, or `.cache/tiny.qcow2` of the project.
#[must_use]
pub fn tiny_image() -> PathBuf {
    env::var_os("CLOUD_TINY_IMAGE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tiny.qcow2"), PathBuf::from)
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// It fails; says how.
pub fn run(program: impl AsRef<Path>, args: &[&str]) -> anyhow::Result<String> {
    let program = program.as_ref();
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot run {}", program.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    anyhow::ensure!(
        output.status.success(),
        "{} {args:?}: {}\n{}{}",
        program.display(),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// Runs virsh on the system's hypervisor.
///
/// # Errors
/// It fails; says how.
pub fn virsh(args: &[&str]) -> anyhow::Result<String> {
    run("virsh", &[&LIBVIRT, args].concat())
}

impl RealCloud {
    /// Starts the four daemons, waits until the host is UP, and uploads the image [`IMAGE`].
    ///
    /// # Errors
    /// Something that is needed is missing: root, libvirtd, Open vSwitch, the binaries, the image. Or the host is not UP in time.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(GatewayConfig::default()).await
    }

    /// As [`start`](Self::start), with this gateway.
    ///
    /// # Errors
    /// As there.
    pub async fn with(gateway: GatewayConfig) -> anyhow::Result<Self> {
        virsh(&["version"]).context("libvirtd must run: deploy/services.sh start")?;
        run("ovs-vsctl", &["--timeout=10", "show"]).context("Open vSwitch must run: deploy/services.sh start")?;
        let image =
            fs::read(tiny_image()).with_context(|| format!("{}: images/tiny/build.sh", tiny_image().display()))?;
        let dir = OwnMachine::take()?;
        let gateway = GatewayProcess::start(dir.path(), gateway).await?;
        let rest = gateway.rest()?;
        let mut cloud = Self { gateway, rest, agents: BTreeMap::new(), dir };
        for role in Role::ALL {
            cloud.start_agent(role)?;
        }
        cloud.is_up().await?;
        let path = format!("/images:upload?name={IMAGE}");
        cloud.rest.send(Http::POST, &path, Some("application/octet-stream"), image).await?.expect(201)?;
        Ok(cloud)
    }

    /// Starts an agent; replaces (by SIGKILL) one that runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_agent(&mut self, role: Role) -> anyhow::Result<()> {
        self.agents.remove(&role);
        let state = self.dir.path().display();
        let mut args = vec![
            format!("--listen=unix:{state}/{role}.sock"),
            format!("--gateway={}", self.gateway.host_endpoint()),
            format!("--state-dir={state}"),
            format!("--host-id-file={state}/host-id"),
        ];
        match role {
            Role::Compute => {}
            Role::Storage => args.push(format!("--pool-dir={state}/pools/default")),
            Role::Network => args.push(format!("--bridge={BRIDGE}")),
        }
        let program = binary(&format!("cloud-{role}-agent"))?;
        let agent = DaemonProcess::spawn(&program, &args, &[], &self.dir.path().join(format!("{role}.log")))?;
        self.agents.insert(role, agent);
        Ok(())
    }

    /// SIGKILL to an agent.
    pub fn kill_agent(&mut self, role: Role) {
        // Dropping kills.
        self.agents.remove(&role);
    }

    /// An agent's process.
    #[must_use]
    pub fn agent(&self, role: Role) -> Option<&DaemonProcess> {
        self.agents.get(&role)
    }

    /// An agent's process, to ask whether it has ended.
    pub fn agent_mut(&mut self, role: Role) -> Option<&mut DaemonProcess> {
        self.agents.get_mut(&role)
    }

    /// Waits until the host is UP.
    ///
    /// # Errors
    /// It takes too long; the ends of the logs are in the error.
    pub async fn is_up(&self) -> anyhow::Result<()> {
        until("the host to be UP", PATIENCE, || async {
            let hosts = self.rest.get("/hosts").await?.expect(200)?;
            Ok(if hosts["hosts"][0]["state"] == "UP" { Ok(()) } else { Err(hosts.to_string()) })
        })
        .await
        .map_err(|error| self.with_logs(error))
    }

    /// Its instances, as clients see them.
    #[must_use]
    pub fn instances(&self) -> Instances<'_> {
        Instances(&self.rest)
    }

    /// Launches an instance of [`IMAGE`] with more fields, and returns it as answered.
    ///
    /// # Errors
    /// Anything but 201.
    pub async fn launch(&self, name: &str, more: Value) -> anyhow::Result<Value> {
        self.instances().launch(name, more).await
    }

    /// Waits until an instance has this status; ERROR on the way there ends the waiting.
    ///
    /// # Errors
    /// Another end, or it takes too long.
    pub async fn becomes(&self, id: &str, status: &str) -> anyhow::Result<Value> {
        self.instances().becomes(id, status).await.map_err(|error| self.with_logs(error))
    }

    /// Deletes an instance and waits until it is DELETED.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn delete(&self, id: &str) -> anyhow::Result<()> {
        self.instances().delete(id).await.map_err(|error| self.with_logs(error))
    }

    /// What a guest wrote to its serial console so far.
    ///
    /// # Errors
    /// Anything but 200.
    pub async fn log(&self, id: &str) -> anyhow::Result<String> {
        self.instances().log(id).await
    }

    /// Waits until a guest has written `text` to its console.
    ///
    /// # Errors
    /// It takes too long; what it wrote is in the error.
    pub async fn says(&self, id: &str, text: &str) -> anyhow::Result<()> {
        self.instances().says(id, text).await.map_err(|error| self.with_logs(error))
    }

    /// What this cloud has on the host.
    ///
    /// # Errors
    /// The host's tools fail.
    pub fn on_host(&self) -> anyhow::Result<OnHost> {
        let mut domains = Vec::new();
        for name in virsh(&["list", "--all", "--name"])?.lines().filter(|n| n.starts_with("cloud-")) {
            // Another cloud's guests may be on this machine: ours have their disks in our directory.
            if virsh(&["domblklist", name, "--details"])?.contains(&self.dir.path().display().to_string()) {
                domains.push(name.to_owned());
            }
        }
        let pool = self.dir.path().join("pools/default/volumes");
        let disks = match fs::read_dir(&pool) {
            Ok(entries) => entries
                .filter_map(|e| e.ok().map(|e| e.file_name().to_string_lossy().into_owned()))
                .filter(|n| n.ends_with(".qcow2") || n.ends_with(".raw"))
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let ports = run("ovs-vsctl", &["--timeout=10", "list-ports", BRIDGE])?;
        let taps = ports.lines().filter(|p| p.starts_with("tap")).map(str::to_owned).collect();
        Ok(OnHost { domains, disks, taps })
    }

    /// The ids of this cloud's ports on the switch.
    ///
    /// # Errors
    /// The switch's tools fail.
    pub fn ports_on_host(&self) -> anyhow::Result<BTreeSet<String>> {
        let id = fs::read_to_string(self.dir.path().join("cloud-id"))?;
        let ours = format!("external_ids:cloud-id={}", id.trim());
        let rows = run("ovs-vsctl", &["--timeout=10", "--bare", "--columns=external_ids", "find", "Interface", &ours])?;
        Ok(rows.split_whitespace().filter_map(|w| w.strip_prefix("cloud-port-id=")).map(str::to_owned).collect())
    }

    /// The MAC addresses of guests that the bridge's flows are about.
    ///
    /// # Errors
    /// The switch's tools fail.
    pub fn guest_macs_in_flows(&self) -> anyhow::Result<BTreeSet<String>> {
        let flows = run("ovs-ofctl", &["-O", "OpenFlow14", "dump-flows", "--no-stats", BRIDGE])?;
        anyhow::ensure!(flows.contains("actions="), "the bridge has no flows at all: {flows}");
        let words = flows.split(|c: char| !c.is_ascii_hexdigit() && c != ':');
        Ok(words.filter(|w| w.len() == 17 && w.starts_with(GUEST_MACS)).map(str::to_owned).collect())
    }

    /// Waits until exactly these many guests, disks and taps are on the host.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn has(&self, domains: usize, disks: usize, taps: usize) -> anyhow::Result<()> {
        until(&format!("{domains} domains, {disks} disks, {taps} taps"), PATIENCE, || async {
            let is = self.on_host()?;
            let counts = (is.domains.len(), is.disks.len(), is.taps.len());
            Ok(if counts == (domains, disks, taps) { Ok(()) } else { Err(format!("{is:?}")) })
        })
        .await
        .map_err(|error| self.with_logs(error))
    }

    /// The process that runs a guest, by the instance's id.
    ///
    /// # Errors
    /// It does not run.
    pub fn guest_pid(&self, id: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(format!("/run/libvirt/qemu/cloud-{id}.pid"))?.trim().to_owned())
    }

    /// Where the state is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Adds the ends of the daemons' logs to an error.
    #[must_use]
    pub fn with_logs(&self, error: anyhow::Error) -> anyhow::Error {
        let mut text = format!("the gateway's log ends:\n{}\n", self.gateway.log_tail());
        for (role, agent) in &self.agents {
            text += &format!("the {role}-agent's log ends:\n{}\n", agent.log_tail());
        }
        error.context(text)
    }

    fn clean_up(&mut self) -> anyhow::Result<()> {
        self.gateway.kill();
        self.agents.clear();
        remove_from_host(self.dir.path())
    }
}

impl Drop for RealCloud {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            eprintln!("something of the test's cloud is left on this machine: {error:#}");
        }
    }
}
