//! The cloud on hosts of the lab: packages, systemd, real KVM, the kernel's datapath, power cuts. Needs root; builds the lab's image where there is none.
//! One lab at a time: run with `--test-threads 1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod guests;
mod lvm;
mod packages;
mod volumes;

use std::time::Duration;

use anyhow::Context as _;
use cloud_lab::{Config, Host, Lab, Site};
use cloud_testkit::process::binary;
use serde_json::Value;

/// How long anything may take that boots no guest and no host.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a guest may take to boot and to say something, in a host that is emulated on a busy machine.
const BOOT: Duration = Duration::from_secs(400);
const AGENTS: [&str; 3] = ["cloud-compute-agent", "cloud-storage-agent", "cloud-network-agent"];

async fn lab() -> anyhow::Result<Lab> {
    let program = binary("cloud-api-gateway")?;
    let binaries = program.parent().context("a program has a directory")?;
    Lab::up(Config::new(Site::of_tests(), binaries)).await
}

/// The process of a unit; 0: it does not run.
async fn process_of(host: &Host, unit: &str) -> anyhow::Result<u32> {
    Ok(host.sh(&format!("systemctl show --property MainPID --value {unit}")).await?.parse()?)
}

/// Where an instance runs, and its id, once it runs.
async fn running(lab: &Lab, name: &str) -> anyhow::Result<(String, String)> {
    let instance = becomes(lab, name, "RUNNING").await?;
    let part = |key: &str| instance[key].as_str().unwrap_or_default().to_owned();
    Ok((part("host"), part("id")))
}

/// Waits until an instance has a status; ERROR on the way there ends the waiting.
async fn becomes(lab: &Lab, name: &str, status: &str) -> anyhow::Result<Value> {
    until(&format!("{name} to be {status}"), BOOT, || async {
        let instance = lab.instances().get(name).await?;
        anyhow::ensure!(instance["status"] != "ERROR" || status == "ERROR", "{name}: {instance}");
        Ok(if instance["status"] == status { Ok(instance) } else { Err(instance.to_string()) })
    })
    .await
    .map_err(|error| lab.with_logs(error))
}

/// As the testkit's, asking less often: what is asked has to share the processors with three emulated machines.
async fn until<T, F>(what: &str, patience: Duration, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Result<T, String>>>,
{
    let end = tokio::time::Instant::now() + patience;
    loop {
        match probe().await? {
            Ok(value) => return Ok(value),
            Err(not_yet) if tokio::time::Instant::now() >= end => {
                anyhow::bail!("waited {} s for {what}: {not_yet}", patience.as_secs());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

/// The process that a guest is on its host.
async fn guest_process(host: &Host, id: &str) -> anyhow::Result<String> {
    host.sh(&format!("pid=$(cat /run/libvirt/qemu/cloud-{id}.pid) && [ -e /proc/$pid/exe ] && echo $pid")).await
}
