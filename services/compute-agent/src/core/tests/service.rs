use std::{sync::Arc, time::Duration};

use cloud_domain::{CloudId, Incarnation};
use tokio::time::Instant;

use super::fake::{Fake, GRACE, guest, spec};
use crate::core::{
    Compute, ComputeError, Ended, Found, Hypervisor, HypervisorError, HypervisorEvent, Power, Reason, stop_guest,
};

struct Bench {
    fake: Arc<Fake>,
    compute: Compute,
    cloud: CloudId,
}

fn bench() -> Bench {
    let fake = Arc::new(Fake::default());
    let compute = Compute::new(fake.clone());
    let cloud = CloudId::random();
    compute.set_cloud(cloud);
    Bench { fake, compute, cloud }
}

/// Lets tasks run until `probe` holds; time is the test's own and passes when nothing else happens.
async fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !probe() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn ensuring_twice_starts_once() {
    let Bench { fake, compute, cloud } = bench();
    let spec = spec();
    let one = compute.ensure(cloud, spec.clone()).await.unwrap();
    assert_eq!(one.power(), Power::Running);
    assert!(one.tag.started_at.is_some());
    assert_eq!(compute.ensure(cloud, spec).await.unwrap(), one);
    assert_eq!(fake.steps(), ["define", "start", "tag"]);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_fails_at_any_step_is_done_by_the_next_call() {
    for step in ["define", "start"] {
        let Bench { fake, compute, cloud } = bench();
        let spec = spec();
        fake.fail.lock().unwrap().push(step);
        let error = compute.ensure(cloud, spec.clone()).await.unwrap_err();
        assert!(matches!(error, ComputeError::Hypervisor(HypervisorError::Failed { action, .. }) if action == step));
        assert_eq!(compute.ensure(cloud, spec).await.unwrap().power(), Power::Running);
    }
    // A tag that could not be written does not fail the launch; the observer writes it.
    let Bench { fake, compute, cloud } = bench();
    let spec = spec();
    fake.fail.lock().unwrap().push("tag");
    compute.ensure(cloud, spec.clone()).await.unwrap();
    until("the start is written down", || fake.tagged(spec.id).unwrap().tag.started_at.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_fails_at_any_step_is_done_by_the_next_call() {
    for step in ["power off", "undefine", "remove files"] {
        let Bench { fake, compute, cloud } = bench();
        let spec = spec();
        compute.ensure(cloud, spec.clone()).await.unwrap();
        fake.fail.lock().unwrap().push(step);
        compute.remove(cloud, spec.id).await.unwrap_err();
        compute.remove(cloud, spec.id).await.unwrap();
        assert!(fake.lock().is_empty());
        assert!(matches!(compute.get(cloud, spec.id).await, Err(ComputeError::NotFound(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn how_a_guest_ended_is_remembered_over_a_restart_of_the_hypervisor() {
    let Bench { fake, compute, cloud } = bench();
    let spec = spec();
    compute.ensure(cloud, spec.clone()).await.unwrap();
    fake.ends(spec.id, Ended::GuestShutdown);
    until("the end is written down", || fake.tagged(spec.id).unwrap().tag.ended.is_some()).await;
    fake.change(spec.id, |guest| guest.hypervisor_reason = Reason::Unknown).unwrap();
    let state = compute.ensure(cloud, spec.clone()).await.unwrap();
    assert_eq!((state.power(), state.reason()), (Power::Shutoff, Reason::Ended(Ended::GuestShutdown)));
    // A new incarnation starts afresh.
    let again =
        compute.ensure(cloud, crate::core::GuestSpec { incarnation: Incarnation::random(), ..spec }).await.unwrap();
    assert_eq!((again.power(), again.tag.ended), (Power::Running, None));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_on_another_clouds_guests() {
    let Bench { fake, compute, cloud } = bench();
    let spec = spec();
    let theirs = guest(CloudId::random(), &spec, Power::Shutoff, Reason::Ended(Ended::Crashed));
    fake.lock().insert(spec.id, Found::Tagged(theirs.clone()));
    until("the observer listens", || fake.events.receiver_count() > 0).await;
    fake.events.send(HypervisorEvent::Changed(spec.id)).unwrap();
    fake.events.send(HypervisorEvent::Connected).unwrap();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(compute.list(cloud).await.unwrap(), []);
    assert!(matches!(compute.remove(cloud, spec.id).await, Err(ComputeError::Foreign { .. })));
    assert_eq!(fake.tagged(spec.id), Some(theirs));
    assert!(fake.steps().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_follows_reboots_without_a_reset() {
    let Bench { fake, compute, cloud } = bench();
    let mut spec = spec();
    compute.ensure(cloud, spec.clone()).await.unwrap();
    fake.steps();
    spec.boot_generation = 2;
    assert_eq!(compute.ensure(cloud, spec.clone()).await.unwrap().tag.boot_generation, 1);
    compute.ensure(cloud, spec.clone()).await.unwrap();
    fake.events.send(HypervisorEvent::Rebooted(spec.id)).unwrap();
    until("the reboot is written down", || fake.tagged(spec.id).unwrap().tag.boot_generation == 2).await;
    assert_eq!(fake.tagged(spec.id).unwrap().tag.reboot, None);
    assert_eq!(fake.steps(), ["tag", "reboot", "tag"], "asked once");

    // What is still told of that reboot is not the next one.
    spec.boot_generation = 3;
    fake.events.send(HypervisorEvent::Rebooted(spec.id)).unwrap();
    compute.ensure(cloud, spec.clone()).await.unwrap();
    tokio::time::sleep(GRACE / 2).await;
    assert_eq!(fake.tagged(spec.id).unwrap().tag.boot_generation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_follow_is_reset_once() {
    let Bench { fake, compute, cloud } = bench();
    let mut spec = spec();
    compute.ensure(cloud, spec.clone()).await.unwrap();
    fake.steps();
    spec.boot_generation = 2;
    compute.ensure(cloud, spec.clone()).await.unwrap();
    // The intent is on the guest by the machine's clock, which the test does not own: as if its time had come.
    fake.change(spec.id, |guest| {
        guest.tag.reboot.as_mut().unwrap().force_at -= GRACE;
    })
    .unwrap();
    fake.fail.lock().unwrap().push("tag");
    until("the reboot is written down", || fake.tagged(spec.id).unwrap().tag.boot_generation == 2).await;
    assert_eq!(fake.steps(), ["tag", "reboot", "reset", "tag", "tag"], "a tag that failed does not repeat the reset");
}

#[tokio::test(start_paused = true)]
async fn a_reboot_that_an_agent_left_unfinished_is_finished_by_the_next() {
    let Bench { fake, compute, cloud } = bench();
    let mut spec = spec();
    compute.ensure(cloud, spec.clone()).await.unwrap();
    spec.boot_generation = 2;
    compute.ensure(cloud, spec.clone()).await.unwrap();
    compute.close(GRACE).await;
    fake.change(spec.id, |guest| guest.tag.reboot.as_mut().unwrap().force_at -= GRACE).unwrap();
    fake.steps();

    let next = Compute::new(fake.clone());
    next.set_cloud(cloud);
    until("the reboot is written down", || fake.tagged(spec.id).unwrap().tag.boot_generation == 2).await;
    assert_eq!(fake.steps(), ["reset", "tag"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_calls_a_reboot_off() {
    let Bench { fake, compute, cloud } = bench();
    let mut spec = spec();
    compute.ensure(cloud, spec.clone()).await.unwrap();
    spec.boot_generation = 2;
    compute.ensure(cloud, spec.clone()).await.unwrap();
    compute.stop(cloud, spec.id, false).await.unwrap();
    tokio::time::sleep(GRACE * 2).await;
    let guest = fake.tagged(spec.id).unwrap();
    assert_eq!((guest.tag.reboot, guest.tag.boot_generation), (None, 1));
    assert!(!fake.steps().contains(&"reset"));
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_when_the_caller_goes_away() {
    let Bench { fake, compute, cloud } = bench();
    let spec = spec();
    let call = compute.ensure(cloud, spec.clone());
    // Polled once, then dropped.
    let _ = tokio::time::timeout(Duration::ZERO, call).await;
    until("the guest runs", || fake.tagged(spec.id).is_some_and(|guest| guest.power == Power::Running)).await;
}

#[tokio::test(start_paused = true)]
async fn stopping_for_the_host_marks_first_and_forces_last() {
    let Bench { fake, compute, cloud } = bench();
    let spec = spec();
    let running = compute.ensure(cloud, spec.clone()).await.unwrap();
    fake.steps();
    assert!(stop_guest(&*fake, &running, Duration::from_secs(7)).await.unwrap(), "it did not follow");
    assert_eq!(fake.steps(), ["tag", "shutdown", "shutdown", "power off"]);
    let stopped = fake.tagged(spec.id).unwrap();
    assert_eq!((stopped.power(), stopped.reason()), (Power::Shutoff, Reason::Unknown));
    assert!(!stop_guest(&*fake, &stopped, GRACE).await.unwrap(), "it is off");
    assert!(fake.steps().is_empty());
    assert_eq!(compute.ensure(cloud, spec.clone()).await.unwrap().power(), Power::Running);
    assert!(!fake.tagged(spec.id).unwrap().tag.host_stop);
    assert!(fake.is_connected());
}
