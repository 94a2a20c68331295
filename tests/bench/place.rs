//! Placement: how long a launch's transaction takes to choose a host of many and to claim it.
//!
//! Nothing is started and nothing measured but that: the services run in this process over a database with the hosts' rows, and every choice is
//! rolled back. Instances are not looked at, whether there are none or many.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use cloud_api_gateway::adapters::{
    images::{ImageFiles, ImageOptions},
    sql::SqlStore,
};
use cloud_core::{
    model::{
        AgentRole, Caller, HostCapacity, Image, ImageFormat, ImageSource, ImageStatus, Labels, Meta, Pool, Visibility,
    },
    ports::{Store, Tx},
    services::{HostChange, HostRegistry, Launch, Placement, RegisterInput, Services, Settings, Strategy, bootstrap},
};
use cloud_domain::{HostId, ImageId, SessionId};
use cloud_testkit::PostgresServer;

use crate::table::{Table, median};

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Hosts.
    #[arg(long, default_value_t = 1000)]
    hosts: usize,
    /// Choices of each sort.
    #[arg(long, default_value_t = 200)]
    choices: usize,
}

impl Default for Args {
    fn default() -> Self {
        Self { hosts: 1000, choices: 200 }
    }
}

const BUDGET: Duration = Duration::from_millis(2);

/// Measures on SQLite and on PostgreSQL.
pub async fn measure(table: &mut Table, args: &Args) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite:{}", dir.path().join("gateway.db").display());
    on(table, args, "SQLite", &url).await?;
    let server = PostgresServer::start()?;
    on(table, args, "PostgreSQL", &server.url()).await
}

async fn on(table: &mut Table, args: &Args, name: &str, url: &str) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = SqlStore::open(url).await?;
    let registry = Arc::new(HostRegistry::new(Duration::from_secs(3600)));
    let options = ImageOptions {
        dir: dir.path().join("images"),
        import_dir: None,
        max_bytes: 1 << 30,
        allow_private: false,
        timeout: Duration::from_secs(1),
        bucket: None,
    };
    let images = Arc::new(ImageFiles::open(options, store.identity().0)?);
    let services = |placement| {
        let settings = Settings { placement, ..Settings::default() };
        Services::new(store.clone(), Arc::clone(&registry), images.clone(), settings)
    };
    let spread = services(Strategy::Spread);
    bootstrap(&store, "secret").await?;
    let caller = spread.identity.authenticate("secret", "").await?;
    for number in 0..args.hosts {
        host(&spread, &caller, number).await?;
    }
    image(&store, &caller).await?;
    let zone =
        |zone: &str| Placement { host_labels: [("zone".to_owned(), zone.to_owned())].into(), ..Placement::default() };
    let one = Placement { host_labels: [("one".to_owned(), "7".to_owned())].into(), ..Placement::default() };
    let group = Placement { group: "db".into(), ..Placement::default() };
    for (what, services, placement) in [
        ("any, spread", &spread, Placement::default()),
        ("any, pack", &services(Strategy::Pack), Placement::default()),
        ("a tenth by a label", &spread, zone("3")),
        ("one by a label", &spread, one),
        ("a group that keeps apart", &spread, group),
    ] {
        let launch = Launch { name: "web".into(), image: "tiny".into(), placement, ..Launch::default() };
        let mut took = Vec::with_capacity(args.choices);
        for _ in 0..args.choices {
            let (placed, time) = services.instances.would_be_placed(&caller, &launch).await?;
            anyhow::ensure!(placed.hosts as usize == args.hosts, "all hosts are looked at: {placed:?}");
            took.push(time.as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let worst = took.get(took.len() * 99 / 100).copied().context("choices")?;
        let middle = median(took);
        table.judged(
            &format!("(f) placement of {} hosts, {name}, {what}", args.hosts),
            format!("{middle:.2} ms (p99 {worst:.2})"),
            "< 2 ms",
            middle < BUDGET.as_secs_f64() * 1e3,
        );
    }
    store.close().await;
    Ok(())
}

async fn host(services: &Services<SqlStore>, caller: &Caller, number: usize) -> anyhow::Result<()> {
    let host = HostId::random();
    for role in AgentRole::ALL {
        let pool =
            Pool { name: "default".into(), backend: "directory".into(), total_bytes: 1 << 40, free_bytes: 1 << 39 };
        let input = RegisterInput {
            host,
            host_name: format!("h{number}"),
            role,
            session: SessionId::random(),
            endpoint: "unix:/nowhere".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            boot_id: "boot".into(),
            capacity: HostCapacity {
                vcpus: 64,
                memory_mib: 256 << 10,
                accelerator: "kvm".into(),
                architecture: "x86_64".into(),
                pools: vec![pool],
                ..HostCapacity::default()
            },
        };
        services.hosts.register(input).await?;
    }
    let labels: Labels = [("zone", (number % 10).to_string()), ("one", number.to_string()), ("rack", "r1".to_owned())]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
    let change = HostChange { labels: Some(labels), ..HostChange::default() };
    services.hosts.update(caller, &host.to_string(), "", change).await?;
    Ok(())
}

async fn image(store: &SqlStore, caller: &Caller) -> anyhow::Result<()> {
    let image = Image {
        meta: Meta::new(*ImageId::random().as_uuid(), caller.project, &caller.project_name, "tiny", Labels::new()),
        visibility: Visibility::Public,
        status: ImageStatus::Ready,
        status_reason: String::new(),
        source: ImageSource::Upload,
        format: Some(ImageFormat::Qcow2),
        sha256: "00".repeat(32),
        size_bytes: 1,
        virtual_size_bytes: 1 << 20,
        architecture: "x86_64".into(),
    };
    let mut tx = store.begin().await?;
    tx.insert(&image).await?;
    Ok(tx.commit().await?)
}
