//! What dies and what must not: the agent, libvirtd, the guest itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use cloud_contracts::agent::{PowerState, StateReason, WatchInstancesRequest, WatchInstancesResponse};
use cloud_domain::Incarnation;
use support::{Host, LONG, SHORT, off, reason, until};
use tokio::time::timeout;
use tonic::{Code, Streaming};

async fn watch(host: &Host) -> Streaming<WatchInstancesResponse> {
    host.streams().watch_instances(WatchInstancesRequest {}).await.unwrap().into_inner()
}

/// Waits for the watch to name the guest when it has this power.
async fn told(host: &Host, watch: &mut Streaming<WatchInstancesResponse>, id: &str, power: PowerState) {
    loop {
        let change = timeout(LONG, watch.message()).await.unwrap().unwrap().unwrap();
        if change.id == id && host.get(id).await.unwrap().power() == power {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_outlive_the_agent() {
    let mut host = Host::start().await;
    let spec = host.spec("");
    let id = spec.id.clone();
    let domain = format!("cloud-{id}");
    let started = host.ensure(&spec).await.unwrap();
    let process = host.libvirt.qemu_pid(&domain);

    host.kill_agent();
    host.start_agent().await;
    assert_eq!(host.ensure(&spec).await.unwrap(), started, "adopted as it is");
    host.says(&id, "tiny: ready", 1).await;
    host.terminate_agent().await;
    host.start_agent().await;
    assert_eq!(host.get(&id).await.unwrap(), started);
    assert_eq!(host.libvirt.qemu_pid(&domain), process);
    let memory = host.agent_memory();
    assert!(memory < 10 * 1024, "the agent idles at {memory} KiB");

    // A guest that ends while no agent looks: the new one finds out, and does not start it.
    host.kill_agent();
    host.libvirt.virsh(&["destroy", &domain]);
    host.start_agent().await;
    off(&host.ensure(&spec).await.unwrap(), StateReason::Destroyed);
    host.remove(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_outlive_libvirtd_and_the_agent_comes_back_to_it() {
    let mut host = Host::start().await;
    let spec = host.spec("");
    let id = spec.id.clone();
    let domain = format!("cloud-{id}");
    host.ensure(&spec).await.unwrap();
    host.says(&id, "tiny: ready", 1).await;
    let before = host.get(&id).await.unwrap();
    let process = host.libvirt.qemu_pid(&domain);
    let mut changes = watch(&host).await;

    host.libvirt.kill_daemon();
    let end = async {
        while changes.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    assert_eq!(timeout(SHORT, end).await.unwrap().unwrap_err().code(), Code::Unavailable);
    // Nothing is known of a guest; least of all that it is gone.
    let error = host.get(&id).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::Unavailable, "HYPERVISOR_UNAVAILABLE"));
    assert_eq!(host.ensure(&spec).await.unwrap_err().code(), Code::Unavailable);
    until("heartbeats tell", SHORT, async || (!host.gateway.healthy()).then_some(())).await;
    assert!(host.gateway.capacity().is_some(), "the host keeps its size");

    host.libvirt.start_daemon().await;
    until("heartbeats tell", SHORT, async || host.gateway.healthy().then_some(())).await;
    assert_eq!(host.get(&id).await.unwrap(), before);
    assert_eq!(host.libvirt.qemu_pid(&domain), process);
    let mut changes = watch(&host).await;
    host.stop(&id, false).await.unwrap();
    told(&host, &mut changes, &id, PowerState::Shutoff).await;

    // libvirt forgets how a guest ended when it restarts; the tag does not.
    until("the end is on the domain", SHORT, async || {
        host.libvirt.virsh(&["dumpxml", &domain]).contains("ended=\"guest-shutdown\"").then_some(())
    })
    .await;
    host.libvirt.kill_daemon();
    host.libvirt.start_daemon().await;
    until("heartbeats tell", SHORT, async || host.gateway.healthy().then_some(())).await;
    until("libvirt answers", SHORT, async || host.get(&id).await.ok()).await;
    assert!(!host.libvirt.virsh(&["domstate", "--reason", &domain]).contains("shutdown"), "libvirt has forgotten");
    off(&host.ensure(&spec).await.unwrap(), StateReason::GuestShutdown);
    host.remove(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libvirtd_that_hangs_is_unhealthy_and_recovers() {
    let host = Host::start().await;
    let spec = host.blank_spec("");
    host.ensure(&spec).await.unwrap();
    host.libvirt.freeze(true);
    until("heartbeats tell", SHORT, async || (!host.gateway.healthy()).then_some(())).await;
    let error = host.get(&spec.id).await.unwrap_err();
    assert!(matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded), "{error}");
    host.libvirt.freeze(false);
    until("heartbeats tell", LONG, async || host.gateway.healthy().then_some(())).await;
    host.is(&spec.id, PowerState::Running).await;
    host.remove(&spec.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ends_by_itself_is_told_within_a_second() {
    let host = Host::start().await;
    let mut spec = host.spec("#!/bin/sh\npoweroff\n");
    let id = spec.id.clone();
    let domain = format!("cloud-{id}");
    let mut changes = watch(&host).await;
    host.ensure(&spec).await.unwrap();
    told(&host, &mut changes, &id, PowerState::Shutoff).await;
    off(&host.ensure(&spec).await.unwrap(), StateReason::GuestShutdown);

    // Its process dies.
    spec.incarnation = Incarnation::random().to_string();
    host.ensure(&spec).await.unwrap();
    told(&host, &mut changes, &id, PowerState::Running).await;
    let pid = host.libvirt.qemu_pid(&domain).to_string();
    support::run("kill", &["-KILL", &pid]);
    // libvirt believes it when the process is gone altogether, which an init that is slow to reap can delay.
    until("the process is gone", SHORT, async || (!Path::new("/proc").join(&pid).exists()).then_some(())).await;
    let gone = Instant::now();
    told(&host, &mut changes, &id, PowerState::Crashed).await;
    assert!(gone.elapsed() < Duration::from_secs(1), "{:?}", gone.elapsed());
    let state = host.ensure(&spec).await.unwrap();
    assert_eq!((state.power(), state.reason()), (PowerState::Crashed, StateReason::Crashed));
    host.remove(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_taken_down_starts_its_guests_again() {
    let mut host = Host::start().await;
    let (spec, deaf) = (host.spec(""), host.blank_spec(""));
    host.ensure(&spec).await.unwrap();
    host.ensure(&deaf).await.unwrap();
    host.says(&spec.id, "tiny: ready", 1).await;
    let printed = host.guests(&["stop", "--all-of-host-state", "--grace", "8"]);
    assert!(printed.contains(&format!("{} shut down", spec.id)), "{printed}");
    assert!(printed.contains(&format!("{} powered off", deaf.id)), "{printed}");
    off(&host.get(&spec.id).await.unwrap(), StateReason::Unspecified);
    host.kill_agent();
    host.libvirt.kill_daemon();
    host.libvirt.start_daemon().await;
    host.start_agent().await;
    for spec in [&spec, &deaf] {
        off(&host.get(&spec.id).await.unwrap(), StateReason::Unspecified);
        assert_eq!(host.ensure(spec).await.unwrap().power(), PowerState::Running, "under the same incarnation");
    }
    let cloud = host.cloud().to_string();
    let printed = host.guests(&["remove", "--cloud-id", &cloud]);
    assert_eq!(printed.matches(" removed").count(), 2, "{printed}");
    assert_eq!(host.libvirt.virsh(&["list", "--all", "--name"]).trim(), "");
}
