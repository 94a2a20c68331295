//! The real gateway as a child process.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::transport::{Channel, Endpoint};

use super::{DaemonProcess, binary};
use crate::{RestClient, free_port, wait::until};

/// How long the gateway may take to be ready.
const READY: Duration = Duration::from_secs(20);

/// How to start a gateway.
#[derive(Debug, Clone, Default)]
pub struct GatewayConfig {
    /// The database's URL; `None`: a SQLite file in the state directory.
    pub database: Option<String>,
    /// More flags.
    pub args: Vec<String>,
    /// More environment.
    pub envs: Vec<(String, String)>,
}

/// A gateway that runs as a child process, with all its state in one directory. It can be killed and started again on the same state and port.
#[derive(Debug)]
pub struct GatewayProcess {
    config: GatewayConfig,
    dir: PathBuf,
    port: u16,
    process: Option<DaemonProcess>,
}

impl GatewayProcess {
    /// Starts a gateway with its state in `dir` and waits until it is ready.
    ///
    /// # Errors
    /// It is not built, or does not become ready; the end of its log is in the error.
    pub async fn start(dir: &Path, config: GatewayConfig) -> anyhow::Result<Self> {
        let mut gateway = Self { config, dir: dir.to_path_buf(), port: free_port()?, process: None };
        gateway.restart().await?;
        Ok(gateway)
    }

    /// Starts it again on the same state and port, and waits until it is ready. Kills it first if it runs.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// As [`restart`](Self::restart), without waiting.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        self.process = None;
        let program = binary("cloud-api-gateway")?;
        let database = self.config.database.clone();
        let database = database.unwrap_or_else(|| format!("sqlite:{}", self.dir.join("cloud.db").display()));
        let mut args = vec![
            flag("--listen", format!("127.0.0.1:{}", self.port)),
            flag("--database", database),
            flag("--state-dir", self.dir.display()),
            flag("--host-listen", self.host_endpoint()),
            flag("--api-key-file", self.key_file().display()),
        ];
        args.extend(self.config.args.clone());
        // Tests and benchmarks call as fast as they are answered, with one key.
        let mut envs = vec![("CLOUD_RATE_LIMIT".to_owned(), "0".to_owned())];
        envs.extend(self.config.envs.clone());
        let process = DaemonProcess::spawn(&program, &args, &envs, &self.dir.join("gateway.log"))?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until `/health/ready` answers 200.
    ///
    /// # Errors
    /// It ends or takes too long; the end of its log is in the error.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let rest = RestClient::new(self.url());
        let answer = until("the gateway to be ready", READY, || {
            let (rest, ended) = (rest.clone(), self.process.as_mut().map(DaemonProcess::ended));
            async move {
                match ended {
                    None => anyhow::bail!("the gateway was not started"),
                    Some(ended) => {
                        if let Some(status) = ended? {
                            anyhow::bail!("the gateway ended: {status}");
                        }
                    }
                }
                Ok(match rest.get("/health/ready").await {
                    Ok(answer) if answer.status.is_success() => Ok(()),
                    Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                    Err(error) => Err(format!("{error:#}")),
                })
            }
        })
        .await;
        answer.map_err(|error| error.context(format!("the gateway's log ends:\n{}", self.log_tail())))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // Dropping kills.
        self.process = None;
    }

    /// The process; `None` after [`kill`](Self::kill).
    pub fn process(&mut self) -> Option<&mut DaemonProcess> {
        self.process.as_mut()
    }

    /// What it wrote last.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map(DaemonProcess::log_tail).unwrap_or_default()
    }

    /// The whole log, of all its runs.
    ///
    /// # Errors
    /// There is none.
    pub fn log(&self) -> std::io::Result<String> {
        fs::read_to_string(self.dir.join("gateway.log"))
    }

    /// Such as `http://127.0.0.1:40123`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its public port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its state is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where agents register: `unix:<dir>/host.sock`.
    #[must_use]
    pub fn host_endpoint(&self) -> String {
        format!("unix:{}", self.dir.join("host.sock").display())
    }

    /// Where the admin key is.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.dir.join("admin.key")
    }

    /// The admin key.
    ///
    /// # Errors
    /// The gateway has not made it.
    pub fn key(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.key_file())?.trim().to_owned())
    }

    /// A REST client with the admin key.
    ///
    /// # Errors
    /// There is no key.
    pub fn rest(&self) -> anyhow::Result<RestClient> {
        RestClient::new(self.url()).with_key(&self.key()?)
    }

    /// A gRPC client with the admin key.
    ///
    /// # Errors
    /// There is no key.
    pub fn grpc(&self) -> anyhow::Result<crate::GrpcClient> {
        crate::GrpcClient::new(self.channel()?, &self.key()?)
    }

    /// A channel without a key, connected when it is used.
    ///
    /// # Errors
    /// Never in practice: the URL is one.
    pub fn channel(&self) -> anyhow::Result<Channel> {
        Ok(Endpoint::try_from(self.url())?.connect_lazy())
    }
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name}={value}")
}
