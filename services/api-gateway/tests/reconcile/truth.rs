//! What hosts have, against what they should have. Each scenario leaves the cloud as it found it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{collections::BTreeMap, time::Duration};

use cloud_core::{
    CoreError,
    model::{Desired, Instance, Orphan, OrphanKind, RestartPolicy, Timestamp, Volume, VolumeStatus},
    ports::{GuestPower, GuestReason, Query, Store, Tx},
    services::{Adoption, Launch, NewVolume, PageRequest},
};
use cloud_domain::{Incarnation, InstanceId, InstanceStatus, VolumeId, VpcId};

use super::{
    cloud::{Cloud, PATIENCE, wait},
    host::Domain,
};

/// All of them, one after another.
pub async fn all(cloud: &mut Cloud) {
    a_new_run_of_an_agent_wakes_only_what_differs(cloud).await;
    nothing_is_ordered_before_the_host_said_what_it_has(cloud).await;
    missing_data_are_an_error_until_they_are_back(cloud).await;
    policies_start_guests_again(cloud).await;
    orphans_wait_for_a_person(cloud).await;
    what_was_deleted_is_removed_when_it_turns_up_again(cloud).await;
    a_wiped_network_is_told_again(cloud).await;
}

fn launch(name: &str) -> Launch {
    Launch { name: name.into(), image: "tiny".into(), instance_type: "tiny".into(), ..Launch::default() }
}

async fn delete(cloud: &mut Cloud, row: &Instance) {
    cloud.services().instances.delete(cloud.caller(), &row.meta.id.to_string(), "").await.unwrap();
    cloud.becomes(row, InstanceStatus::Deleted).await;
    cloud.check().await;
}

fn calls(cloud: &Cloud) -> usize {
    cloud.host.state().calls.len()
}

pub async fn a_new_run_of_an_agent_wakes_only_what_differs(cloud: &mut Cloud) {
    let mut made = Vec::new();
    for i in 0..4 {
        made.push(cloud.launch(&format!("same-{i}"), &[]).await);
    }
    for row in &made {
        cloud.becomes(row, InstanceStatus::Running).await;
    }
    cloud.quiet().await;
    let before = calls(cloud);
    cloud.look_again().await;
    cloud.quiet().await;
    assert_eq!(calls(cloud), before, "{:?}", &cloud.host.state().calls[before..]);
    // One differs: it was off when its host came back.
    {
        let mut state = cloud.host.state();
        let domain = state.domains.get_mut(&made[1].id()).unwrap();
        (domain.power, domain.reason) = (GuestPower::Shutoff, GuestReason::Unknown);
    }
    cloud.look_again().await;
    let again = |row: &Instance| row.status == InstanceStatus::Running && row.incarnation != made[1].incarnation;
    cloud.settled(&made[1], "started again", again).await;
    let starts = cloud.host.state().calls[before..].iter().filter(|c| **c == "compute.ensure").count();
    assert_eq!(starts, 1, "{:?}", &cloud.host.state().calls[before..]);
    for row in &made {
        delete(cloud, row).await;
    }
}

pub async fn nothing_is_ordered_before_the_host_said_what_it_has(cloud: &mut Cloud) {
    cloud.quiet().await;
    cloud.host.state().silent = true;
    cloud.register_again().await;
    let before = calls(cloud);
    let made = cloud.launch("early", &[]).await;
    let other = cloud.launch("early-too", &[]).await;
    cloud.services().instances.delete(cloud.caller(), "early-too", "").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(calls(cloud), before, "{:?}", &cloud.host.state().calls[before..]);
    assert!(cloud.view().await.inventoried_at.is_some_and(|at| at < made.meta.created_at), "the last one is older");
    cloud.host.state().silent = false;
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.becomes(&other, InstanceStatus::Deleted).await;
    delete(cloud, &made).await;
}

pub async fn missing_data_are_an_error_until_they_are_back(cloud: &mut Cloud) {
    let new = NewVolume { name: "precious".into(), size_gib: 1, ..NewVolume::default() };
    let data = cloud.services().volumes.create(cloud.caller(), new).await.unwrap();
    let made = cloud.launch("loser", &["precious"]).await;
    let running = cloud.becomes(&made, InstanceStatus::Running).await;
    let volume = |cloud: &Cloud| {
        let store = cloud.store().clone();
        async move { store.get::<Volume>(data.meta.id).await.unwrap().unwrap() }
    };
    let lose = |cloud: &Cloud| assert!(cloud.host.state().volumes.remove(&data.id()).is_some());
    let put_back = |cloud: &Cloud| _ = cloud.host.state().volumes.insert(data.id(), true);

    // Under a guest that runs.
    lose(cloud);
    cloud.look_again().await;
    let row = cloud.becomes(&made, InstanceStatus::Error).await;
    assert!(row.status_reason.contains("`precious`") && row.status_reason.contains("missing"), "{row:?}");
    assert_eq!((row.desired, volume(cloud).await.status), (Desired::Running, VolumeStatus::Error));
    cloud.host.changed(made.id());
    cloud.quiet().await;
    let guest = cloud.host.state().domains[&made.id()].clone();
    assert_eq!((guest.power, guest.incarnation), (GuestPower::Running, running.incarnation), "nothing is done to it");
    assert!(!cloud.host.state().volumes.contains_key(&data.id()), "no blank one in its place");
    put_back(cloud);
    cloud.look_again().await;
    let row = cloud.becomes(&made, InstanceStatus::Running).await;
    assert_eq!((row.incarnation, row.status_reason.as_str()), (running.incarnation, ""));
    assert_eq!(volume(cloud).await.status, VolumeStatus::InUse);

    // Under one that is stopped: it cannot be started, and is STOPPED again when they are back.
    cloud.stop("loser").await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;
    lose(cloud);
    cloud.look_again().await;
    cloud.becomes(&made, InstanceStatus::Error).await;
    cloud.services().instances.start(cloud.caller(), "loser", "").await.unwrap();
    let gave_up = |row: &Instance| row.status == InstanceStatus::Error && row.desired == Desired::Stopped;
    let row = cloud.settled(&made, "given up", gave_up).await;
    assert!(row.status_reason.contains("`precious`"), "{}", row.status_reason);
    put_back(cloud);
    cloud.look_again().await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;
    cloud.services().instances.start(cloud.caller(), "loser", "").await.unwrap();
    cloud.becomes(&made, InstanceStatus::Running).await;
    assert_eq!(volume(cloud).await.status, VolumeStatus::InUse);

    // It is gone when its instance is deleted, and missing no less for that.
    lose(cloud);
    cloud.look_again().await;
    cloud.becomes(&made, InstanceStatus::Error).await;
    delete(cloud, &made).await;
    let row = volume(cloud).await;
    assert_eq!((row.status, row.instance, row.data_missing), (VolumeStatus::Error, None, true));
    put_back(cloud);
    cloud.look_again().await;
    wait("the volume is there", async || volume(cloud).await.status == VolumeStatus::Available).await;
    cloud.services().volumes.delete(cloud.caller(), "precious", "").await.unwrap();
    wait("the volume is deleted", async || volume(cloud).await.status == VolumeStatus::Deleted).await;
}

fn end(cloud: &Cloud, id: InstanceId, reason: GuestReason) {
    {
        let mut state = cloud.host.state();
        let domain = state.domains.get_mut(&id).unwrap();
        domain.power = if reason == GuestReason::Crashed { GuestPower::Crashed } else { GuestPower::Shutoff };
        domain.reason = reason;
    }
    cloud.host.changed(id);
}

pub async fn policies_start_guests_again(cloud: &mut Cloud) {
    use GuestReason::{Crashed, GuestShutdown};
    let runs = |row: &Instance| row.status == InstanceStatus::Running;
    for (policy, reason, again) in [
        (RestartPolicy::Never, Crashed, false),
        (RestartPolicy::OnFailure, GuestShutdown, false),
        (RestartPolicy::OnFailure, Crashed, true),
        (RestartPolicy::Always, GuestShutdown, true),
    ] {
        let request = Launch { restart_policy: policy, ..launch("policy") };
        let made = cloud.services().instances.launch(cloud.caller(), request).await.unwrap();
        let first = cloud.settled(&made, "running", runs).await;
        end(cloud, made.id(), reason);
        if !again {
            let row = cloud.becomes(&made, InstanceStatus::Stopped).await;
            assert_eq!(row.desired, Desired::Stopped, "{policy:?}, {reason:?}");
            delete(cloud, &made).await;
            continue;
        }
        let next = |row: &Instance| runs(row) && row.incarnation != first.incarnation;
        let second = cloud.settled(&made, "started again", next).await;
        // The second time in a row it waits, and says so.
        end(cloud, made.id(), reason);
        let waits = |row: &Instance| row.restart_at.is_some();
        let row = cloud.settled(&made, "waiting", waits).await;
        assert_eq!((row.status, row.desired, row.quick_ends), (InstanceStatus::Stopped, Desired::Running, 2));
        assert!(row.status_reason.contains("2 times in a row: it is started again after 1 s"), "{}", row.status_reason);
        let next = |row: &Instance| runs(row) && row.incarnation != second.incarnation;
        let third = cloud.settled(&made, "started again", next).await;
        assert_eq!(third.status_reason, "");
        // Its user's stop ends it for good, also while it waits.
        end(cloud, made.id(), reason);
        cloud.settled(&made, "waiting", waits).await;
        cloud.stop("policy").await;
        let row = cloud.becomes(&made, InstanceStatus::Stopped).await;
        assert_eq!((row.desired, row.restart_at), (Desired::Stopped, None));
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(cloud.row(&made).await.status, InstanceStatus::Stopped);
        delete(cloud, &made).await;
    }
}

fn ghost(disks: Vec<VolumeId>) -> Domain {
    Domain {
        incarnation: Incarnation::random(),
        power: GuestPower::Running,
        reason: GuestReason::Unknown,
        boot_generation: 0,
        disks,
        limits: BTreeMap::new(),
        ports: Vec::new(),
        started_at: Timestamp::now(),
        record: String::new(),
    }
}

async fn orphans(cloud: &Cloud) -> Vec<Orphan> {
    let page = PageRequest { size: 100, ..PageRequest::default() };
    let mut rows = cloud.services().orphans.list(cloud.caller(), "h1", &page).await.unwrap().rows;
    rows.sort_by_key(|row| row.kind);
    rows
}

pub async fn orphans_wait_for_a_person(cloud: &mut Cloud) {
    let (guest, disk, vpc) = (InstanceId::random(), VolumeId::random(), VpcId::random());
    {
        let mut state = cloud.host.state();
        state.domains.insert(guest, ghost(vec![disk]));
        state.volumes.insert(disk, true);
        state.vpcs.insert(vpc, (3, std::collections::BTreeSet::new()));
    }
    cloud.look_again().await;
    let found = orphans(cloud).await;
    let kinds: Vec<OrphanKind> = found.iter().map(|o| o.kind).collect();
    assert_eq!(kinds, [OrphanKind::Instance, OrphanKind::Volume, OrphanKind::Vpc], "{found:?}");
    assert!(found.iter().all(|o| !o.removing), "{found:?}");
    assert_eq!(cloud.view().await.orphans, 3);
    cloud.look_again().await;
    cloud.quiet().await;
    {
        let state = cloud.host.state();
        assert!(
            state.domains.contains_key(&guest) && state.volumes.contains_key(&disk) && state.vpcs.contains_key(&vpc)
        );
    }
    let events = cloud.store().events(None, None, Some(&found[1].meta.id.to_string()), None, 10).await.unwrap();
    assert_eq!(events.len(), 1, "it is told once: {events:?}");

    // A volume that a guest nobody knows uses is not given to anybody, nor is the guest itself.
    let (services, caller) = (cloud.services().clone(), cloud.caller().clone());
    let adopt = |orphan: String| {
        let adoption = Adoption { host: "h1".into(), orphan, name: "saved".into(), ..Adoption::default() };
        let (services, caller) = (services.clone(), caller.clone());
        async move { services.orphans.adopt(&caller, adoption).await }
    };
    let refused = adopt(disk.to_string()).await.unwrap_err();
    assert!(matches!(refused, CoreError::Precondition { reason: "ORPHAN_IN_USE", .. }), "{refused}");
    let refused = adopt(guest.to_string()).await.unwrap_err();
    assert!(matches!(refused, CoreError::Precondition { reason: "NOT_ADOPTABLE", .. }), "{refused}");
    assert!(matches!(adopt(VolumeId::random().to_string()).await.unwrap_err(), CoreError::NotFound { .. }));

    for id in [guest.to_string(), vpc.to_string()] {
        let removing = services.orphans.remove(&caller, "h1", &id).await.unwrap();
        assert!(removing.removing);
    }
    wait("guest and VPC are removed", async || orphans(cloud).await.len() == 1).await;
    assert!(cloud.host.state().domains.is_empty() && cloud.host.state().vpcs.is_empty());

    adopt(disk.to_string()).await.unwrap();
    assert!(orphans(cloud).await.is_empty());
    let row: Volume = cloud.services().volumes.get(cloud.caller(), "saved").await.unwrap();
    assert_eq!((row.id(), row.status, row.host), (disk, VolumeStatus::Available, Some(cloud.host_id)));
    let made = cloud.launch("savior", &["saved"]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.look_again().await;
    assert!(orphans(cloud).await.is_empty());
    delete(cloud, &made).await;
    cloud.services().volumes.delete(cloud.caller(), "saved", "").await.unwrap();
    cloud.until("the volume is gone", |state| !state.volumes.contains_key(&disk)).await;
}

pub async fn what_was_deleted_is_removed_when_it_turns_up_again(cloud: &mut Cloud) {
    let made = cloud.launch("revenant", &[]).await;
    let root = cloud.becomes(&made, InstanceStatus::Running).await.disks[0].volume;
    let domain = cloud.host.state().domains[&made.id()].clone();
    delete(cloud, &made).await;
    cloud.quiet().await;
    {
        let mut state = cloud.host.state();
        state.domains.insert(made.id(), Domain { ports: Vec::new(), ..domain });
        state.volumes.insert(root, true);
    }
    cloud.look_again().await;
    cloud
        .until("guest and disk are gone", |state| state.domains.is_empty() && !state.volumes.contains_key(&root))
        .await;
    wait("no orphan is left", async || orphans(cloud).await.is_empty()).await;
    assert_eq!(cloud.host.state().violations, Vec::<String>::new());
}

pub async fn a_wiped_network_is_told_again(cloud: &mut Cloud) {
    let made = cloud.launch("wired", &[]).await;
    let row = cloud.becomes(&made, InstanceStatus::Running).await;
    let (vpc, port) = (row.nics[0].vpc, row.nics[0].port);
    let plugged = |state: &super::host::State| state.vpcs.get(&vpc).is_some_and(|(_, ports)| ports.contains(&port));
    cloud.host.state().vpcs.clear();
    cloud.look_again().await;
    cloud.until("the VPC is there again", plugged).await;
    // A port is missing, and the agent believes that it has done what it was told.
    cloud.host.state().vpcs.get_mut(&vpc).unwrap().1.clear();
    cloud.look_again().await;
    cloud.until("the port is plugged again", plugged).await;
    delete(cloud, &made).await;
}

/// A counter that is wrong is corrected, and told.
pub async fn a_wrong_counter_is_corrected(cloud: &mut Cloud) {
    let made = cloud.launch("counted", &[]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    let mut tx = cloud.store().begin().await.unwrap();
    assert!(tx.claim_capacity(cloud.host_id, 3, 300).await.unwrap().is_some());
    tx.commit().await.unwrap();
    assert_eq!(cloud.store().capacity_used(cloud.host_id).await.unwrap(), (4, 428));
    wait("the counter is right", async || cloud.store().capacity_used(cloud.host_id).await.unwrap() == (1, 128)).await;
    wait("it is told", async || {
        let host = cloud.host_id.to_string();
        let events = cloud.store().events(None, Some("host"), Some(&host), None, 10).await.unwrap();
        events.iter().any(|event| event.action == "audit.finding")
    })
    .await;
    // A port whose instance is gone is told, and left to people.
    let mut tx = cloud.store().begin().await.unwrap();
    let mut row: Instance = tx.get(made.meta.id).await.unwrap().unwrap();
    let nics = std::mem::take(&mut row.nics);
    tx.update(&mut row).await.unwrap();
    tx.commit().await.unwrap();
    wait("the port is told", async || {
        let events = cloud.store().events(None, Some("port"), None, None, 10).await.unwrap();
        events.iter().any(|event| event.action == "audit.finding" && event.message.contains("has no such NIC"))
    })
    .await;
    let ports: Vec<cloud_core::model::Port> = cloud.store().list(&Query::default()).await.unwrap();
    assert_eq!(ports.iter().map(cloud_core::model::Port::id).collect::<Vec<_>>(), [nics[0].port]);
    assert!(PATIENCE > Duration::from_secs(1));
}
