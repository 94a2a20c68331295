//! Hosts: a namespace, an Open vSwitch, and the agent as a process of its own behind its socket.
//!
//! The agent is the real one but for its devices: pairs whose other end goes to a guest's namespace, where a tap would need a hypervisor.
//! It is this test program, started again.

use std::{
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use async_trait::async_trait;
use clap::Parser as _;
use cloud_contracts::agent::{
    AgentRole, ApplyVpcRequest, ApplyVpcResponse, CallContext, ListVpcsRequest, RemoveVpcRequest, VpcHeader, VpcPart,
    VpcState, apply_vpc_request::Message, network_service_client::NetworkServiceClient,
};
use cloud_domain::CloudId;
use cloud_network_agent::{
    adapters::devices,
    agent,
    config::Config,
    core::ports::{BackendError, Device, Devices},
};
use cloud_service_kit::{
    Address,
    agent::AgentRuntime,
    channel::{AgentChannel, agent_channel},
};
use tonic::Status;

use super::{
    Netns,
    cloud::{Cloud, Heard, Vpc},
    eventually, ok,
    switch::{BRIDGE, Ovs},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cloud-network-agent");
const FLAGS: &str = "CLOUD_TEST_AGENT_FLAGS";

/// Pairs in place of taps. The guest's end has the same digits.
struct Pairs;

#[async_trait]
impl Devices for Pairs {
    async fn ensure(&self, devices: &[Device]) -> Result<(), BackendError> {
        devices::ensure(devices, |name| {
            format!("link add dev {name} type veth peer name {}\n", name.replacen("tap", "gst", 1))
        })
        .await
    }

    async fn list(&self, cloud: CloudId) -> Result<Vec<Device>, BackendError> {
        devices::list(cloud)
    }

    async fn remove(&self, devices: &[Device]) -> Result<(), BackendError> {
        devices::remove(devices).await
    }
}

/// Not a test: where this program starts again as an agent. Without the flags of one it has nothing to do.
#[test]
fn process() {
    let Ok(flags) = std::env::var(FLAGS) else { return };
    let config = Config::parse_from(flags.split('\n'));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let runtime = AgentRuntime::start("network-agent", AgentRole::Network, &config.daemon, &config.agent).unwrap();
        agent::serve(&config, runtime, Arc::new(Pairs)).await.unwrap();
    });
}

/// A host of a cloud.
pub struct Host {
    pub ovs: Ovs,
    // Dropped after the processes in it.
    pub netns: Netns,
    directory: tempfile::TempDir,
    flags: Vec<String>,
}

impl Host {
    pub async fn new(cloud: &Cloud) -> Self {
        Self::with(cloud, &[]).await
    }

    /// A host whose agent has more flags.
    pub async fn with(cloud: &Cloud, more: &[&str]) -> Self {
        let netns = Netns::new("host");
        let ovs = Ovs::start(&netns).await;
        let directory = tempfile::Builder::new().prefix("agent").tempdir().unwrap();
        let (state, run_dir) = (directory.path().display().to_string(), ovs.run_dir().display().to_string());
        let (gateway, id_file) = (cloud.gateway(), format!("{state}/host-id"));
        let mut flags = vec!["cloud-network-agent", "--gateway", &gateway, "--state-dir", &state];
        flags.extend(["--host-id-file", &id_file, "--host-name", "test", "--datapath", "netdev"]);
        flags.extend(["--bridge", BRIDGE, "--ovs-rundir", &run_dir, "--sweep-seconds", "1"]);
        flags.extend(more);
        let flags = flags.into_iter().map(str::to_owned).collect();
        Self { ovs, netns, directory, flags }
    }

    pub fn state_dir(&self) -> String {
        self.directory.path().display().to_string()
    }

    /// Starts an agent and waits until it says that all is well.
    pub async fn agent(&self, cloud: &Cloud) -> Agent {
        let agent = self.start_agent(cloud);
        self.until_healthy(cloud, agent).await
    }

    /// Starts the real program and waits until it says that all is well.
    pub async fn program(&self, cloud: &Cloud) -> Agent {
        let mut command = self.netns.command(PROGRAM);
        command.args(&self.flags[1..]);
        let agent = self.start(cloud, command);
        self.until_healthy(cloud, agent).await
    }

    /// Runs a subcommand of the real program.
    pub fn cleanup(&self, args: &[&str]) -> Output {
        let run_dir = self.ovs.run_dir().display().to_string();
        let mut command = self.netns.command(PROGRAM);
        command.args(["cleanup", "--ovs-rundir", &run_dir, "--bridge", BRIDGE]).args(args).output().unwrap()
    }

    /// Starts an agent; its session is not known yet.
    pub fn start_agent(&self, cloud: &Cloud) -> Agent {
        let program = std::env::current_exe().unwrap();
        let mut command = self.netns.command(program.to_str().unwrap());
        command.args(["--exact", "support::agent::process", "--nocapture"]).env(FLAGS, self.flags.join("\n"));
        self.start(cloud, command)
    }

    fn start(&self, cloud: &Cloud, mut command: Command) -> Agent {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let socket = Address::Unix(format!("{}/network.sock", self.state_dir()).into());
        let before = self.heard(cloud).map(|h| h.session).unwrap_or_default();
        Agent { client: NetworkServiceClient::new(agent_channel(&socket)), cloud: cloud.id, session: before, child }
    }

    async fn until_healthy(&self, cloud: &Cloud, mut agent: Agent) -> Agent {
        eventually("the agent reports a healthy switch", async || {
            self.heard(cloud).is_some_and(|h| h.healthy == Some(true) && h.session != agent.session)
        })
        .await;
        agent.session = self.heard(cloud).unwrap().session;
        agent
    }

    /// What its agent said last.
    pub fn heard(&self, cloud: &Cloud) -> Option<Heard> {
        let id = std::fs::read_to_string(format!("{}/host-id", self.state_dir())).ok()?;
        cloud.heard(id.trim())
    }

    pub fn log(&self) -> String {
        format!("{}/agent.log", self.state_dir())
    }

    /// Names of the host's devices.
    pub fn devices(&self) -> Vec<String> {
        let text = self.netns.ip(&["-o", "link"]);
        let name = |line: &str| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned());
        text.lines().filter_map(name).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent's log ---\n{}", std::fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

/// A running agent.
pub struct Agent {
    pub client: NetworkServiceClient<AgentChannel>,
    cloud: CloudId,
    pub session: String,
    child: Child,
}

impl Agent {
    /// SIGTERM, and waits for its end.
    pub async fn stop(mut self) {
        ok("kill", &["-TERM", &self.child.id().to_string()]);
        eventually("the agent ends", async || self.child.try_wait().unwrap().is_some()).await;
        assert!(self.child.wait().unwrap().success(), "the agent failed at its end");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn context(&self, version: u64) -> CallContext {
        CallContext {
            cloud_id: self.cloud.to_string(),
            session_id: self.session.clone(),
            epoch: 1,
            version,
            incarnation: String::new(),
        }
    }

    /// Bytes of memory it has resident.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    pub async fn try_apply(&mut self, vpc: &Vpc) -> Result<ApplyVpcResponse, Status> {
        let header = VpcHeader {
            context: Some(self.context(vpc.generation)),
            vpc_id: vpc.id.to_string(),
            vni: vpc.vni,
            generation: vpc.generation,
            mtu: vpc.mtu,
        };
        let mut messages = vec![ApplyVpcRequest { message: Some(Message::Header(header)) }];
        let part = |subnets, ports| ApplyVpcRequest { message: Some(Message::Part(VpcPart { subnets, ports })) };
        messages.push(part(vpc.subnets.clone(), Vec::new()));
        // One by one, as if there were many.
        messages.extend(vpc.ports.iter().map(|p| part(Vec::new(), vec![p.clone()])));
        let answer = self.client.apply_vpc(futures::stream::iter(messages)).await?;
        Ok(answer.into_inner())
    }

    pub async fn apply(&mut self, vpc: &Vpc) -> ApplyVpcResponse {
        self.try_apply(vpc).await.unwrap_or_else(|e| panic!("apply: {e:?}"))
    }

    pub async fn try_remove(&mut self, vpc: &Vpc) -> Result<(), Status> {
        let request = RemoveVpcRequest {
            context: Some(self.context(vpc.generation)),
            vpc_id: vpc.id.to_string(),
            generation: vpc.generation,
        };
        self.client.remove_vpc(request).await.map(drop)
    }

    pub async fn list(&mut self) -> Vec<VpcState> {
        self.client.list_vpcs(ListVpcsRequest {}).await.unwrap().into_inner().vpcs
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
