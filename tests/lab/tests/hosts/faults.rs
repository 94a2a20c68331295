//! What the lab does to a host happens to it, and is over when it is mended.

use cloud_lab::Wire;

use crate::{PATIENCE, lab};

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_cut_off_paused_filled_skewed_and_broken_and_mended() -> anyhow::Result<()> {
    let lab = lab().await?;
    let (first, second, third) = (lab.host("h1")?, lab.host("h2")?, lab.host("h3")?);

    // Two of them at once: each is silent for ten seconds before anybody says so.
    first.cut(Wire::Management).await?;
    assert_eq!(first.sh("cat /sys/class/net/eth0/carrier").await?, "1", "a cut cable is silent");
    second.pause().await?;
    lab.host_becomes("h1", "UNREACHABLE", PATIENCE).await?;
    lab.host_becomes("h2", "UNREACHABLE", PATIENCE).await?;
    assert_eq!(lab.seen("h3").await?["state"], "UP");
    first.mend(Wire::Management).await?;
    second.resume().await?;
    lab.host_becomes("h1", "UP", PATIENCE).await?;
    lab.host_becomes("h2", "UP", PATIENCE).await?;

    first.plug(Wire::Underlay, false).await?;
    first.until("[ $(cat /sys/class/net/eth1/carrier) = 0 ]", PATIENCE).await?;
    first.plug(Wire::Underlay, true).await?;
    let address = lab_address(second).await?;
    first.until(&format!("ping -c 1 -W 1 {address}"), PATIENCE).await?;

    second.skew_clock(-3600).await?;
    let difference = seconds_since_epoch()? - second.sh("date +%s").await?.parse::<i64>()?;
    assert!((3500..3700).contains(&difference), "{difference}");
    second.skew_clock(0).await?;
    assert!((seconds_since_epoch()? - second.sh("date +%s").await?.parse::<i64>()?).abs() < 60);

    // Full to the last block: volumes are elsewhere, and what the agents remember is there.
    third.fill_disk(0).await?;
    assert_ne!(third.exec("head -c 1000000 /dev/zero > /root/more").await?.status, 0, "the disk is full");
    third.sh("rm -f /root/more").await?;
    third.empty_disk().await?;
    lab.host_becomes("h3", "UP", PATIENCE).await?;

    // Its volume group: what was written is there again afterwards.
    let write = "printf 'before the fault' | dd of=/dev/vg0/kept oflag=direct bs=512 conv=sync 2>&1";
    third.sh(&format!("lvcreate -qqy -V 16M -T vg0/thin -n kept && {write}")).await?;
    third.break_disk().await?;
    let read = third.exec("dd if=/dev/vg0/kept iflag=direct bs=512 count=1").await?;
    assert!(read.status != 0 && read.stderr.contains("Input/output error"), "{read:?}");
    let broken = lab.host_becomes("h3", "UNREACHABLE", PATIENCE).await?;
    assert!(broken["state_reason"].as_str().unwrap_or_default().contains("storage-agent"), "{broken}");
    third.mend_disk().await?;
    lab.host_becomes("h3", "UP", PATIENCE).await?;
    let read = third.sh("dd if=/dev/vg0/kept iflag=direct bs=512 count=1 2> /dev/null | tr -d '\\0'").await?;
    assert_eq!(read, "before the fault");
    Ok(())
}

/// A host's address on the network for tunnels, as it sees it.
async fn lab_address(host: &cloud_lab::Host) -> anyhow::Result<String> {
    host.sh("ip -o -4 addr show eth1 | awk '{ sub(\"/.*\", \"\", $4); print $4 }'").await
}

fn seconds_since_epoch() -> anyhow::Result<i64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_secs())?)
}
