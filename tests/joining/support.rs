//! A gateway that hosts can join, and hosts that do.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use cloud_service_kit::tls::CredentialFiles;
use cloud_testkit::{
    DaemonProcess, GatewayConfig, GatewayProcess, RestClient, free_port, process::binary, until, wait::PATIENCE,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// A gateway with an address for hosts.
pub struct Cloud {
    pub gateway: GatewayProcess,
    pub rest: RestClient,
    pub agents: String,
    pub dir: TempDir,
}

impl Cloud {
    pub async fn start(args: &[&str]) -> anyhow::Result<Self> {
        Self::on(None, args).await
    }

    pub async fn on(database: Option<String>, args: &[&str]) -> anyhow::Result<Self> {
        Self::beside(database, None, args).await
    }

    /// With the operator's key of another gateway.
    pub async fn beside(database: Option<String>, other: Option<&Self>, args: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        if let Some(other) = other {
            // With its mode.
            fs::copy(other.gateway.key_file(), dir.path().join("admin.key"))?;
        }
        let agents = format!("127.0.0.1:{}", free_port()?);
        let mut flags = vec![format!("--agents-address={agents}"), "--heartbeat-interval-ms=200".to_owned()];
        flags.extend(args.iter().map(|arg| (*arg).to_owned()));
        let config = GatewayConfig { database, args: flags, ..GatewayConfig::default() };
        let gateway = GatewayProcess::start(dir.path(), config).await?;
        let rest = gateway.rest()?;
        Ok(Self { gateway, rest, agents, dir })
    }

    /// A token, made with these fields.
    pub async fn token(&self, fields: &Value) -> anyhow::Result<Value> {
        self.rest.post("/hosts:join-token", fields).await?.expect(201)
    }

    /// The text of a new token for one new host.
    pub async fn one(&self) -> anyhow::Result<String> {
        Ok(self.token(&json!({})).await?["token"].as_str().unwrap().to_owned())
    }

    /// Waits until an agent answers, as the gateway sees it.
    pub async fn answers(&self, host: &str, role: &str) -> anyhow::Result<()> {
        until(&format!("the {role}-agent of {host} to answer"), PATIENCE, || async {
            let host = self.rest.get(&format!("/hosts/{host}")).await?.expect(200)?;
            let agents = host["agents"].as_array().cloned().unwrap_or_default();
            let there = agents.iter().any(|a| a["role"] == role && a["reachable"] == true);
            Ok(if there { Ok(()) } else { Err(host.to_string()) })
        })
        .await
    }

    /// How often something stands in the gateway's log.
    pub fn logged(&self, what: &[&str]) -> usize {
        let log = self.gateway.log().unwrap();
        log.lines().filter(|line| what.iter().all(|part| line.contains(part))).count()
    }

    pub async fn logs(&self, what: &[&str]) -> anyhow::Result<()> {
        until(&format!("the gateway to log {what:?}"), PATIENCE, || async {
            Ok(if self.logged(what) > 0 { Ok(()) } else { Err(self.gateway.log_tail()) })
        })
        .await
    }
}

/// A machine that joins.
pub struct Machine {
    pub name: String,
    pub dir: PathBuf,
    pub ports: [u16; 3],
}

/// How `cloud-agent-join` ended.
#[derive(Debug)]
pub struct Ended {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Machine {
    pub fn new(cloud: &Cloud, name: &str) -> anyhow::Result<Self> {
        let ports = [free_port()?, free_port()?, free_port()?];
        Ok(Self { name: name.to_owned(), dir: cloud.dir.path().join(format!("machine-{name}")), ports })
    }

    pub async fn join(&self, token: &str, more: &[&str]) -> anyhow::Result<Ended> {
        let mut command = Command::new(binary("cloud-agent-join")?);
        command.args([token, "--host-name", &self.name, "--no-start"]);
        command.arg("--config-dir").arg(self.dir.join("etc")).arg("--state-dir").arg(self.state());
        for (role, port) in ["compute", "storage", "network"].iter().zip(self.ports) {
            command.arg(format!("--{role}-port={port}"));
        }
        let output = command.args(more).output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ended { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn host_id(&self) -> String {
        fs::read_to_string(self.state().join("host-id")).unwrap().trim().to_owned()
    }

    pub fn credentials(&self, role: &str) -> CredentialFiles {
        let file = |end: &str| self.state().join("tls").join(format!("{role}.{end}"));
        CredentialFiles { certificate: file("pem"), key: file("key"), authorities: file("ca.pem") }
    }

    /// All files beneath it, with their contents.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => walk(&path, found),
                    path => found.push((path.clone(), fs::read(&path).unwrap())),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.dir, &mut found);
        found.sort();
        found
    }

    pub fn storage_agent(&self) -> anyhow::Result<DaemonProcess> {
        let config = self.dir.join("etc/storage-agent.toml");
        let args = ["--config".to_owned(), config.display().to_string()];
        DaemonProcess::spawn(&binary("cloud-storage-agent")?, &args, &[], &self.dir.join("storage-agent.log"))
    }

    pub fn storage_log(&self) -> String {
        fs::read_to_string(self.dir.join("storage-agent.log")).unwrap_or_default()
    }

    pub fn storage_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }
}

/// Waits for a condition.
pub async fn becomes(what: &str, patience: Duration, is: impl Fn() -> Result<(), String>) -> anyhow::Result<()> {
    until(what, patience, || async { Ok(is()) }).await
}
