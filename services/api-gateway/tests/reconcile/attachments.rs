//! A life of volumes that come to guests and leave them.

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    CoreError,
    model::{Instance, Volume, VolumeStatus},
    ports::{GuestPower, GuestReason, Store},
    services::NewVolume,
};
use cloud_domain::InstanceStatus;

use super::{cloud::Cloud, lives::deleted};

/// By its name, a blank volume without a place.
async fn blank(cloud: &Cloud, name: &str) -> Volume {
    let new = NewVolume { name: name.into(), size_gib: 1, ..NewVolume::default() };
    cloud.services().volumes.create(cloud.caller(), new).await.unwrap()
}

async fn attach(cloud: &Cloud, instance: &str, volume: &str) {
    cloud.services().instances.attach_volume(cloud.caller(), instance, "", volume).await.unwrap();
}

async fn detach(cloud: &Cloud, instance: &str, volume: &str) {
    cloud.services().instances.detach_volume(cloud.caller(), instance, "", volume).await.unwrap();
}

/// Waits until the database is so, and nothing is under way.
async fn volume_is(cloud: &mut Cloud, volume: &Volume, what: &str, done: impl Fn(&Volume) -> bool) -> Volume {
    let (id, done) = (volume.meta.id, &done);
    let is = |store: SqlStore| async move { done(&store.get::<Volume>(id).await.unwrap().unwrap()) };
    cloud.reaches(what, is).await;
    cloud.store().get(id).await.unwrap().unwrap()
}

/// The instance has its root disk and these, with nothing under way; so does its guest, where it has one that runs.
async fn has(cloud: &mut Cloud, made: &Instance, names: &[&str]) -> Instance {
    let is = |row: &Instance| {
        let own: Vec<&str> = row.disks.iter().skip(1).map(|disk| disk.name.as_str()).collect();
        own == names && row.disks.iter().all(|disk| disk.change.is_none())
    };
    let row = cloud.settled(made, "with its disks", is).await;
    let state = cloud.host.state();
    let domain = &state.domains[&made.id()];
    if domain.power == GuestPower::Running {
        let wanted: Vec<_> = row.disks.iter().map(|disk| disk.volume).collect();
        assert_eq!(domain.disks, wanted, "the guest's own");
        let kept = Instance::from_record(&domain.record).unwrap();
        assert_eq!(kept.disks, row.disks, "what its host keeps of it");
    }
    row
}

pub async fn attachments(cloud: &mut Cloud) {
    let mut volumes = Vec::new();
    for name in ["a", "b", "c"] {
        volumes.push(blank(cloud, name).await);
    }
    let made = cloud.launch("web-01", &[]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;

    // Hot: a new one, at the second try.
    cloud.host.state().stumbles.push("compute.attach_disk");
    attach(cloud, "web-01", "a").await;
    has(cloud, &made, &["a"]).await;
    let a = volume_is(cloud, &volumes[0], "attached", |row| row.status == VolumeStatus::InUse).await;
    assert_eq!((a.host, a.status_reason.as_str()), (Some(cloud.host_id), ""));
    attach(cloud, "web-01", "b").await;
    has(cloud, &made, &["a", "b"]).await;

    // Away from a guest that holds it for a while, and to another one. What else happens goes on.
    cloud.host.state().hold_disks = true;
    detach(cloud, "web-01", "a").await;
    let told = |row: &Volume| row.status_reason.contains("has not released it yet");
    let held = volume_is(cloud, &volumes[0], "told to be held", told).await;
    assert_eq!((held.status, held.instance), (VolumeStatus::InUse, Some(made.id())));
    let refused = cloud.services().volumes.delete(cloud.caller(), "a", "").await.unwrap_err();
    assert!(matches!(refused, CoreError::Precondition { reason: "VOLUME_ATTACHED", .. }), "{refused}");
    cloud.services().instances.reboot(cloud.caller(), "web-01", "").await.unwrap();
    cloud.host.state().hold_disks = false;
    has(cloud, &made, &["b"]).await;
    volume_is(cloud, &volumes[0], "free", |row| row.status == VolumeStatus::Available).await;
    let other = cloud.launch("web-02", &["a"]).await;
    cloud.becomes(&other, InstanceStatus::Running).await;

    // Cold: one that has data, and one that is made for it; both are there at the next start.
    cloud.stop("web-01").await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;
    detach(cloud, "web-01", "b").await;
    has(cloud, &made, &[]).await;
    volume_is(cloud, &volumes[1], "free", |row| row.status == VolumeStatus::Available).await;
    attach(cloud, "web-01", "c").await;
    attach(cloud, "web-01", "b").await;
    has(cloud, &made, &["c", "b"]).await;
    volume_is(cloud, &volumes[2], "made", |row| row.status == VolumeStatus::InUse).await;
    cloud.services().instances.start(cloud.caller(), "web-01", "").await.unwrap();
    cloud.becomes(&made, InstanceStatus::Running).await;
    has(cloud, &made, &["c", "b"]).await;

    // Asked for, and its host loses power before it is done: it is not a disk of the next start.
    cloud.host.state().hold_disks = true;
    detach(cloud, "web-01", "c").await;
    {
        let mut state = cloud.host.state();
        let domain = state.domains.get_mut(&made.id()).unwrap();
        (domain.power, domain.reason) = (GuestPower::Shutoff, GuestReason::Unknown);
    }
    cloud.host.changed(made.id());
    has(cloud, &made, &["b"]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.host.state().hold_disks = false;

    // Its data are missing: without it, the instance is well.
    cloud.host.state().volumes.remove(&volumes[1].id());
    cloud.register_again().await;
    cloud.becomes(&made, InstanceStatus::Error).await;
    detach(cloud, "web-01", "b").await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    has(cloud, &made, &[]).await;
    let lost = volume_is(cloud, &volumes[1], "free", |row| row.instance.is_none()).await;
    assert_eq!((lost.status, lost.data_missing), (VolumeStatus::Error, true));

    // Deleted in the middle of both.
    cloud.host.state().hold_disks = true;
    attach(cloud, "web-01", "c").await;
    detach(cloud, "web-01", "c").await;
    deleted(cloud, &made).await;
    deleted(cloud, &other).await;
    cloud.host.state().hold_disks = false;
    for volume in &volumes {
        let id = volume.meta.id.to_string();
        cloud.services().volumes.delete(cloud.caller(), &id, "").await.unwrap();
        volume_is(cloud, volume, "deleted", |row| row.status == VolumeStatus::Deleted).await;
    }
    assert!(cloud.host.state().volumes.is_empty());
}
