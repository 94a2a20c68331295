//! A host for tests: a libvirt of its own in a mount namespace, a gateway that only knows agents, and the agent as a process.
//!
//! Needs root, libvirtd, virtlogd, QEMU and the tiny image (built by `images/tiny/build.sh`, or named by `CLOUD_TINY_IMAGE`).
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod gateway;
mod libvirt;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use cloud_contracts::agent::{
    CallContext, DiskSpec, EnsureInstanceRequest, EnsureInstanceResponse, GetConsoleLogRequest, GetInstanceRequest,
    InstanceSpec, InstanceState, PowerState, RemoveInstanceRequest, SeedSpec, StateReason, StopInstanceRequest,
    compute_service_client::ComputeServiceClient,
};
use cloud_domain::{CloudId, Incarnation, InstanceId, VolumeId};
use cloud_service_kit::{
    Address,
    channel::{AgentChannel, agent_channel, connect_lazy},
};
use tonic::Status;

pub use gateway::Gateway;
pub use libvirt::Libvirt;

pub const AGENT: &str = env!("CARGO_BIN_EXE_cloud-compute-agent");
/// How long anything may take under emulation on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);
pub const SHORT: Duration = Duration::from_secs(20);

pub type Client = ComputeServiceClient<AgentChannel>;

/// Waits until `probe` gives a value.
pub async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub struct Host {
    pub libvirt: Libvirt,
    pub gateway: Gateway,
    agent: Option<Child>,
    version: std::sync::atomic::AtomicU64,
    /// Last: what runs in it is ended before it goes.
    pub dir: tempfile::TempDir,
}

impl Host {
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("cloud-compute-").tempdir().unwrap();
        // The hypervisor's user has to pass through.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let libvirt = Libvirt::start(&dir.path().join("libvirt")).await;
        let gateway = Gateway::start(&dir.path().join("host.sock")).await;
        let mut host = Self { libvirt, gateway, agent: None, version: 1.into(), dir };
        host.start_agent().await;
        host
    }

    pub fn cloud(&self) -> CloudId {
        self.gateway.cloud
    }

    fn command(&self) -> Command {
        let state = self.state_dir();
        let mut command = Command::new(AGENT);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .arg("--state-dir")
            .arg(&state)
            .arg("--host-id-file")
            .arg(state.join("host-id"))
            .arg("--gateway")
            .arg(format!("unix:{}", self.dir.path().join("host.sock").display()))
            .args([
                "--log-level",
                "info,cloud_compute_agent=debug",
                "--host-name",
                "h1",
                "--libvirt-uri",
                &self.libvirt.uri(),
            ]);
        command
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub async fn start_agent(&mut self) {
        let before = self.gateway.session();
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("agent.log")).unwrap();
        let child = self.command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.agent = Some(child);
        until("the agent registers and its libvirt answers", LONG, async || {
            (self.gateway.session() != before && self.gateway.healthy()).then_some(())
        })
        .await;
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// What the agent has allocated, in KiB. (Its program and libraries are less in a release.)
    pub fn agent_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent_pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// kill -9.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    pub async fn terminate_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        run("kill", &["-TERM", &agent.id().to_string()]);
        let status = until("the agent ends", SHORT, async || agent.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
    }

    /// `cloud-compute-agent guests …`.
    pub fn guests(&self, args: &[&str]) -> String {
        let output = self.command().arg("guests").args(args).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{text}");
        text
    }

    pub fn client(&self) -> Client {
        ComputeServiceClient::new(agent_channel(&Address::Unix(self.state_dir().join("compute.sock"))))
    }

    /// A client whose calls have no deadline of their own, for streams.
    pub fn streams(&self) -> ComputeServiceClient<tonic::transport::Channel> {
        ComputeServiceClient::new(connect_lazy(&Address::Unix(self.state_dir().join("compute.sock"))))
    }

    /// A context that is newer than all before.
    pub fn context(&self) -> Option<CallContext> {
        Some(CallContext {
            cloud_id: self.cloud().to_string(),
            session_id: self.gateway.session(),
            epoch: 1,
            version: self.version.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            incarnation: String::new(),
        })
    }

    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    /// An instance that boots the tiny image.
    pub fn spec(&self, user_data: &str) -> InstanceSpec {
        let spec = self.blank_spec(user_data);
        std::fs::copy(tiny_image(), &spec.disks[0].path).unwrap();
        spec
    }

    /// An instance whose disk holds nothing: it stays in the firmware and heeds no power button.
    pub fn blank_spec(&self, user_data: &str) -> InstanceSpec {
        let volume = VolumeId::random();
        let path = self.dir.path().join(format!("{volume}.qcow2"));
        run("qemu-img", &["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "16M"]);
        InstanceSpec {
            id: InstanceId::random().to_string(),
            name: "web-01".into(),
            incarnation: Incarnation::random().to_string(),
            vcpus: 1,
            memory_mib: 128,
            disks: vec![DiskSpec {
                volume_id: volume.to_string(),
                path: path.to_str().unwrap().into(),
                format: "qcow2".into(),
                ..DiskSpec::default()
            }],
            nics: vec![],
            seed: Some(SeedSpec { hostname: "web-01".into(), ssh_keys: vec![], user_data: user_data.into() }),
            boot_generation: 1,
            record: "launched as web-01".into(),
        }
    }

    pub async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceState, Status> {
        let request = EnsureInstanceRequest { context: self.context(), spec: Some(spec.clone()) };
        let EnsureInstanceResponse { state } = self.client().ensure_instance(request).await?.into_inner();
        Ok(state.unwrap())
    }

    pub async fn record(&self, id: &str) -> Result<String, Status> {
        let request = GetInstanceRequest { id: id.into(), with_record: true };
        Ok(self.client().get_instance(request).await?.into_inner().record)
    }

    pub async fn get(&self, id: &str) -> Result<InstanceState, Status> {
        let request = GetInstanceRequest { id: id.into(), with_record: false };
        Ok(self.client().get_instance(request).await?.into_inner().state.unwrap())
    }

    pub async fn stop(&self, id: &str, force: bool) -> Result<Option<InstanceState>, Status> {
        let request = StopInstanceRequest { context: self.context(), id: id.into(), force };
        Ok(self.client().stop_instance(request).await?.into_inner().state)
    }

    pub async fn remove(&self, id: &str) -> Result<(), Status> {
        let request = RemoveInstanceRequest { context: self.context(), id: id.into() };
        self.client().remove_instance(request).await.map(drop)
    }

    pub async fn log(&self, id: &str) -> String {
        let request = GetConsoleLogRequest { id: id.into(), max_bytes: 0 };
        let data = self.client().get_console_log(request).await.unwrap().into_inner().data;
        String::from_utf8_lossy(&data).into_owned()
    }

    /// Waits for words on the console.
    pub async fn says(&self, id: &str, words: &str, times: usize) {
        until(words, LONG, async || (self.log(id).await.matches(words).count() >= times).then_some(())).await;
    }

    pub async fn is(&self, id: &str, power: PowerState) -> InstanceState {
        until(power.as_str_name(), LONG, async || self.get(id).await.ok().filter(|state| state.power() == power)).await
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the agent's log\n{}", self.agent_log());
        }
    }
}

pub fn off(state: &InstanceState, reason: StateReason) {
    assert_eq!((state.power(), state.reason()), (PowerState::Shutoff, reason));
}

/// The reason in a status' details.
pub fn reason(status: &Status) -> String {
    cloud_service_kit::ServiceError::from_status(status).reason.to_string()
}

pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn tiny_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        if let Some(path) = std::env::var_os("CLOUD_TINY_IMAGE") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        run(root.join("images/tiny/build.sh").to_str().unwrap(), &[]);
        root.join(".cache/tiny.qcow2").canonicalize().unwrap()
    })
}
