//! Guests on hosts of the lab.

use cloud_lab::{Lab, Wire};
use serde_json::json;

use crate::{BOOT, PATIENCE, becomes, guest_process, lab, running, until};

/// Says again and again whom the guest pings, with the largest packet of MTU 1450: `pings 2 3`.
const LOOK: &str = r#"#!/bin/sh
prefix=$(ip -o -4 addr show eth0 | awk '{ split($4, a, "."); print a[1] "." a[2] "." a[3] }')
while true; do
    seen=
    for last in 2 3; do
        if ping -c 1 -W 1 -s 1422 "$prefix.$last" > /dev/null 2>&1; then seen="$seen $last"; fi
    done
    echo "pings$seen"
    sleep 1
done
"#;

/// Waits until a guest says, in a line that it had not written before, whom it pings.
async fn pings(lab: &Lab, name: &str, view: &str) -> anyhow::Result<()> {
    let lines = |log: &str| {
        log.lines().filter(|line| line.starts_with("pings")).map(|l| l.trim().to_owned()).collect::<Vec<_>>()
    };
    let before = lines(&lab.instances().log(name).await?).len();
    until(&format!("{name} to say `{view}`"), BOOT, || async {
        let said = lines(&lab.instances().log(name).await?);
        let last = said.into_iter().skip(before).last().unwrap_or("nothing new".to_owned());
        Ok(if last == view { Ok(()) } else { Err(last) })
    })
    .await
    .map_err(|error| lab.with_logs(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_run_under_kvm_and_reach_each_other_over_geneve() -> anyhow::Result<()> {
    let lab = lab().await?;
    let mut guests = Vec::new();
    for (name, on) in [("first", "h1"), ("second", "h2")] {
        lab.instances().launch(name, json!({"user_data": LOOK, "placement": {"host": on}})).await?;
        guests.push((name, on));
    }
    for (name, on) in guests {
        let (host, id) = running(&lab, name).await?;
        assert_eq!(host, on);
        let host = lab.host(on)?;
        let process = guest_process(host, &id).await?;
        let arguments = host.sh(&format!("tr '\\0' ' ' < /proc/{process}/cmdline")).await?;
        assert!(arguments.contains("accel=kvm") || arguments.contains("-accel kvm"), "{arguments}");
        let domain = host.sh(&format!("virsh -q -c qemu:///system dumpxml cloud-{id}")).await?;
        assert!(domain.contains("<domain type='kvm'"), "{domain}");
        let datapath = host.sh("ovs-appctl dpctl/show").await?;
        assert!(datapath.contains("system@ovs-system") && datapath.contains("genev_sys"), "{datapath}");
    }
    pings(&lab, "first", "pings 2 3").await?;
    pings(&lab, "second", "pings 2 3").await?;

    // What they say to each other goes over that cable, and over no other.
    lab.host("h2")?.cut(Wire::Underlay).await?;
    pings(&lab, "first", "pings 2").await?;
    assert_eq!(lab.seen("h2").await?["state"], "UP", "the gateway still reaches it");
    lab.host("h2")?.mend(Wire::Underlay).await?;
    pings(&lab, "first", "pings 2 3").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_loses_power_comes_back_with_its_guests() -> anyhow::Result<()> {
    let lab = lab().await?;
    let all = [("first", "h1", "NEVER"), ("second", "h2", "ALWAYS"), ("third", "h2", "NEVER"), ("off", "h2", "ALWAYS")];
    for (name, on, policy) in all {
        let looks = if name == "first" || name == "second" { LOOK } else { "#!/bin/sh\ntrue\n" };
        let body = json!({"user_data": looks, "restart_policy": policy, "placement": {"host": on}});
        lab.instances().launch(name, body).await?;
        // One after the other: their addresses are in the order of their launches.
        running(&lab, name).await?;
    }
    lab.rest.post("/instances/off/stop", &json!({})).await?.expect(200)?;
    becomes(&lab, "off", "STOPPED").await?;
    pings(&lab, "first", "pings 2 3").await?;
    let host = lab.host("h2")?;
    let boot = host.sh("cat /proc/sys/kernel/random/boot_id").await?;

    host.power_cut().await?;
    let seen = lab.host_becomes("h2", "UNREACHABLE", PATIENCE).await?;
    assert!(seen["state_reason"].as_str().unwrap_or_default().contains("silent"), "{seen}");
    let second = lab.instances().get("second").await?;
    assert_eq!(
        (&second["status"], &second["host_reachable"]),
        (&json!("RUNNING"), &json!(false)),
        "silence changes no status"
    );
    pings(&lab, "first", "pings 2").await?;

    host.power_on().await?;
    lab.host_becomes("h2", "UP", PATIENCE).await?;
    assert_ne!(host.sh("cat /proc/sys/kernel/random/boot_id").await?, boot);
    assert_eq!(host.sh("lvs --noheadings -o lv_health_status vg0/thin").await?, "", "the pool is healthy");
    // Powered off by their host, they start again, whatever their policy; the one that its user stopped does not.
    for name in ["second", "third"] {
        let (on, id) = running(&lab, name).await?;
        assert_eq!(on, "h2");
        until(&format!("a process of {name}"), PATIENCE, || async {
            Ok(guest_process(host, &id).await.map_err(|error| format!("{error:#}")))
        })
        .await?;
    }
    pings(&lab, "first", "pings 2 3").await?;
    pings(&lab, "second", "pings 2 3").await?;
    assert_eq!(lab.instances().get("off").await?["status"], "STOPPED");
    Ok(())
}
