//! A life of volumes whose limits change.

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    model::{Instance, Volume, VolumeLimits, VolumeStatus},
    ports::{GuestPower, GuestReason, Store},
    services::{NewVolume, VolumeChange},
};
use cloud_domain::{DiskLimits, InstanceStatus, VolumeId};
use uuid::Uuid;

use super::{cloud::Cloud, lives::deleted};

fn of(iops: u32, mb_per_second: u32) -> VolumeLimits {
    VolumeLimits { iops, mb_per_second }
}

async fn limit(cloud: &Cloud, volume: &str, limits: VolumeLimits) -> Volume {
    let change =
        VolumeChange { iops: Some(limits.iops), mb_per_second: Some(limits.mb_per_second), ..VolumeChange::default() };
    cloud.services().volumes.update(cloud.caller(), volume, "", change).await.unwrap()
}

/// Waits until the volume has these limits with nothing under way.
async fn has(cloud: &mut Cloud, volume: Uuid, limits: VolumeLimits) -> Volume {
    let is = |store: SqlStore| async move {
        let row: Volume = store.get(volume).await.unwrap().unwrap();
        row.limits == limits && !row.limits_pending && row.status_reason.is_empty()
    };
    cloud.reaches("limited", is).await;
    cloud.store().get(volume).await.unwrap().unwrap()
}

/// What the guest of an instance may do with a volume; none: it has it not.
fn guests(cloud: &Cloud, instance: &Instance, volume: Uuid) -> Option<DiskLimits> {
    cloud.host.state().domains[&instance.id()].limits.get(&VolumeId::from(volume)).copied()
}

/// Its guest runs, and the host keeps the row as it is.
async fn runs(cloud: &mut Cloud, made: &Instance) {
    let is =
        |row: &Instance| row.status == InstanceStatus::Running && row.disks.iter().all(|disk| disk.change.is_none());
    let row = cloud.settled(made, "running with all its disks", is).await;
    let kept = Instance::from_record(&cloud.host.state().domains[&made.id()].record).unwrap();
    assert_eq!(kept.disks, row.disks, "what its host keeps of it");
    cloud.check().await;
}

pub async fn limits(cloud: &mut Cloud) {
    let new = NewVolume { name: "data".into(), size_gib: 1, limits: of(100, 0), ..NewVolume::default() };
    let data = cloud.services().volumes.create(cloud.caller(), new).await.unwrap().meta.id;
    let made = cloud.launch("web-01", &["data"]).await;
    let root = *made.disks[0].volume.as_uuid();
    runs(cloud, &made).await;
    assert_eq!(guests(cloud, &made, data), Some(of(100, 0).of_disk()), "from its first start");
    assert_eq!(guests(cloud, &made, root), Some(DiskLimits::default()));

    // Under the guest, at the second try; the root disk's too.
    cloud.host.state().stumbles.push("compute.attach_disk");
    assert!(limit(cloud, "data", of(200, 3)).await.limits_pending);
    has(cloud, data, of(200, 3)).await;
    assert_eq!(guests(cloud, &made, data), Some(of(200, 3).of_disk()));
    limit(cloud, &root.to_string(), of(0, 5)).await;
    has(cloud, root, of(0, 5)).await;
    assert_eq!(guests(cloud, &made, root), Some(of(0, 5).of_disk()));
    runs(cloud, &made).await;
    assert_eq!(cloud.host.state().domains.len(), 1, "it is the same guest");

    // Somebody changes them on the host.
    cloud.host.state().domains.get_mut(&made.id()).unwrap().limits.insert(data.into(), DiskLimits::default());
    cloud.register_again().await;
    let (guest, wanted) = (made.id(), of(200, 3).of_disk());
    cloud.until("they are as they were", |state| state.domains[&guest].limits[&data.into()] == wanted).await;
    runs(cloud, &made).await;

    // The host loses power before it is done.
    limit(cloud, "data", of(300, 3)).await;
    {
        let mut state = cloud.host.state();
        let domain = state.domains.get_mut(&made.id()).unwrap();
        (domain.power, domain.reason) = (GuestPower::Shutoff, GuestReason::Unknown);
    }
    cloud.host.changed(made.id());
    has(cloud, data, of(300, 3)).await;
    runs(cloud, &made).await;
    assert_eq!(guests(cloud, &made, data), Some(of(300, 3).of_disk()));

    // Asked for, and stopped; asked for while it is stopped: there is nothing to wait for. All are there at the next start.
    limit(cloud, "data", of(400, 3)).await;
    cloud.stop("web-01").await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;
    has(cloud, data, of(400, 3)).await;
    assert!(!limit(cloud, "data", of(500, 0)).await.limits_pending);
    cloud.services().instances.start(cloud.caller(), "web-01", "").await.unwrap();
    runs(cloud, &made).await;
    assert_eq!(guests(cloud, &made, data), Some(of(500, 0).of_disk()));

    // Away and to another guest, changed as it comes.
    cloud.services().instances.detach_volume(cloud.caller(), "web-01", "", "data").await.unwrap();
    runs(cloud, &made).await;
    let free = has(cloud, data, of(500, 0)).await;
    assert_eq!(free.status, VolumeStatus::Available);
    let other = cloud.launch("web-02", &[]).await;
    runs(cloud, &other).await;
    cloud.services().instances.attach_volume(cloud.caller(), "web-02", "", "data").await.unwrap();
    limit(cloud, "data", of(0, 7)).await;
    has(cloud, data, of(0, 7)).await;
    runs(cloud, &other).await;
    assert_eq!(guests(cloud, &other, data), Some(of(0, 7).of_disk()));

    // Deleted in the middle of it.
    limit(cloud, "data", of(0, 0)).await;
    deleted(cloud, &other).await;
    deleted(cloud, &made).await;
    has(cloud, data, of(0, 0)).await;
    cloud.services().volumes.delete(cloud.caller(), "data", "").await.unwrap();
    let gone = |store: SqlStore| async move {
        store.get::<Volume>(data).await.unwrap().unwrap().status == VolumeStatus::Deleted
    };
    cloud.reaches("deleted", gone).await;
    assert!(cloud.host.state().volumes.is_empty());
}
