//! A whole cloud for one test: the real gateway, simulated hosts, an image to launch from.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use cloud_testkit::{
    GatewayConfig, GatewayProcess, RestClient, SimHost, SimHostConfig,
    sim::{Method, SimCapacity, Snapshot},
    wait::{PATIENCE, until},
};
use http::Method as Http;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The image that [`TestCloud`] uploads: 1 MiB of a raw disk.
pub const IMAGE: &str = "tiny";

/// What a cloud is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How many simulated hosts, called `h1`, `h2`, ….
    pub hosts: usize,
    /// What each of them offers.
    pub capacity: SimCapacity,
    /// More flags for the gateway.
    pub args: Vec<String>,
    /// How long guests take to shut down; `None`: they never do.
    pub guest_shutdown: Option<Duration>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            hosts: 1,
            capacity: SimCapacity::default(),
            args: Vec::new(),
            guest_shutdown: Some(Duration::from_millis(20)),
        }
    }
}

/// A cloud that runs. Dropping it ends everything.
#[derive(Debug)]
pub struct TestCloud {
    /// The gateway.
    pub gateway: GatewayProcess,
    /// The hosts.
    pub hosts: Vec<SimHost>,
    /// REST with the admin key.
    pub rest: RestClient,
    /// Where all state is.
    pub dir: TempDir,
}

impl TestCloud {
    /// One host, and the image [`IMAGE`].
    ///
    /// # Errors
    /// The gateway does not become ready, or the host not UP.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(Setup::default()).await
    }

    /// Any cloud, with the image [`IMAGE`].
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn with(setup: Setup) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = GatewayConfig { args: setup.args, ..GatewayConfig::default() };
        let gateway = GatewayProcess::start(dir.path(), config).await?;
        let rest = gateway.rest()?;
        let host = |number| {
            SimHost::start(SimHostConfig {
                capacity: setup.capacity.clone(),
                guest_shutdown: setup.guest_shutdown,
                ..SimHostConfig::new(format!("h{number}"), dir.path(), Some(gateway.host_endpoint()))
            })
        };
        let hosts = (1..=setup.hosts).map(host).collect::<anyhow::Result<Vec<_>>>()?;
        let cloud = Self { gateway, hosts, rest, dir };
        cloud.hosts_are("UP").await?;
        cloud.upload(IMAGE, vec![0x5a; 1 << 20]).await?.expect(201)?;
        Ok(cloud)
    }

    /// The first host.
    #[must_use]
    pub fn host(&self) -> &SimHost {
        &self.hosts[0]
    }

    /// Uploads a raw image.
    ///
    /// # Errors
    /// No answer.
    pub async fn upload(&self, name: &str, bytes: impl Into<Bytes>) -> anyhow::Result<cloud_testkit::rest::Answer> {
        let path = format!("/images:upload?name={name}&format=RAW");
        self.rest.send(Http::POST, &path, Some("application/octet-stream"), bytes).await
    }

    /// Waits until every host is in this state.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn hosts_are(&self, state: &str) -> anyhow::Result<()> {
        let wanted = self.hosts.len();
        until(&format!("{wanted} hosts to be {state}"), PATIENCE, || async {
            let hosts = self.rest.get("/hosts?page_size=500").await?.expect(200)?;
            let all = hosts["hosts"].as_array().cloned().unwrap_or_default();
            let there = all.iter().filter(|h| h["state"] == state).count();
            Ok(if there == wanted { Ok(()) } else { Err(hosts.to_string()) })
        })
        .await
    }

    /// Launches an instance of [`IMAGE`] and returns it as answered, STARTING.
    ///
    /// # Errors
    /// Anything but 201.
    pub async fn launch(&self, name: &str) -> anyhow::Result<Value> {
        self.launch_as(&json!({"name": name, "image": IMAGE})).await
    }

    /// Launches what `body` says and returns it as answered.
    ///
    /// # Errors
    /// Anything but 201.
    pub async fn launch_as(&self, body: &Value) -> anyhow::Result<Value> {
        self.rest.post("/instances", body).await?.expect(201)
    }

    /// Launches an instance and waits until it is RUNNING.
    ///
    /// # Errors
    /// It does not run in time.
    pub async fn running(&self, name: &str) -> anyhow::Result<Value> {
        self.launch(name).await?;
        self.becomes(name, "RUNNING").await
    }

    /// An instance by id or name.
    ///
    /// # Errors
    /// Anything but 200.
    pub async fn instance(&self, id: &str) -> anyhow::Result<Value> {
        self.rest.get(&format!("/instances/{id}")).await?.expect(200)
    }

    /// Waits until an instance has this status, and returns it. ERROR on the way there ends the waiting.
    ///
    /// # Errors
    /// Another end, or it takes too long.
    pub async fn becomes(&self, id: &str, status: &str) -> anyhow::Result<Value> {
        self.becomes_within(id, status, PATIENCE).await
    }

    /// [`becomes`](Self::becomes) with its own patience.
    ///
    /// # Errors
    /// Another end, or it takes too long.
    pub async fn becomes_within(&self, id: &str, status: &str, patience: Duration) -> anyhow::Result<Value> {
        until(&format!("{id} to be {status}"), patience, || async {
            let answer = self.rest.get(&format!("/instances/{id}")).await?;
            if answer.status.is_server_error() {
                return Ok(Err(answer.text()));
            }
            let instance = answer.expect(200)?;
            match instance["status"].as_str() {
                Some(is) if is == status => Ok(Ok(instance)),
                Some("ERROR") => anyhow::bail!("{id} is ERROR: {}", instance["status_reason"]),
                _ => Ok(Err(instance.to_string())),
            }
        })
        .await
        .map_err(|error| self.with_log(error))
    }

    /// Deletes an instance and waits until it is DELETED.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn delete(&self, id: &str) -> anyhow::Result<Value> {
        self.delete_within(id, PATIENCE).await
    }

    /// As [`delete`](Self::delete), with another patience.
    ///
    /// # Errors
    /// As there.
    pub async fn delete_within(&self, id: &str, patience: Duration) -> anyhow::Result<Value> {
        // By id, since a name is free again after deletion.
        let deleting = self.rest.delete(&format!("/instances/{id}")).await?.expect(200)?;
        let id = deleting["id"].as_str().context("an instance has an id")?.to_owned();
        until(&format!("{id} to be DELETED"), patience, || async {
            let instance = self.instance(&id).await?;
            Ok(if instance["status"] == "DELETED" { Ok(instance) } else { Err(instance.to_string()) })
        })
        .await
        .map_err(|error| self.with_log(error))
    }

    /// Launches an instance in a project, from an image, into a VPC and on a host that are all new, whatever became of the others, and deletes it.
    ///
    /// # Errors
    /// That does not work.
    pub async fn launches_something_new(&self) -> anyhow::Result<()> {
        let name = format!("new-{}", uuid::Uuid::new_v4().simple());
        self.rest.post("/projects", &json!({"name": name})).await?.expect(201)?;
        let rest = self.rest.clone().with_header(http::HeaderName::from_static("x-project"), &name)?;
        let upload = format!("/images:upload?name={name}&format=RAW");
        let bytes = vec![0x5a; 1 << 20];
        rest.send(Http::POST, &upload, Some("application/octet-stream"), bytes).await?.expect(201)?;
        rest.post("/vpcs", &json!({"name": name, "cidr": "10.42.0.0/16"})).await?.expect(201)?;
        // The others may be cordoned by now.
        let gateway = Some(self.gateway.host_endpoint());
        let _host = SimHost::start(SimHostConfig::new(name.clone(), self.dir.path(), gateway))?;
        until(&format!("host {name} to be UP"), PATIENCE, || async {
            let answer = self.rest.get(&format!("/hosts/{name}")).await?;
            let up = answer.status == 200 && answer.json()["state"] == "UP";
            Ok(if up { Ok(()) } else { Err(answer.text()) })
        })
        .await
        .map_err(|error| self.with_log(error))?;
        let body = json!({
            "name": name, "image": name, "vpc": name, "instance_type": "tiny", "placement": {"host": name},
        });
        let launched = rest.post("/instances", &body).await?.expect(201)?;
        let path = format!("/instances/{}", launched["id"].as_str().context("an instance has an id")?);
        for status in ["RUNNING", "DELETED"] {
            until(&format!("{name} to be {status}"), PATIENCE, || async {
                let instance = rest.get(&path).await?.expect(200)?;
                Ok(if instance["status"] == status { Ok(()) } else { Err(instance.to_string()) })
            })
            .await
            .map_err(|error| self.with_log(error))?;
            if status == "RUNNING" {
                rest.delete(&path).await?.expect(200)?;
            }
        }
        Ok(())
    }

    /// How often a method was called, on all hosts.
    #[must_use]
    pub fn calls(&self, method: Method) -> u64 {
        self.hosts.iter().map(|h| h.calls(method)).sum()
    }

    /// Waits until every host has exactly these many domains that run, volumes and plugged ports in all, and sees that nothing else is
    /// there and that the gateway did nothing wrong on the way.
    ///
    /// # Errors
    /// It takes too long, or something is wrong.
    pub async fn settles(&self, running: usize, volumes: usize, ports: usize) -> anyhow::Result<()> {
        let sum =
            |count: fn(&Snapshot) -> usize| move || self.hosts.iter().map(|h| count(&h.snapshot())).sum::<usize>();
        let (is_running, domains) = (sum(Snapshot::running), sum(|s| s.domains.len()));
        let (is_volumes, is_ports) = (sum(|s| s.volumes.len()), sum(Snapshot::ports));
        until("the hosts to settle", PATIENCE, || {
            let is = (is_running(), domains(), is_volumes(), is_ports());
            let answer =
                if is.0 == running && is.2 == volumes && is.3 == ports { Ok(()) } else { Err(format!("{is:?}")) };
            async move { anyhow::Ok(answer) }
        })
        .await
        .map_err(|error| {
            self.with_log(error.context(format!("wanted {running} running, {volumes} volumes, {ports} ports")))
        })?;
        self.check()
    }

    /// Waits until nothing but cached images is left on any host.
    ///
    /// # Errors
    /// It takes too long, or something is wrong.
    pub async fn is_clean(&self) -> anyhow::Result<()> {
        until("nothing to be left", PATIENCE, || {
            let left = self.hosts.iter().map(SimHost::leftovers).find(|l| !l.is_empty());
            async move { anyhow::Ok(left.map_or(Ok(()), Err)) }
        })
        .await
        .map_err(|error| self.with_log(error))?;
        self.check()
    }

    /// Sees that the gateway did nothing on the hosts that a correct one never does, and made no volume twice.
    ///
    /// # Errors
    /// It did.
    pub fn check(&self) -> anyhow::Result<()> {
        for host in &self.hosts {
            let wrong = host.violations();
            anyhow::ensure!(wrong.is_empty(), "host {}: {}", host.name(), wrong.join("\n"));
            let remade = host.snapshot().volumes.into_iter().find(|(_, v)| v.created > 1);
            anyhow::ensure!(remade.is_none(), "host {}: a volume was made anew: {remade:?}", host.name());
        }
        Ok(())
    }

    /// Adds the end of the gateway's log to an error.
    #[must_use]
    pub fn with_log(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(format!("the gateway's log ends:\n{}", self.gateway.log_tail()))
    }
}
