//! What makes a host of a booted machine: what an operator does, once.

use anyhow::Context as _;
use cloud_testkit::RestClient;
use serde_json::json;

use crate::{courier::Courier, host::Host};

/// The text of this file is part of what a snapshot is known by.
pub const TEXT: &str = include_str!("provision.rs");

/// The volume group `vg0` with a thin pool on the second disk. That disk is behind a table of device-mapper's (`lab-disk`), to be broken.
const VOLUME_GROUP: &str = "set -e
pvcreate -qqy /dev/mapper/labdisk
vgcreate -qqy vg0 /dev/mapper/labdisk
lvcreate -qqy --type thin-pool -l 90%FREE -c 64k --poolmetadatasize 64M -Zy -n thin vg0";

/// Where the host keeps volumes: in that thin pool.
const POOL: &str = "--storage=pool=default=lvm:vg0/thin";

/// Installs our packages, and sees that the agents wait.
pub async fn install(host: &Host, courier: &Courier, packages: &[String]) -> anyhow::Result<()> {
    host.sh("mkdir -p /root/packages").await?;
    for name in packages {
        host.sh(&courier.fetch(name, &format!("/root/packages/{name}"))).await?;
    }
    host.sh("DEBIAN_FRONTEND=noninteractive dpkg -i /root/packages/*.deb 2>&1").await?;
    let waits = "for unit in cloud-storage-agent cloud-network-agent cloud-compute-agent; do \
                 systemctl is-enabled --quiet $unit && ! systemctl is-active --quiet $unit && ! systemctl is-failed --quiet $unit || exit 1; done";
    host.sh(waits).await.context("agents of a host that has not joined should be enabled, and wait")?;
    Ok(())
}

/// Makes the volume group.
pub async fn volume_group(host: &Host) -> anyhow::Result<()> {
    host.sh(VOLUME_GROUP).await?;
    Ok(())
}

/// Lets the host in with a new token, as an operator would; `more` are arguments of `cloud-agent-join`.
pub async fn join(host: &Host, rest: &RestClient, bound: Option<&str>, more: &[String]) -> anyhow::Result<()> {
    let body = bound.map_or_else(|| json!({}), |host| json!({"host": host}));
    let made = rest.post("/hosts:join-token", &body).await?;
    anyhow::ensure!(made.status.is_success(), "{}", made.text());
    let more = more.iter().map(|word| format!(" '{word}'")).collect::<String>();
    let (address, tunnel) = (host.address(), host.site().underlay_of(host.number()));
    let command =
        format!("cloud-agent-join - --start systemd --address {address} --tunnel-address {tunnel} {POOL}{more}");
    host.sh_with(&command, Some(&made.at("/token"))).await?;
    Ok(())
}
