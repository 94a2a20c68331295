//! A lab: made, found again, taken down.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use cloud_testkit::RestClient;
use cloud_tests::{Instances, instances::IMAGE, real::tiny_image};
use futures::future::try_join_all;
use http::Method;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    accelerator::Accelerator,
    command::{eventually, run, tail},
    courier::Courier,
    gateway::Gateway,
    host::Host,
    image,
    machine::Make,
    packages, provision,
    site::{Site, cache},
    snapshot, wires,
};

/// How long a host may take to be UP once its agents were started or its cables mended.
const UP: Duration = Duration::from_secs(600);
/// How old a snapshot may be: its hosts' certificates count for 30 days.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// What kind of lab.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it is.
    pub site: Site,
    /// How many hosts.
    pub hosts: u8,
    /// MiB of memory of each host.
    pub memory_mib: u32,
    /// Where the programs are that packages are made of.
    pub binaries: PathBuf,
    /// More flags of the gateway.
    pub gateway: Vec<String>,
    /// More arguments of `cloud-agent-join`.
    pub join: Vec<String>,
    /// Whether it stays when the program ends that made it.
    pub stays: bool,
}

/// A lab that runs.
#[derive(Debug)]
pub struct Lab {
    /// REST with the operator's key.
    pub rest: RestClient,
    /// The gateway.
    pub gateway: Gateway,
    hosts: Vec<Host>,
    config: Config,
    // While it is held, nobody else makes a lab in this place.
    _lock: Option<File>,
}

impl Config {
    /// Three hosts, with the programs in a directory.
    #[must_use]
    pub fn new(site: Site, binaries: &Path) -> Self {
        let (gateway, join) = (Vec::new(), Vec::new());
        Self { site, hosts: 3, memory_mib: 2560, binaries: binaries.to_path_buf(), gateway, join, stays: false }
    }

    /// What a snapshot of such a lab is known by: all that went into it.
    async fn key(&self, make: &Make) -> anyhow::Result<String> {
        let mut hash = Sha256::new();
        hash.update(provision::TEXT);
        hash.update(packages::fingerprint(&self.binaries)?);
        hash.update(
            fs::read(tiny_image()).with_context(|| format!("{}: images/tiny/build.sh", tiny_image().display()))?,
        );
        hash.update(run("qemu-system-x86_64", &["--version"]).await?);
        hash.update(format!(
            "{:?} {make:?} {} {} {:?} {:?}",
            self.site, self.hosts, self.memory_mib, self.gateway, self.join
        ));
        Ok(hex::encode(&hash.finalize()[..8]))
    }
}

impl Lab {
    /// Brings a lab up, from its snapshot, or from nothing where there is none: all hosts are UP, the image `tiny` is there. What was left of an
    /// earlier lab in this place is removed first.
    ///
    /// # Errors
    /// Something that is needed is missing, or does not work; says what.
    pub async fn up(mut config: Config) -> anyhow::Result<Self> {
        // Half of one stays for nobody.
        let stays = std::mem::replace(&mut config.stays, false);
        let dir = config.site.dir();
        fs::create_dir_all(&dir)?;
        let lock = lock(&dir)?;
        wires::remove(&config.site)?;
        clear(&dir)?;
        let image = image::build().await?;
        let accelerator = Accelerator::detect(&image).await?;
        let make = Make { image, accelerator, memory_mib: config.memory_mib };
        let snapshot = cache().join(format!("snapshot-{}-{}", config.site.name, config.key(&make).await?));
        let hosts = (1..=config.hosts).map(|number| Host::new(number, &config.site, &make)).collect();
        let gateway = Gateway::new(&config.site, &config.binaries, &config.gateway);
        let rest = RestClient::new(gateway.url());
        let mut lab = Self { rest, gateway, hosts, config, _lock: Some(lock) };
        lab.remember(&make)?;
        fs::copy(make.image.join("id_lab"), lab.config.site.dir().join("id_lab"))?;
        wires::make(&lab.config.site).await?;
        if !is_fresh(&snapshot) {
            lab.build(&snapshot).await.map_err(|error| lab.with_logs(error))?;
        }
        lab.rest = snapshot::restore(&snapshot, &lab.hosts, &lab.gateway).await?;
        lab.all_up().await?;
        lab.config.stays = stays;
        Ok(lab)
    }

    /// Makes hosts of nothing, and the snapshot of them.
    async fn build(&mut self, snapshot: &Path) -> anyhow::Result<()> {
        remove_others(snapshot)?;
        let begun = Instant::now();
        let did = |what: &str| eprintln!("lab: {what} after {} s", begun.elapsed().as_secs());
        let made = packages::make(&self.config.binaries).await?;
        let directory = made.first().and_then(|path| path.parent()).context("no package was made")?.to_path_buf();
        let names = made.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        let names: Vec<_> = names.filter(|name| !name.starts_with("thecloud-gateway")).collect();
        for host in &self.hosts {
            host.machine().make_disks().await?;
        }
        let boots = try_join_all(self.hosts.iter().map(Host::power_on));
        let (_, rest) = tokio::try_join!(boots, self.gateway.start())?;
        self.rest = rest;
        did("hosts have booted");
        let courier = Courier::start(&self.config.site, &directory).await?;
        try_join_all(self.hosts.iter().map(|host| async {
            host.set_clock().await?;
            provision::install(host, &courier, &names).await?;
            provision::volume_group(host).await?;
            provision::join(host, &self.rest, None, &self.config.join).await
        }))
        .await?;
        did("packages are installed and hosts have joined");
        let path = format!("/images:upload?name={IMAGE}");
        let bytes = fs::read(tiny_image())?;
        self.rest.send(Method::POST, &path, Some("application/octet-stream"), bytes).await?.expect(201)?;
        self.all_up().await?;
        did("hosts are UP");
        let unfinished = snapshot.with_extension("unfinished");
        let _none = fs::remove_dir_all(&unfinished);
        snapshot::save(&unfinished, &self.hosts, &self.gateway).await?;
        fs::rename(&unfinished, snapshot)?;
        for host in &self.hosts {
            host.forget_agent().await;
            fs::remove_dir_all(host.machine().dir())?;
        }
        Ok(())
    }

    /// The hosts of a lab that runs, for commands on them.
    ///
    /// # Errors
    /// It does not run.
    pub fn open(site: &Site) -> anyhow::Result<Vec<Host>> {
        anyhow::ensure!(wires::exist(site), "no lab `{}` runs: make lab", site.name);
        // Nothing of it is needed to find what runs, and to switch it on again: the image is the disks' own.
        let kept = fs::read_to_string(site.dir().join("make")).context("the lab is not whole: make lab-down")?;
        let mut lines = kept.lines();
        let mut next = || lines.next().context("the lab is not whole: make lab-down");
        let make = Make {
            image: PathBuf::from(next()?),
            accelerator: if next()? == "kvm" { Accelerator::Kvm } else { Accelerator::Tcg },
            memory_mib: next()?.parse()?,
        };
        let hosts: u8 = next()?.parse()?;
        Ok((1..=hosts).map(|number| Host::new(number, site, &make)).collect())
    }

    /// What [`open`](Self::open) needs to know.
    fn remember(&self, make: &Make) -> anyhow::Result<()> {
        let how = if make.accelerator == Accelerator::Kvm { "kvm" } else { "tcg" };
        let text = format!("{}\n{how}\n{}\n{}\n", make.image.display(), make.memory_mib, self.config.hosts);
        Ok(fs::write(self.config.site.dir().join("make"), text)?)
    }

    /// Ends a lab and removes its disks; the cached image and snapshots stay.
    ///
    /// # Errors
    /// Something of it cannot be ended or removed.
    pub fn down(site: &Site) -> anyhow::Result<()> {
        wires::remove(site)?;
        if site.dir().exists() {
            clear(&site.dir())?;
        }
        Ok(())
    }

    /// A host by its name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn host(&self, name: &str) -> anyhow::Result<&Host> {
        self.hosts.iter().find(|host| host.name() == name).with_context(|| format!("the lab has no host `{name}`"))
    }

    /// All hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Its instances, as clients see them.
    #[must_use]
    pub fn instances(&self) -> Instances<'_> {
        Instances(&self.rest)
    }

    /// Lets a host join again, with a token that is bound to it.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn join_again(&self, name: &str) -> anyhow::Result<()> {
        provision::join(self.host(name)?, &self.rest, Some(name), &self.config.join).await
    }

    /// A host as the gateway sees it.
    ///
    /// # Errors
    /// Anything but 200.
    pub async fn seen(&self, name: &str) -> anyhow::Result<Value> {
        self.rest.get(&format!("/hosts/{name}")).await?.expect(200)
    }

    /// Waits until the gateway sees a host in a state.
    ///
    /// # Errors
    /// It takes too long; the ends of the logs are in the error.
    pub async fn host_becomes(&self, name: &str, state: &str, patience: Duration) -> anyhow::Result<Value> {
        eventually(&format!("{name} to be {state}"), patience, || async {
            let host = self.seen(name).await?;
            Ok(if host["state"] == state { Ok(host) } else { Err(host.to_string()) })
        })
        .await
        .map_err(|error| self.with_logs(error))
    }

    async fn all_up(&self) -> anyhow::Result<()> {
        for host in &self.hosts {
            self.host_becomes(&host.name(), "UP", UP).await?;
        }
        Ok(())
    }

    /// Adds the ends of the gateway's log and of the hosts' consoles to an error.
    #[must_use]
    pub fn with_logs(&self, error: anyhow::Error) -> anyhow::Error {
        let mut found = format!("the gateway's log ends:\n{}\n", tail(&self.gateway.log(), 3000));
        for host in &self.hosts {
            found += &format!("the console of {} ends:\n{}\n", host.name(), tail(&host.machine().console(), 1000));
        }
        error.context(found)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.config.stays
            && let Err(error) = Self::down(&self.config.site)
        {
            eprintln!("something of the lab is left on this machine: {error:#}");
        }
    }
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let file = File::create(dir.join("lock"))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("somebody else makes this lab just now ({})", dir.display()))?;
    Ok(file)
}

/// Empties a lab's directory but for its lock.
fn clear(dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if path.file_name().is_some_and(|name| name != "lock") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn is_fresh(snapshot: &Path) -> bool {
    let made = fs::metadata(snapshot).and_then(|about| about.modified());
    made.is_ok_and(|made| SystemTime::now().duration_since(made).is_ok_and(|age| age < FRESH))
}

/// Stale snapshots of the same lab: of another image, other programs, or too old.
fn remove_others(snapshot: &Path) -> anyhow::Result<()> {
    let name = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of_this_lab =
        name.rsplit_once('-').map(|(lab, _)| format!("{lab}-")).context("a snapshot is called after its lab")?;
    for entry in fs::read_dir(cache())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&of_this_lab) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
