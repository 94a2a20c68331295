//! The cloud that a run is about: gateways as processes on one database, and simulated hosts.

use std::{fs, os::unix::fs::symlink, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use cloud_testkit::{
    GatewayConfig, GatewayProcess, GrpcClient, PostgresServer, RestClient, SimHost, SimHostConfig,
    process::postgres_url,
    sim::SimCapacity,
    wait::{PATIENCE, until},
};
use tokio::{sync::Mutex, task::spawn_blocking, time::sleep};
use tonic::Status;

use crate::{
    check::Limits,
    client::{list, list_subnets},
    history::{Kind, Seen},
    hosts::{differences, violations},
    proxy::Proxy,
    rows,
};

/// What instances are launched from.
pub const IMAGE: &str = "tiny";
/// What each host promises, and what the project may have: little enough to be fought for.
pub const LIMITS: Limits = Limits { vcpus: 4 * 8, memory_mib: 4 * 128, instances: 45, vpcs: 3 };
/// How long all may take to be as intended once nothing goes wrong any more: the longest wait after a failure is 38 s, and a call that hangs is
/// given up after 15 s.
const CONVERGES: Duration = Duration::from_secs(120);

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// A cloud that runs. Dropping it ends everything.
#[derive(Debug)]
pub struct ModelCloud {
    // In the order in which they may go.
    pub gateways: Vec<Mutex<GatewayProcess>>,
    pub hosts: Vec<SimHost>,
    proxies: Vec<Proxy>,
    pub postgres: Option<PostgresServer>,
    pub dir: tempfile::TempDir,
}

impl ModelCloud {
    pub async fn start(
        engine: Engine,
        gateways: usize,
        hosts: usize,
        capacity: SimCapacity,
        args: &[String],
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let postgres = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(spawn_blocking(PostgresServer::start).await??),
        };
        let mut cloud = Self { gateways: Vec::new(), hosts: Vec::new(), proxies: Vec::new(), postgres, dir };
        for number in 0..gateways {
            cloud.add_gateway(number, args).await?;
        }
        let mut addresses = Vec::new();
        for gateway in &cloud.gateways {
            addresses.push(gateway.lock().await.host_endpoint());
        }
        for number in 1..=hosts {
            // Each gateway is the first one of its share of the hosts.
            addresses.rotate_left(1);
            let config = SimHostConfig::new(format!("h{number}"), cloud.dir.path(), addresses.clone());
            cloud.hosts.push(SimHost::start(SimHostConfig { capacity: capacity.clone(), ..config })?);
        }
        let rest = cloud.gateways[0].lock().await.rest()?;
        let path = format!("/images:upload?name={IMAGE}&format=RAW");
        let image = Bytes::from(vec![0x5a; 1 << 20]);
        rest.send(http::Method::POST, &path, Some("application/octet-stream"), image).await?.expect(201)?;
        for gateway in &cloud.gateways {
            cloud.hosts_are_up(&gateway.lock().await.rest()?).await?;
        }
        Ok(cloud)
    }

    async fn add_gateway(&mut self, number: usize, more: &[String]) -> anyhow::Result<()> {
        let dir = self.dir.path().join(format!("g{number}"));
        fs::create_dir(&dir)?;
        if let Some(first) = self.gateways.first() {
            // Gateways of one cloud have one operator's key and one directory of image files.
            let first = first.lock().await.dir().to_path_buf();
            fs::copy(first.join("admin.key"), dir.join("admin.key"))?;
            symlink(first.join("images"), dir.join("images"))?;
        }
        let database = match &self.postgres {
            None => None,
            Some(server) => {
                let way = self.dir.path().join(format!("db{number}"));
                self.proxies.push(Proxy::start(&way.join(".s.PGSQL.5432"), &server.socket())?);
                Some(postgres_url(&way))
            }
        };
        let args = [
            "--heartbeat-interval-ms=1000",
            "--heartbeat-timeout-ms=4000",
            "--stop-wait=1",
            "--memory-reserve-mib=0",
            "--work-lease=5",
        ];
        let args = args.into_iter().map(str::to_owned).chain(more.iter().cloned()).collect();
        let config = GatewayConfig { database, args, ..GatewayConfig::default() };
        self.gateways.push(Mutex::new(GatewayProcess::start(&dir, config).await?));
        Ok(())
    }

    async fn hosts_are_up(&self, rest: &RestClient) -> anyhow::Result<()> {
        let wanted = self.hosts.len();
        until("every host to be UP", PATIENCE, || async {
            let hosts = rest.get("/hosts?page_size=500").await?.expect(200)?;
            let up = hosts["hosts"].as_array().into_iter().flatten().filter(|h| h["state"] == "UP").count();
            Ok(if up == wanted { Ok(()) } else { Err(format!("{up} of {wanted} are")) })
        })
        .await
    }

    pub fn cut_database(&self, gateway: usize, cut: bool) {
        if let Some(proxy) = self.proxies.get(gateway) {
            proxy.cut(cut);
        }
    }

    /// Clients of every gateway.
    pub async fn clients(&self) -> anyhow::Result<Vec<GrpcClient>> {
        let mut clients = Vec::new();
        for gateway in &self.gateways {
            clients.push(gateway.lock().await.grpc()?);
        }
        Ok(clients)
    }

    /// Starts gateways again that end by themselves, as an init system does. Never returns.
    pub async fn supervise(&self) {
        loop {
            for gateway in &self.gateways {
                let mut gateway = gateway.lock().await;
                let ended = gateway.process().is_some_and(|p| !matches!(p.ended(), Ok(None)));
                if ended && let Err(error) = gateway.spawn() {
                    eprintln!("a gateway cannot be started again: {error:#}");
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until what there is on the hosts is what the API says, and returns all that there is and was.
    pub async fn converges(&self) -> anyhow::Result<Vec<Seen>> {
        for gateway in &self.gateways {
            gateway.lock().await.ready().await?;
        }
        let grpc = self.gateways[0].lock().await.grpc()?;
        let all = until("intended to be actual", CONVERGES, || async {
            let all = match everything(&grpc).await {
                Ok(all) => all,
                Err(status) => return Ok(Err(status.to_string())),
            };
            let wrong = differences(&all, &self.hosts);
            if !wrong.is_empty() {
                sleep(Duration::from_millis(300)).await;
                return Ok(Err(wrong.join("\n")));
            }
            let failing = rows::failing(&self.database().await).await?;
            if !failing.is_empty() {
                sleep(Duration::from_millis(300)).await;
                return Ok(Err(failing.join("\n")));
            }
            Ok(Ok(all))
        })
        .await?;
        let wrong = violations(&self.hosts);
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(all)
    }

    /// Ends the gateways in order, so that the database is whole and nobody's.
    pub async fn stop_gateways(&self) -> anyhow::Result<()> {
        for gateway in &self.gateways {
            let mut gateway = gateway.lock().await;
            let process = gateway.process().context("the gateway runs")?;
            let status = process.terminate(Duration::from_secs(30)).await?;
            anyhow::ensure!(status.success(), "a gateway ended with {status}");
        }
        Ok(())
    }

    /// The database as an operator's tools would open it.
    pub async fn database(&self) -> String {
        match &self.postgres {
            Some(server) => server.url(),
            None => format!("sqlite:{}", self.gateways[0].lock().await.dir().join("cloud.db").display()),
        }
    }

    /// Every gateway's log, of all its runs.
    pub async fn logs(&self) -> String {
        let mut logs = String::new();
        for (number, gateway) in self.gateways.iter().enumerate() {
            logs += &format!("=== gateway {number}\n{}\n", gateway.lock().await.log().unwrap_or_default());
        }
        logs
    }
}

/// All there is and was: deleted rows and root disks included (not the subnets of deleted VPCs).
async fn everything(grpc: &GrpcClient) -> Result<Vec<Seen>, Status> {
    let mut all = Vec::new();
    for kind in [Kind::Instance, Kind::Volume, Kind::Vpc] {
        all.extend(list(grpc, kind, true).await?);
    }
    let vpcs: Vec<String> =
        all.iter().filter(|s| s.key.kind == Kind::Vpc && !s.dead).map(|s| s.key.name.clone()).collect();
    for vpc in vpcs {
        all.extend(list_subnets(grpc, &vpc).await?);
    }
    Ok(all)
}
