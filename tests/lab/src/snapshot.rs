//! Snapshots of a whole lab: memory and disks of every host, and the gateway's state, of one moment.
//!
//! Hosts stand still first, then the gateway ends. What the snapshot has of both is of the same moment: no host knows a certificate, a volume or an order that
//! the gateway's database does not know.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use cloud_testkit::RestClient;
use futures::future::try_join_all;
use serde_json::json;

use crate::{
    command::{eventually, run},
    gateway::Gateway,
    host::Host,
};

/// How long a host's memory may take to be written or read: seconds, unless the disk is busy.
const MEMORY: Duration = Duration::from_secs(300);

/// Memory at fixed places of the file: pages that were never touched take no room in it.
const MAPPED: &str = "mapped-ram";

fn memory(dir: &Path, host: &Host) -> PathBuf {
    dir.join(format!("{}.memory", host.name()))
}

fn disk(dir: &Path, host: &Host, disk: &str) -> String {
    dir.join(format!("{}-{disk}.qcow2", host.name())).display().to_string()
}

/// Writes a snapshot into a new directory. Afterwards the hosts stand still and the gateway does not run: what goes on is the snapshot.
pub async fn save(dir: &Path, hosts: &[Host], gateway: &Gateway) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    try_join_all(hosts.iter().map(Host::pause)).await?;
    gateway.stop().await?;
    copy(&gateway.state(), &dir.join("gateway")).await?;
    try_join_all(hosts.iter().map(|host| async {
        let file = json!({"uri": format!("file:{}", memory(dir, host).display())});
        host.machine().monitor(&[capability(), ("migrate", file)]).await?;
        migrated(host).await?;
        for name in ["root", "data"] {
            let own = host.machine().disk(name).display().to_string();
            run("cp", &["--sparse=always", "--reflink=auto", &own, &disk(dir, host, name)]).await?;
        }
        host.machine().kill().await
    }))
    .await?;
    Ok(())
}

/// Goes on from a snapshot; nothing of the lab runs, and its directories are new. REST with the operator's key.
pub async fn restore(dir: &Path, hosts: &[Host], gateway: &Gateway) -> anyhow::Result<RestClient> {
    copy(&dir.join("gateway"), &gateway.state()).await?;
    let started = try_join_all(hosts.iter().map(|host| async {
        fs::create_dir_all(host.machine().dir())?;
        for name in ["root", "data"] {
            host.machine().overlay(name, &disk(dir, host, name)).await?;
        }
        host.machine().start(true).await?;
        let file = json!({"uri": format!("file:{}", memory(dir, host).display())});
        host.machine().monitor(&[capability(), ("migrate-incoming", file)]).await?;
        migrated(host).await
    }));
    let (_, rest) = tokio::try_join!(started, gateway.start())?;
    try_join_all(hosts.iter().map(Host::resume)).await?;
    // It was another time when they stood still.
    try_join_all(hosts.iter().map(Host::set_clock)).await?;
    Ok(rest)
}

fn capability() -> (&'static str, serde_json::Value) {
    ("migrate-set-capabilities", json!({"capabilities": [{"capability": MAPPED, "state": true}]}))
}

async fn migrated(host: &Host) -> anyhow::Result<()> {
    eventually(&format!("the memory of {}", host.name()), MEMORY, || async {
        let is = host.machine().monitor(&[("query-migrate", json!({}))]).await?;
        let status = is["status"].as_str().unwrap_or_default().to_owned();
        anyhow::ensure!(!matches!(status.as_str(), "failed" | "cancelled"), "{}: {is}", host.name());
        Ok(if status == "completed" { Ok(()) } else { Err(status) })
    })
    .await
}

/// Copies a directory with owners and modes.
async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let _none = fs::remove_dir_all(to);
    let (from, to) = (from.display().to_string(), to.display().to_string());
    run("cp", &["-a", "--sparse=always", "--reflink=auto", &from, &to])
        .await
        .context("cannot copy the gateway's state")?;
    Ok(())
}
