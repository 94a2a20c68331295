//! The reconcilers against a host in memory: every call to it is lost once, answered into the void once, and is the last thing that a
//! gateway did before it was killed once; whatever happens, all converges and nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attachments;
mod cloud;
mod coverage;
mod faulty;
mod host;
mod limits;
mod lives;
mod mishaps;
mod truth;

use std::{collections::BTreeMap, time::Duration};

use cloud_core::{
    CoreError,
    model::{Desired, HostCapacity, Timestamp, Volume, VolumeStatus},
    ports::{GuestPower, GuestReason, Store},
    services::{Launch, NewVolume, Settings},
};
use cloud_domain::{HostId, Incarnation, InstanceStatus};
use futures::StreamExt;

use cloud::Cloud;
use host::{Fault, Start};

/// A whole life: launched with a data volume, stopped, started, rebooted, deleted.
async fn live(cloud: &mut Cloud) {
    let volume = NewVolume { name: "data".into(), size_gib: 1, ..NewVolume::default() };
    let volume = cloud.services().volumes.create(cloud.caller(), volume).await.unwrap();
    let made = cloud.launch("web-01", &["data"]).await;
    let row = cloud.becomes(&made, InstanceStatus::Running).await;
    assert!(row.has_run);
    assert_eq!(cloud.host.state().domains[&made.id()].incarnation, row.incarnation);

    cloud.stop("web-01").await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;
    assert_eq!(cloud.host.state().domains[&made.id()].power, GuestPower::Shutoff);
    cloud.check().await;

    cloud.services().instances.start(cloud.caller(), "web-01", "").await.unwrap();
    let second = cloud.becomes(&made, InstanceStatus::Running).await;
    assert_ne!(second.incarnation, row.incarnation);

    cloud.services().instances.reboot(cloud.caller(), "web-01", "").await.unwrap();
    cloud.settled(&made, "rebooted", |row| row.booted_generation == 1).await;
    assert_eq!(cloud.host.state().domains[&made.id()].boot_generation, 1);
    cloud.check().await;

    cloud.services().instances.delete(cloud.caller(), "web-01", "").await.unwrap();
    cloud.becomes(&made, InstanceStatus::Deleted).await;
    cloud.check().await;
    let data: Volume = cloud.store().get(volume.meta.id).await.unwrap().unwrap();
    assert_eq!((data.status, data.instance), (VolumeStatus::Available, None));
    let state = cloud.host.state();
    assert!(state.domains.is_empty() && state.vpcs.is_empty(), "{state:?}");
    assert_eq!(state.volumes.keys().copied().collect::<Vec<_>>(), [data.id()], "the data stay, the root disk goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_without_faults_and_every_step_twice() {
    let mut cloud = Cloud::new().await;
    live(&mut cloud).await;
    let mut cloud = Cloud::new().await;
    cloud.host.state().twice = true;
    live(&mut cloud).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_may_fail_and_every_one_may_be_the_gateways_last() {
    let mut cloud = Cloud::new().await;
    live(&mut cloud).await;
    let calls = cloud.host.state().calls.len();
    let runs = Fault::ALL.into_iter().flat_map(|fault| (0..calls).map(move |at| (at, fault)));
    let faulty = |(at, fault): (usize, Fault)| async move {
        let mut cloud = Cloud::new().await;
        cloud.host.state().fault = Some((at, fault));
        live(&mut cloud).await;
        let hit = cloud.host.state().fault.is_none();
        usize::from(hit)
    };
    let runs =
        runs.map(|run| async move { tokio::spawn(faulty(run)).await.unwrap_or_else(|e| panic!("{run:?}: {e}")) });
    let hits: usize = futures::stream::iter(runs).buffer_unordered(8).fold(0, |a, b| async move { a + b }).await;
    // How often a guest is looked at depends on when its changes are heard of, so the last few calls may not come.
    assert!(hits >= 4 * (calls - 6), "only {hits} of {} faults were met", 4 * calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_deleted_at_any_call_leaves_nothing() {
    // A launch takes six calls: two looks for the image, the image, the disk, the network, the guest.
    for at in 0..6 {
        for fault in Fault::ALL {
            let mut cloud = Cloud::new().await;
            cloud.host.state().fault = Some((at, fault));
            let made = cloud.launch("web-01", &[]).await;
            cloud.until("the fault is met", |state| state.fault.is_none()).await;
            cloud.services().instances.delete(cloud.caller(), "web-01", "").await.unwrap();
            cloud.becomes(&made, InstanceStatus::Deleted).await;
            cloud.check().await;
            let state = cloud.host.state();
            assert!(state.domains.is_empty() && state.vpcs.is_empty() && state.volumes.is_empty(), "{state:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ran_is_cleaned_away_when_time_is_up() {
    let (start_timeout, heartbeat_timeout) = (Duration::from_secs(1), Duration::from_secs(60));
    let settings = Settings { start_timeout, heartbeat_timeout, ..Settings::default() };
    let mut cloud = Cloud::with(settings).await;
    cloud.host.state().start = Some(Start::Fails);
    let made = cloud.launch("web-01", &[]).await;
    let row = cloud.settled(&made, "cleaned", |r| r.status == InstanceStatus::Error && !r.holds_capacity).await;
    assert!(row.status_reason.contains("the hypervisor cannot start it"), "{}", row.status_reason);
    assert_eq!(row.desired, Desired::Cleaned);
    cloud.check().await;
    // A start that was on its way all the time is removed too.
    let ghost = host::Domain {
        incarnation: row.incarnation,
        power: GuestPower::Running,
        reason: GuestReason::Unknown,
        boot_generation: 0,
        disks: Vec::new(),
        limits: BTreeMap::new(),
        ports: Vec::new(),
        started_at: Timestamp::now(),
        record: String::new(),
    };
    cloud.host.state().domains.insert(made.id(), ghost);
    cloud.host.changed(made.id());
    let host = cloud.host.clone();
    cloud.settled(&made, "without a guest", |_| host.state().domains.is_empty()).await;
    cloud.services().instances.delete(cloud.caller(), "web-01", "").await.unwrap();
    cloud.becomes(&made, InstanceStatus::Deleted).await;
    cloud.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_is_not_hurried_by_the_changes_it_causes() {
    let cloud = Cloud::new().await;
    cloud.host.state().start = Some(Start::Fails);
    cloud.launch("web-01", &[]).await;
    let calls = || cloud.host.state().calls.iter().filter(|c| **c == "compute.ensure").count();
    // Backoff from 200 ms allows some five attempts in this time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!((2..=8).contains(&calls()), "{} attempts", calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_stands_still_from_the_start_is_paused() {
    let mut cloud = Cloud::new().await;
    cloud.host.state().start = Some(Start::Pauses);
    let made = cloud.launch("web-01", &[]).await;
    let row = cloud.becomes(&made, InstanceStatus::Paused).await;
    assert!(row.status_reason.contains("does not take its writes"));
    cloud.stop("web-01").await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;
    cloud.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_a_database_does_not_know_is_adopted() {
    let mut cloud = Cloud::new().await;
    let made = cloud.launch("web-01", &[]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    let other = Incarnation::random();
    cloud.host.state().domains.get_mut(&made.id()).unwrap().incarnation = other;
    cloud.host.changed(made.id());
    let row = cloud.settled(&made, "adopted", |r| r.status == InstanceStatus::Running && r.incarnation == other).await;
    assert_eq!(row.desired, Desired::Running);
    assert!(!cloud.host.state().calls.contains(&"compute.stop"), "the guest is not touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_cancels_a_start_keeps_what_the_guest_wrote() {
    let mut cloud = Cloud::new().await;
    let made = cloud.launch("web-01", &[]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    // As if the guest ran and the gateway had not heard of it before it was asked to stop it.
    let mut tx = cloud.store().begin().await.unwrap();
    let mut row = cloud.row(&made).await;
    (row.status, row.has_run) = (InstanceStatus::Starting, false);
    cloud_core::ports::Tx::update(&mut tx, &mut row).await.unwrap();
    cloud_core::ports::Tx::commit(tx).await.unwrap();
    cloud.stop("web-01").await;
    let row = cloud.becomes(&made, InstanceStatus::Stopped).await;
    assert!(row.has_run, "or a start that fails would clean its disks away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_an_image_on_its_way() {
    let mut cloud = Cloud::new().await;
    cloud.host.state().images_stall = true;
    let made = cloud.launch("web-01", &[]).await;
    cloud.until("the image is on its way", |state| state.calls.contains(&"storage.put_image")).await;
    cloud.stop("web-01").await;
    let row = cloud.becomes(&made, InstanceStatus::Stopped).await;
    assert!(!row.has_run);
    cloud.host.state().images_stall = false;
    cloud.services().instances.start(cloud.caller(), "web-01", "").await.unwrap();
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_guest_is_powered_off_after_its_grace() {
    let mut cloud = Cloud::new().await;
    let made = cloud.launch("web-01", &[]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.host.state().deaf = true;
    cloud.stop("web-01").await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;
    assert_eq!(cloud.host.state().domains[&made.id()].reason, GuestReason::Destroyed);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_converge_and_leave_nothing() {
    let mut cloud = Cloud::new().await;
    let names: Vec<String> = (0..20).map(|i| format!("many-{i}")).collect();
    let mut made = Vec::new();
    for name in &names {
        made.push(cloud.launch(name, &[]).await);
    }
    for row in &made {
        cloud.becomes(row, InstanceStatus::Running).await;
    }
    cloud.check().await;
    for name in &names {
        cloud.services().instances.delete(cloud.caller(), name, "").await.unwrap();
    }
    for row in &made {
        cloud.becomes(row, InstanceStatus::Deleted).await;
    }
    cloud.check().await;
    assert!(cloud.host.state().domains.is_empty() && cloud.host.state().volumes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_may_be_killed_at_any_moment() {
    // A life takes as long as its work does: the fewer kills in one, the more lives it takes to see a hundred.
    let lives = (0..84).map(|_| async {
        let mut cloud = Cloud::new().await;
        cloud.murders = 12;
        live(&mut cloud).await;
        cloud.kills
    });
    let lives = lives.map(|life| async move { tokio::spawn(life).await.unwrap() });
    let kills: usize = futures::stream::iter(lives).buffer_unordered(6).fold(0, |a, b| async move { a + b }).await;
    assert!(kills >= 96, "only {kills} kills");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_is_not_waited_for_and_its_return_wakes_its_work() {
    let mut cloud = Cloud::with(Settings { heartbeat_timeout: Duration::from_secs(3), ..Settings::default() }).await;
    let made = cloud.launch("web-01", &[]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let calls = cloud.host.state().calls.len();
    cloud.stop("web-01").await;
    let store = cloud.store().clone();
    let failed = async {
        while store.work_status().await.unwrap().0.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), failed).await.expect("the work waits");
    assert_eq!(cloud.host.state().calls.len(), calls, "an agent that is silent was called");
    assert_eq!(cloud.row(&made).await.status, InstanceStatus::Stopping);
    cloud.heartbeat().await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_image_leaves_its_host_with_the_last_disk_made_from_it() {
    let mut cloud = Cloud::new().await;
    let made = cloud.launch("web-01", &[]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.services().images.delete(cloud.caller(), "tiny", "").await.unwrap();
    cloud.until("the host was asked", |state| state.calls.contains(&"storage.remove_image")).await;
    let again = Launch { name: "web-02".into(), image: "tiny".into(), ..Launch::default() };
    let error = cloud.services().instances.launch(cloud.caller(), again).await.unwrap_err();
    assert!(matches!(error, CoreError::NotFound { .. }), "{error}");
    assert_eq!(cloud.host.state().images.len(), 1, "a disk stands on it");
    cloud.services().instances.delete(cloud.caller(), "web-01", "").await.unwrap();
    cloud.until("the image is gone", |state| state.images.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_away_do_not_hide_the_one_that_is_not() {
    let cloud = Cloud::with(Settings { heartbeat_timeout: Duration::from_secs(2), ..Settings::default() }).await;
    let large = HostCapacity {
        vcpus: 64,
        memory_mib: 1 << 20,
        architecture: "x86_64".into(),
        pools: cloud::pools(),
        ..HostCapacity::default()
    };
    for number in 0..80 {
        cloud::register(cloud.services(), HostId::random(), &format!("away-{number}"), large.clone()).await;
    }
    tokio::time::sleep(Duration::from_millis(2100)).await;
    cloud.heartbeat().await;
    let made = cloud.launch("web-01", &[]).await;
    assert_eq!(made.host_name, "h1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_run_of_an_agent_wakes_only_what_differs() {
    truth::a_new_run_of_an_agent_wakes_only_what_differs(&mut Cloud::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_ordered_before_the_host_said_what_it_has() {
    truth::nothing_is_ordered_before_the_host_said_what_it_has(&mut Cloud::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_data_are_an_error_until_they_are_back() {
    truth::missing_data_are_an_error_until_they_are_back(&mut Cloud::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_start_guests_again() {
    truth::policies_start_guests_again(&mut Cloud::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_wait_for_a_person() {
    truth::orphans_wait_for_a_person(&mut Cloud::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_removed_when_it_turns_up_again() {
    truth::what_was_deleted_is_removed_when_it_turns_up_again(&mut Cloud::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_network_is_told_again() {
    truth::a_wiped_network_is_told_again(&mut Cloud::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_counter_is_corrected() {
    let (audit_interval, heartbeat_timeout) = (Duration::from_millis(300), Duration::from_secs(600));
    let settings = Settings { audit_interval, heartbeat_timeout, ..Settings::default() };
    truth::a_wrong_counter_is_corrected(&mut Cloud::with(settings).await).await;
}
