//! A host of the lab, as a test works with it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    channel::Channel,
    command::{PATH, eventually},
    courier::Courier,
    machine::{Machine, Make},
    site::Site,
};

/// How long a command on a host may take, unless told otherwise.
const COMMAND: Duration = Duration::from_secs(600);
/// How long the guest agent may take to answer at all.
const AGENT: Duration = Duration::from_secs(400);

/// How a command on a host ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit status; 128 and more: the signal that ended it.
    pub status: i64,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// A host.
#[derive(Debug)]
pub struct Host {
    machine: Machine,
    site: Site,
    // One connection at a time is all that QEMU takes.
    agent: Mutex<Option<Channel>>,
}

impl Host {
    pub(crate) fn new(number: u8, site: &Site, make: &Make) -> Self {
        let machine = Machine::new(number, site.clone(), make.clone());
        Self { machine, site: site.clone(), agent: Mutex::new(None) }
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// Its name: `h1`.
    #[must_use]
    pub fn name(&self) -> String {
        self.machine.name()
    }

    /// Its number: 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.machine.number
    }

    /// Its address on the management network.
    #[must_use]
    pub fn address(&self) -> String {
        self.site.management_of(self.number())
    }

    /// Whether it has power.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.machine.pid().is_some()
    }

    /// What it wrote to its serial port since it was switched on.
    #[must_use]
    pub fn console(&self) -> String {
        std::fs::read_to_string(self.machine.console()).unwrap_or_default()
    }

    /// Runs a shell command as root, by the guest agent: cut cables do not matter.
    ///
    /// # Errors
    /// The host does not answer, or the command takes more than ten minutes.
    pub async fn exec(&self, command: &str) -> anyhow::Result<Output> {
        self.exec_with(command, None).await
    }

    /// [`exec`](Self::exec) with something on its stdin.
    ///
    /// # Errors
    /// As there.
    pub async fn exec_with(&self, command: &str, stdin: Option<&str>) -> anyhow::Result<Output> {
        let environment = [format!("PATH={PATH}"), "HOME=/root".to_owned(), "LC_ALL=C.UTF-8".to_owned()];
        let mut arguments =
            json!({"path": "/bin/sh", "arg": ["-c", command], "capture-output": true, "env": environment});
        if let Some(stdin) = stdin {
            arguments["input-data"] = json!(BASE64.encode(stdin));
        }
        let pid = self.call("guest-exec", arguments).await?["pid"].take();
        let until = Instant::now() + COMMAND;
        let mut pause = Duration::from_millis(4);
        loop {
            let status = self.call("guest-exec-status", json!({"pid": pid})).await?;
            if status["exited"] == true {
                return output(&status);
            }
            anyhow::ensure!(Instant::now() < until, "{}: `{command}` takes too long", self.name());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Runs a shell command that has to succeed, and returns what it printed.
    ///
    /// # Errors
    /// It fails; what it said.
    pub async fn sh(&self, command: &str) -> anyhow::Result<String> {
        self.sh_with(command, None).await
    }

    pub(crate) async fn sh_with(&self, command: &str, stdin: Option<&str>) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } = self.exec_with(command, stdin).await?;
        anyhow::ensure!(status == 0, "{}: `{command}` ended with {status}\n{stdout}\n{stderr}", self.name());
        Ok(stdout.trim().to_owned())
    }

    /// Waits until a shell command on it succeeds, and returns what it printed.
    ///
    /// # Errors
    /// It takes too long; what the command said last.
    pub async fn until(&self, command: &str, patience: Duration) -> anyhow::Result<String> {
        eventually(&format!("`{command}` on {}", self.name()), patience, || async {
            let output = self.exec(command).await?;
            let said = || format!("{}\n{}", output.stdout, output.stderr);
            Ok(if output.status == 0 { Ok(output.stdout.trim().to_owned()) } else { Err(said()) })
        })
        .await
    }

    /// Copies a file into the host, over the management network.
    ///
    /// # Errors
    /// It cannot be read, or does not arrive.
    pub async fn put(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        let directory = from.parent().context("a file is in a directory")?;
        let name = from.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        let courier = Courier::start(&self.site, directory).await?;
        self.sh(&courier.fetch(&name, to)).await?;
        Ok(())
    }

    /// Its clock is this machine's again.
    pub(crate) async fn set_clock(&self) -> anyhow::Result<()> {
        self.skew_clock(0).await
    }

    pub(crate) async fn forget_agent(&self) {
        *self.agent.lock().await = None;
    }

    /// Calls the guest agent, over the connection that there is or a new one.
    async fn call(&self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        let mut agent = self.agent.lock().await;
        if agent.is_none() {
            *agent = Some(self.connect().await?);
        }
        let Some(channel) = agent.as_mut() else { anyhow::bail!("there is no connection") };
        let answer = channel.call(name, arguments).await.with_context(|| self.name());
        if answer.is_err() {
            *agent = None;
        }
        answer
    }

    async fn connect(&self) -> anyhow::Result<Channel> {
        eventually(&format!("the guest agent of {}", self.name()), AGENT, || async {
            anyhow::ensure!(self.runs(), "{} is switched off", self.name());
            let channel = Channel::agent(&self.machine.agent_socket(), Duration::from_secs(20)).await;
            Ok(channel.map_err(|error| format!("{error:#}")))
        })
        .await
    }
}

fn output(status: &Value) -> anyhow::Result<Output> {
    let text = |key: &str| {
        let bytes = BASE64.decode(status[key].as_str().unwrap_or_default())?;
        anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let signal = || 128 + status["signal"].as_i64().unwrap_or_default();
    let code = status["exitcode"].as_i64().unwrap_or_else(signal);
    Ok(Output { status: code, stdout: text("out-data")?, stderr: text("err-data")? })
}
