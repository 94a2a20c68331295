//! Lives that between them make every call and every commit that reconcilers can make. Each ends with nothing left.

use std::time::Duration;

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    model::{
        Image, ImageSource, ImageStatus, Instance, Labels, Snapshot, SnapshotStatus, Visibility, Volume, VolumeStatus,
    },
    ports::{GuestPower, GuestReason, Store},
    services::{Launch, NewImage, NewSnapshot, NewSubnet, NewVolume, NewVpc, Settings},
};
use cloud_domain::{Incarnation, InstanceStatus};
use uuid::Uuid;

use super::{attachments, cloud::Cloud, host::Start, limits, live, mishaps};

/// A life, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Launched, stopped, started, rebooted, deleted.
    Instance,
    /// A volume that was attached, and is deleted with what was written to it.
    Volume,
    /// Volumes that are attached and detached, under a guest that runs and under none, in vain, and while other things happen.
    Attachment,
    /// Limits of volumes that change, under a guest that runs and under none, and behind the gateway's back.
    Limits,
    /// Snapshots of a volume in use, copies of them and of it, and volumes that grow under a guest and without one.
    Snapshot,
    /// Images that are imported, one of them in vain; one that is deleted before the last disk made from it.
    Image,
    /// A VPC whose hosts are told of a subnet that comes and one that goes.
    Network,
    /// A guest that the hypervisor cannot start, until time is up.
    Hopeless,
    /// Guests that change behind the gateway's back: gone, shut down, another start.
    Drift,
    /// Data that are missing, and are there again.
    Lost,
    /// What no row knows on a host.
    Strangers,
    /// A port that was unplugged.
    Unplugged,
    /// A database that contradicts itself.
    Contradictions,
    /// A host that is drained, dies and comes back.
    Host,
}

impl Life {
    pub const ALL: [Self; 14] = [
        Self::Instance,
        Self::Volume,
        Self::Attachment,
        Self::Limits,
        Self::Snapshot,
        Self::Image,
        Self::Network,
        Self::Hopeless,
        Self::Drift,
        Self::Lost,
        Self::Strangers,
        Self::Unplugged,
        Self::Contradictions,
        Self::Host,
    ];

    /// A cloud to be lived in.
    pub async fn cloud(self) -> Cloud {
        let settings = Settings { heartbeat_timeout: Duration::from_secs(600), ..Settings::default() };
        match self {
            Self::Hopeless => Cloud::with(Settings { start_timeout: Duration::from_millis(600), ..settings }).await,
            Self::Contradictions => {
                Cloud::with(Settings { audit_interval: Duration::from_millis(200), ..settings }).await
            }
            Self::Host => {
                let silence = Duration::from_secs(3);
                Cloud::with(Settings { heartbeat_timeout: silence, fence_after: silence, ..settings }).await
            }
            _ => Cloud::with(settings).await,
        }
    }

    pub async fn live(self, cloud: &mut Cloud) {
        match self {
            Self::Instance => live(cloud).await,
            Self::Volume => volume(cloud).await,
            Self::Attachment => attachments::attachments(cloud).await,
            Self::Limits => limits::limits(cloud).await,
            Self::Snapshot => snapshot(cloud).await,
            Self::Image => image(cloud).await,
            Self::Network => network(cloud).await,
            Self::Hopeless => hopeless(cloud).await,
            Self::Drift => drift(cloud).await,
            Self::Lost => mishaps::lost(cloud).await,
            Self::Strangers => mishaps::strangers(cloud).await,
            Self::Unplugged => mishaps::unplugged(cloud).await,
            Self::Contradictions => mishaps::contradictions(cloud).await,
            Self::Host => mishaps::host(cloud).await,
        }
        cloud.check().await;
        let state = cloud.host.state();
        assert!(state.domains.is_empty() && state.vpcs.is_empty(), "{state:?}");
    }
}

pub async fn deleted(cloud: &mut Cloud, made: &Instance) {
    cloud.services().instances.delete(cloud.caller(), &made.meta.id.to_string(), "").await.unwrap();
    cloud.becomes(made, InstanceStatus::Deleted).await;
}

async fn volume(cloud: &mut Cloud) {
    let new = |name: &str| NewVolume { name: name.into(), size_gib: 1, ..NewVolume::default() };
    let volume = cloud.services().volumes.create(cloud.caller(), new("data")).await.unwrap();
    let blank = cloud.services().volumes.create(cloud.caller(), new("blank")).await.unwrap();
    let made = cloud.launch("web-01", &["data"]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    deleted(cloud, &made).await;
    assert!(cloud.host.state().volumes.contains_key(&volume.id()));
    for id in [volume.meta.id, blank.meta.id] {
        cloud.services().volumes.delete(cloud.caller(), &id.to_string(), "").await.unwrap();
        let gone = |store: SqlStore| async move {
            store.get::<Volume>(id).await.unwrap().unwrap().status == VolumeStatus::Deleted
        };
        cloud.reaches("deleted", gone).await;
    }
    assert!(cloud.host.state().volumes.is_empty());
}

async fn volume_is(cloud: &mut Cloud, id: Uuid, what: &str, done: fn(&Volume) -> bool) -> Volume {
    let is = |store: SqlStore| async move { done(&store.get::<Volume>(id).await.unwrap().unwrap()) };
    cloud.reaches(what, is).await;
    cloud.store().get(id).await.unwrap().unwrap()
}

async fn snapshot_is(cloud: &mut Cloud, id: Uuid, status: SnapshotStatus) {
    let is = |store: SqlStore| async move { store.get::<Snapshot>(id).await.unwrap().unwrap().status == status };
    cloud.reaches(status.as_str(), is).await;
}

async fn snapshot(cloud: &mut Cloud) {
    let new = |name: &str| NewVolume { name: name.into(), size_gib: 1, ..NewVolume::default() };
    let data = cloud.services().volumes.create(cloud.caller(), new("data")).await.unwrap();
    let made = cloud.launch("web-01", &["data"]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;

    cloud.host.state().stumbles.push("storage.ensure_snapshot");
    let taken = NewSnapshot { name: "before".into(), volume: "data".into(), ..NewSnapshot::default() };
    let taken = cloud.services().snapshots.create(cloud.caller(), taken).await.unwrap();
    snapshot_is(cloud, taken.meta.id, SnapshotStatus::Available).await;

    cloud.host.state().stumbles.push("storage.ensure_volume");
    let restored = NewVolume { snapshot: "before".into(), ..new("restored") };
    let restored = cloud.services().volumes.create(cloud.caller(), restored).await.unwrap();
    volume_is(cloud, restored.meta.id, "made", |row| row.status == VolumeStatus::Available).await;
    let copy = NewVolume { volume: "data".into(), ..new("copy") };
    let copy = cloud.services().volumes.create(cloud.caller(), copy).await.unwrap();
    volume_is(cloud, copy.meta.id, "made", |row| row.status == VolumeStatus::Available).await;

    // Under a guest, without one, and in vain.
    for (id, size) in [(data.meta.id, 3), (restored.meta.id, 2)] {
        cloud.services().volumes.resize(cloud.caller(), &id.to_string(), "", size).await.unwrap();
        let row = volume_is(cloud, id, "grown", |row| row.growing_to.is_none()).await;
        assert_eq!((row.size.get(), row.status_reason.as_str()), (size, ""));
        assert_eq!(cloud.host.state().grown[&id.into()], u64::from(size) << 30);
    }
    assert_eq!(cloud.host.state().told.keys().copied().collect::<Vec<_>>(), [data.id()]);
    assert_eq!(cloud.row(&made).await.disks[1].size.get(), 3, "its instance shows it");
    cloud.host.state().full = true;
    cloud.services().volumes.resize(cloud.caller(), "copy", "", 9).await.unwrap();
    let row = volume_is(cloud, copy.meta.id, "given up", |row| row.growing_to.is_none()).await;
    assert!(row.size.get() == 1 && row.status_reason.contains("the pool is full"), "{row:?}");

    // Somebody takes a snapshot's data away, and puts them back.
    cloud.host.state().snapshots.remove(&taken.id());
    cloud.register_again().await;
    snapshot_is(cloud, taken.meta.id, SnapshotStatus::Error).await;
    cloud.host.state().snapshots.insert(taken.id(), data.id());
    cloud.register_again().await;
    snapshot_is(cloud, taken.meta.id, SnapshotStatus::Available).await;

    deleted(cloud, &made).await;
    for id in [data.meta.id, copy.meta.id] {
        cloud.services().volumes.delete(cloud.caller(), &id.to_string(), "").await.unwrap();
        volume_is(cloud, id, "deleted", |row| row.status == VolumeStatus::Deleted).await;
    }
    cloud.services().snapshots.delete(cloud.caller(), "before", "").await.unwrap();
    snapshot_is(cloud, taken.meta.id, SnapshotStatus::Deleted).await;
    assert!(cloud.host.state().snapshots.is_empty());
    cloud.services().volumes.delete(cloud.caller(), "restored", "").await.unwrap();
    volume_is(cloud, restored.meta.id, "deleted", |row| row.status == VolumeStatus::Deleted).await;
    assert!(cloud.host.state().volumes.is_empty());
}

async fn imported(cloud: &mut Cloud, name: &str, source: ImageSource, status: ImageStatus) -> Uuid {
    let new = NewImage {
        name: name.into(),
        source,
        format: None,
        sha256: String::new(),
        visibility: Visibility::Private,
        labels: Labels::new(),
        architecture: "x86_64".into(),
    };
    let id = cloud.services().images.import(cloud.caller(), new).await.unwrap().meta.id;
    becomes(cloud, id, status).await;
    id
}

async fn becomes(cloud: &mut Cloud, id: Uuid, status: ImageStatus) {
    let is = |store: SqlStore| async move { store.get::<Image>(id).await.unwrap().unwrap().status == status };
    cloud.reaches(status.as_str(), is).await;
}

async fn image(cloud: &mut Cloud) {
    imported(cloud, "bad", ImageSource::File("nowhere".into()), ImageStatus::Error).await;
    cloud.until("what an attempt may have kept is removed", |state| state.calls.contains(&"images.remove")).await;
    let url = ImageSource::Url("http://images.example/good".into());
    let id = imported(cloud, "good", url, ImageStatus::Ready).await;
    let launch =
        Launch { name: "web-01".into(), image: "good".into(), instance_type: "tiny".into(), ..Launch::default() };
    let made = cloud.services().instances.launch(cloud.caller(), launch).await.unwrap();
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.services().images.delete(cloud.caller(), "good", "").await.unwrap();
    becomes(cloud, id, ImageStatus::Deleted).await;
    deleted(cloud, &made).await;
    cloud.reaches("gone from the host", |_| async { true }).await;
    cloud.until("the image is gone", |state| state.images.is_empty()).await;
}

async fn network(cloud: &mut Cloud) {
    let vpcs = &cloud.services().vpcs;
    vpcs.create(cloud.caller(), NewVpc { name: "net".into(), ..NewVpc::default() }).await.unwrap();
    let launch = Launch {
        name: "web-01".into(),
        image: "tiny".into(),
        instance_type: "tiny".into(),
        vpc: "net".into(),
        ..Launch::default()
    };
    let made = cloud.services().instances.launch(cloud.caller(), launch).await.unwrap();
    cloud.becomes(&made, InstanceStatus::Running).await;
    let second =
        NewSubnet { vpc: "net".into(), name: "second".into(), cidr: "10.0.1.0/24".into(), ..NewSubnet::default() };
    cloud.services().vpcs.create_subnet(cloud.caller(), second).await.unwrap();
    cloud.reaches("told of the subnet", |_| async { true }).await;
    assert_eq!(cloud.host.state().subnets[&made.nics[0].vpc], 2);
    cloud.services().vpcs.delete_subnet(cloud.caller(), "net", "second", "").await.unwrap();
    cloud.reaches("told that it is gone", |_| async { true }).await;
    assert_eq!(cloud.host.state().subnets[&made.nics[0].vpc], 1);
    deleted(cloud, &made).await;
    cloud.reaches("told that the instance is gone", |_| async { true }).await;
    cloud.services().vpcs.delete(cloud.caller(), "net", "").await.unwrap();
}

async fn hopeless(cloud: &mut Cloud) {
    cloud.host.state().start = Some(Start::Fails);
    let made = cloud.launch("web-01", &[]).await;
    cloud.settled(&made, "cleaned", |r| r.status == InstanceStatus::Error && !r.holds_capacity).await;
    assert!(cloud.host.state().volumes.is_empty());
    deleted(cloud, &made).await;
}

async fn drift(cloud: &mut Cloud) {
    let made = cloud.launch("web-01", &[]).await;
    let first = cloud.becomes(&made, InstanceStatus::Running).await;
    // Somebody removes it.
    cloud.host.state().domains.remove(&made.id());
    cloud.host.changed(made.id());
    let again = |row: &Instance| row.status == InstanceStatus::Running && row.incarnation != first.incarnation;
    cloud.settled(&made, "started again", again).await;
    // Another start of it turns up.
    let other = Incarnation::random();
    cloud.host.state().domains.get_mut(&made.id()).unwrap().incarnation = other;
    cloud.host.changed(made.id());
    cloud.settled(&made, "adopted", |row| row.status == InstanceStatus::Running && row.incarnation == other).await;
    // It shuts itself down.
    {
        let mut state = cloud.host.state();
        let domain = state.domains.get_mut(&made.id()).unwrap();
        (domain.power, domain.reason) = (GuestPower::Shutoff, GuestReason::GuestShutdown);
    }
    cloud.host.changed(made.id());
    cloud.becomes(&made, InstanceStatus::Stopped).await;
    deleted(cloud, &made).await;
}
