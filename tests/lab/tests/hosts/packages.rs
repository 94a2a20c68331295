//! Our packages and their units, on a Debian with systemd.

use anyhow::Context as _;
use serde_json::json;

use crate::{AGENTS, PATIENCE, guest_process, lab, process_of, running};

/// What `systemctl show` says of a unit.
async fn property(host: &cloud_lab::Host, unit: &str, name: &str) -> anyhow::Result<String> {
    host.sh(&format!("systemctl show --property {name} --value {unit}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hosts_are_up_by_packages_and_joining_and_systemd_starts_what_dies() -> anyhow::Result<()> {
    let lab = lab().await?;
    for host in lab.hosts() {
        let seen = lab.seen(&host.name()).await?;
        assert_eq!(seen["state"], "UP", "{seen}");
        assert_eq!(seen["accelerator"], "kvm", "{seen}");
        assert_eq!(seen["datapath"], "system", "{seen}");
        assert_eq!(host.sh("dpkg-query -W -f '${db:Status-Status}' thecloud-agents").await?, "installed");
        for unit in AGENTS {
            assert_eq!(property(host, unit, "ActiveState").await?, "active", "{unit}");
            assert_eq!(property(host, unit, "UnitFileState").await?, "enabled", "{unit}");
            assert_eq!(property(host, unit, "NoNewPrivileges").await?, "yes", "{unit}");
        }
        for agent in ["compute", "storage", "network"] {
            let config = host.sh(&format!("cat /etc/thecloud/{agent}-agent.toml")).await?;
            assert!(config.contains(":8443") && config.contains("tls-cert"), "mutual TLS: {config}");
            assert_eq!(host.sh(&format!("stat -c %a /var/lib/thecloud/tls/{agent}.key")).await?, "600");
        }
        assert_eq!(property(host, "libvirtd", "Type").await?, "notify");
        let filter = host.sh("lvmconfig devices/global_filter").await?;
        assert!(filter.contains("vol|snap|img"), "LVM leaves guests' disks alone: {filter}");
        assert_eq!(host.sh("lvs --noheadings -o lv_layout vg0/thin").await?, "thin,pool");
    }

    // Even where LVM looks into logical volumes, it does not look into those.
    let host = lab.host("h1")?;
    for (name, status) in [("vol-2f448725-2c2e-4ce4-bbb7-5f1da531d99f", 5), ("vol-ours", 0)] {
        host.sh(&format!("lvcreate -qqy -V 16M -T vg0/thin -n {name}")).await?;
        let made = host.exec(&format!("pvcreate --config devices/scan_lvs=1 /dev/vg0/{name} 2>&1")).await?;
        assert_eq!(made.status, status, "{name}: {}", made.stdout);
        host.sh(&format!("wipefs -qa /dev/vg0/{name} && lvremove -qqy vg0/{name}")).await?;
    }

    let mut killed = Vec::new();
    for unit in AGENTS {
        killed.push((unit, process_of(host, unit).await?));
    }
    host.sh(
        "systemctl kill --kill-whom=main --signal=KILL cloud-compute-agent cloud-storage-agent cloud-network-agent",
    )
    .await?;
    for (unit, before) in killed {
        let again =
            format!("pid=$(systemctl show --property MainPID --value {unit}); [ $pid != 0 ] && [ $pid != {before} ]");
        host.until(&again, PATIENCE).await?;
    }
    lab.host_becomes("h1", "UP", PATIENCE).await?;
    lab.instances().launch("after", json!({"placement": {"host": "h1"}})).await?;
    running(&lab, "after").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrading_and_removing_the_agents_stops_no_guest_and_purging_leaves_their_disks() -> anyhow::Result<()> {
    let lab = lab().await?;
    let host = lab.host("h2")?;
    lab.instances().launch("kept", json!({"placement": {"host": "h2"}})).await?;
    let (_, id) = running(&lab, "kept").await?;
    let process = guest_process(host, &id).await?;

    // An upgrade: other processes of the agents, the same one of the guest.
    let before = process_of(host, "cloud-compute-agent").await?;
    host.sh("dpkg -i /root/packages/thecloud-agents_*.deb").await?;
    assert_ne!(process_of(host, "cloud-compute-agent").await?, before);
    assert_eq!(guest_process(host, &id).await?, process);
    lab.host_becomes("h2", "UP", PATIENCE).await?;

    host.sh("dpkg -r thecloud-agents").await?;
    assert_eq!(process_of(host, "cloud-compute-agent").await?, 0);
    assert_eq!(guest_process(host, &id).await?, process, "the guest goes on");
    assert_eq!(host.sh("ls /etc/thecloud/*.toml | wc -l").await?, "3", "what was configured is kept");
    assert_ne!(host.exec("lvmconfig devices/global_filter").await?.status, 0, "LVM's settings are as they were");
    lab.host_becomes("h2", "UNREACHABLE", PATIENCE).await?;

    host.sh("dpkg -P thecloud-agents").await?;
    assert_eq!(host.exec("ls -d /etc/thecloud /var/lib/thecloud/tls /var/lib/thecloud/host-id").await?.stdout, "");
    assert_eq!(guest_process(host, &id).await?, process, "the guest goes on");
    host.sh("lvs --noheadings -o lv_name vg0 | grep vol-").await.context("guests' disks are kept")?;

    // Installed anew it waits, and joins again as itself.
    host.sh("dpkg -i /root/packages/thecloud-agents_*.deb").await?;
    for unit in AGENTS {
        assert_eq!(property(host, unit, "ActiveState").await?, "inactive", "{unit}");
        assert_eq!(property(host, unit, "ConditionResult").await?, "no", "{unit}");
        assert_eq!(property(host, unit, "UnitFileState").await?, "enabled", "{unit}");
    }
    lab.join_again("h2").await?;
    lab.host_becomes("h2", "UP", PATIENCE).await?;
    assert_eq!(running(&lab, "kept").await?, ("h2".to_owned(), id.clone()));
    assert_eq!(guest_process(host, &id).await?, process, "and is taken over");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_starts_with_its_package_and_keeps_its_state() -> anyhow::Result<()> {
    let lab = lab().await?;
    let host = lab.host("h3")?;
    let package = cloud_lab::gateway_package()?;
    host.put(&package, "/root/gateway.deb").await?;
    host.sh("DEBIAN_FRONTEND=noninteractive dpkg -i /root/gateway.deb").await?;
    host.until("curl -sf http://127.0.0.1:8080/health/ready", PATIENCE).await?;
    let process = process_of(host, "cloud-api-gateway").await?;
    assert_eq!(host.sh(&format!("stat -c %U /proc/{process}")).await?, "thecloud");
    assert_eq!(host.sh("stat -c %a:%U /var/lib/thecloud/gateway").await?, "700:thecloud");
    let key = host.sh("cat /var/lib/thecloud/gateway/admin.key").await?;
    // The agents beside it are not disturbed by its user and directory.
    lab.host_becomes("h3", "UP", PATIENCE).await?;

    host.sh("systemctl kill --kill-whom=main --signal=KILL cloud-api-gateway").await?;
    host.until("curl -sf http://127.0.0.1:8080/health/ready", PATIENCE).await?;
    host.sh("dpkg -P thecloud-gateway").await?;
    assert_eq!(process_of(host, "cloud-api-gateway").await?, 0);
    assert_eq!(host.exec("ls /etc/thecloud/api-gateway.toml").await?.stdout, "");
    assert_eq!(host.sh("cat /var/lib/thecloud/gateway/admin.key").await?, key, "the cloud's state is not a package's");
    Ok(())
}
