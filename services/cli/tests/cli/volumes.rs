//! Attaching volumes, detaching them, and limiting what is done with them.

use cloud_contracts::v1::{Instance, InstanceVolume, Volume, instance::Status as State, instance_volume, volume};

use crate::support::{Fake, Run, instance};

fn data(status: volume::Status, instance: &str, reason: &str) -> Volume {
    Volume {
        id: "v-1".into(),
        name: "data".into(),
        status: status.into(),
        instance: instance.into(),
        status_reason: reason.into(),
        ..Volume::default()
    }
}

/// An instance that runs, with the volume in this state.
fn with_data(state: instance_volume::State) -> Instance {
    let data = InstanceVolume { id: "v-1".into(), name: "data".into(), state: state.into(), ..Default::default() };
    Instance { volumes: vec![data], ..instance("db-01", State::Running) }
}

#[tokio::test]
async fn attach_waits_until_the_guest_has_it() {
    use instance_volume::State::{Attached, Attaching};
    let gateway = Fake::start().await;
    gateway.script([with_data(Attaching), with_data(Attaching), with_data(Attached)]);
    gateway.state().volume = [data(volume::Status::InUse, "db-01", "")].into();
    let ended = Run::on(&gateway, "volume attach data db-01 --wait -o json").end().await.with(0);
    assert_eq!((&ended.json()["name"], &ended.json()["instance"]), (&"data".into(), &"db-01".into()));
    let calls = gateway.calls("attach_volume");
    assert!(calls[0].message.contains("id: \"db-01\"") && calls[0].message.contains("volume: \"data\""), "{calls:?}");
    assert!(!calls[0].once.is_empty(), "a change has an id");
    assert_eq!(gateway.calls("watch").len(), 1);
}

#[tokio::test]
async fn attach_says_of_the_volume_why_it_takes_so_long() {
    let gateway = Fake::start().await;
    gateway.script([with_data(instance_volume::State::Attaching)]);
    gateway.state().volume = [data(volume::Status::InUse, "db-01", "is being attached, trying again: no room")].into();
    let ended = Run::on(&gateway, "volume attach data db-01 --wait --timeout 1s").end().await.with(7);
    assert!(ended.stderr.contains("is being attached, trying again: no room"), "{}", ended.stderr);
}

#[tokio::test]
async fn detach_finds_the_instance_and_waits_until_it_is_free() {
    use volume::Status::{Available, InUse};
    let gateway = Fake::start().await;
    gateway.script([with_data(instance_volume::State::Detaching)]);
    let held = data(InUse, "db-01", "its guest has not released it yet");
    gateway.state().volume = [data(InUse, "db-01", ""), held.clone(), held, data(Available, "", "")].into();
    let ended = Run::on(&gateway, "volume detach data --wait -o json").end().await.with(0);
    assert_eq!(ended.json()["status"], "AVAILABLE");
    let calls = gateway.calls("detach_volume");
    assert!(calls[0].message.contains("id: \"db-01\"") && calls[0].message.contains("volume: \"v-1\""), "{calls:?}");
}

#[tokio::test]
async fn detach_of_what_nobody_has_is_a_conflict() {
    let gateway = Fake::start().await;
    gateway.state().volume = [data(volume::Status::Available, "", "")].into();
    let ended = Run::on(&gateway, "volume detach data").end().await.with(4);
    assert!(ended.stderr.contains("volume data is attached to no instance"), "{}", ended.stderr);
    assert!(gateway.calls("detach_volume").is_empty());
}

#[tokio::test]
async fn update_waits_until_the_guest_has_its_limits() {
    let gateway = Fake::start().await;
    let pending = Volume { iops: 100, limits_pending: true, ..data(volume::Status::InUse, "db-01", "") };
    let done = Volume { limits_pending: false, ..pending.clone() };
    gateway.state().volume = [pending.clone(), pending, done].into();
    let ended = Run::on(&gateway, "volume update data --iops 100 --wait -o json").end().await.with(0);
    assert_eq!((&ended.json()["iops"], &ended.json()["limits_pending"]), (&100.into(), &false.into()));
    let calls = gateway.calls("update_volume");
    let sent = &calls[0].message;
    assert!(sent.contains("iops: 100") && sent.contains("paths: [\"iops\"]"), "{sent}");
    assert!(!calls[0].once.is_empty(), "a change has an id");
}

#[tokio::test]
async fn update_that_changes_nothing_is_a_wrong_command_line() {
    let gateway = Fake::start().await;
    Run::on(&gateway, "volume update data").end().await.with(2);
    assert!(gateway.calls("update_volume").is_empty());
}
