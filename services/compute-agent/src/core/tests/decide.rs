use cloud_domain::{CloudId, Incarnation};
use proptest::prelude::*;

use super::fake::{guest, spec};
use crate::core::{ComputeError, Ended, EnsureStep, Found, Power, Reason, SpecRecord, Tag, decide_ensure};

#[test]
fn what_is_not_there_is_launched() {
    assert_eq!(decide_ensure(CloudId::random(), &spec(), None).unwrap(), EnsureStep::Launch);
}

#[test]
fn what_a_guest_that_is_off_needs_depends_on_why() {
    let (cloud, spec) = (CloudId::random(), spec());
    let step = |reason, change: fn(&mut Tag)| {
        let mut guest = guest(cloud, &spec, Power::Shutoff, reason);
        change(&mut guest.tag);
        decide_ensure(cloud, &spec, Some(&Found::Tagged(guest))).unwrap()
    };
    for ended in [Ended::GuestShutdown, Ended::Destroyed, Ended::Crashed] {
        assert_eq!(step(Reason::Ended(ended), |_| {}), EnsureStep::Keep);
        assert_eq!(step(Reason::Ended(ended), |tag| tag.host_stop = true), EnsureStep::Launch, "the host stopped it");
    }
    assert_eq!(step(Reason::Unknown, |_| {}), EnsureStep::Launch, "the host or libvirt restarted");
    assert_eq!(step(Reason::Unknown, |tag| tag.ended = Some(Ended::Crashed)), EnsureStep::Keep, "the tag remembers");
    assert_eq!(step(Reason::Unknown, |tag| tag.started_at = None), EnsureStep::Launch, "never started");
    assert_eq!(step(Reason::StartFailed, |_| {}), EnsureStep::Launch);
}

#[test]
fn a_guest_that_runs_is_kept_or_rebooted() {
    let (cloud, spec) = (CloudId::random(), spec());
    for power in [Power::Running, Power::Paused] {
        let found = Found::Tagged(guest(cloud, &spec, power, Reason::Unknown));
        let mut asked = spec.clone();
        assert_eq!(decide_ensure(cloud, &asked, Some(&found)).unwrap(), EnsureStep::Keep);
        asked.boot_generation = 2;
        assert_eq!(decide_ensure(cloud, &asked, Some(&found)).unwrap(), EnsureStep::Reboot);
        asked.boot_generation = 0;
        assert_eq!(decide_ensure(cloud, &asked, Some(&found)).unwrap(), EnsureStep::Keep);
        // It may be on its way to that.
        asked.disks.clear();
        assert_eq!(decide_ensure(cloud, &asked, Some(&found)).unwrap(), EnsureStep::Keep);
        asked.vcpus = 9;
        assert!(matches!(decide_ensure(cloud, &asked, Some(&found)), Err(ComputeError::SpecDiffers { .. })));
    }
}

#[test]
fn another_incarnation_waits_for_the_one_that_runs() {
    let (cloud, spec) = (CloudId::random(), spec());
    let mut asked = spec.clone();
    asked.incarnation = Incarnation::random();
    asked.vcpus = 2;
    let decide = |power, reason| decide_ensure(cloud, &asked, Some(&Found::Tagged(guest(cloud, &spec, power, reason))));
    assert!(matches!(
        decide(Power::Running, Reason::Unknown),
        Err(ComputeError::OtherIncarnationRunning { running, .. }) if running == spec.incarnation
    ));
    assert!(matches!(decide(Power::Paused, Reason::IoError), Err(ComputeError::OtherIncarnationRunning { .. })));
    let off = decide(Power::Shutoff, Reason::Ended(Ended::GuestShutdown));
    assert_eq!(off.unwrap(), EnsureStep::Launch, "with its own specification");
}

#[test]
fn what_is_not_ours_is_refused() {
    let (cloud, spec) = (CloudId::random(), spec());
    for found in [
        Found::Foreign("a guest of somebody".into()),
        Found::Tagged(guest(CloudId::random(), &spec, Power::Shutoff, Reason::Unknown)),
    ] {
        assert!(matches!(decide_ensure(cloud, &spec, Some(&found)), Err(ComputeError::Foreign { .. })));
    }
}

#[test]
fn a_difference_is_named_with_both_values_and_without_secrets() {
    let (cloud, spec) = (CloudId::random(), spec());
    let found = Found::Tagged(guest(cloud, &spec, Power::Shutoff, Reason::Unknown));
    let mut asked = spec.clone();
    asked.vcpus = 4;
    asked.disks[0].path = "/pool/b.qcow2".into();
    asked.disks.push(asked.disks[0].clone());
    asked.seed.user_data = "password".into();
    let error = decide_ensure(cloud, &asked, Some(&found)).unwrap_err().to_string();
    let (_, difference) = error.split_once("specification: ").unwrap();
    assert_eq!(
        difference,
        "vcpus is 1, asked for 4; disks (count) is 1, asked for 2; \
         disks[0].path is /pool/a.qcow2, asked for /pool/b.qcow2; seed.user_data differs"
    );
}

#[test]
fn a_record_survives_its_own_text() {
    let record = SpecRecord::of(&spec());
    let again: SpecRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
    assert_eq!(record.difference(&again), None);
}

proptest! {
    /// Whatever is there, the decision never starts a second copy of a guest and never touches what is not ours.
    #[test]
    fn nothing_that_runs_is_launched(
        power in prop::sample::select(vec![Power::Running, Power::Paused, Power::Shutoff, Power::Crashed]),
        reason in prop::sample::select(vec![
            Reason::Unknown, Reason::StartFailed, Reason::IoError, Reason::NeverStarted,
            Reason::Ended(Ended::Crashed), Reason::Ended(Ended::Destroyed), Reason::Ended(Ended::GuestShutdown),
        ]),
        (same_cloud, same_incarnation, host_stop, started) in any::<(bool, bool, bool, bool)>(),
        generation in 0_u64..4,
    ) {
        let (cloud, spec) = (CloudId::random(), spec());
        let mut guest = guest(cloud, &spec, power, reason);
        guest.tag.host_stop = host_stop;
        if !started {
            guest.tag.started_at = None;
        }
        let mut asked = spec;
        asked.boot_generation = generation;
        if !same_incarnation {
            asked.incarnation = Incarnation::random();
        }
        let caller = if same_cloud { cloud } else { CloudId::random() };
        let active = guest.is_active();
        match decide_ensure(caller, &asked, Some(&Found::Tagged(guest))) {
            Ok(EnsureStep::Launch) => prop_assert!(!active && same_cloud),
            Ok(EnsureStep::Reboot) => prop_assert!(active && same_cloud && same_incarnation && generation > 1),
            Ok(EnsureStep::Keep) => prop_assert!(same_cloud && same_incarnation),
            Err(ComputeError::OtherIncarnationRunning { .. }) => prop_assert!(active && !same_incarnation),
            Err(error) => prop_assert!(!same_cloud, "{}", error),
        }
    }
}
