//! Lives in which something happens behind the gateway's back: to data, to what a host has, to the database, and to the host itself.

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    model::{Host, HostMode, Instance, Nic, Orphan, Volume, VolumeStatus},
    ports::{GuestPower, GuestReason, Query, Store, Tx},
    services::NewVolume,
};
use cloud_domain::{InstanceId, InstanceStatus};

use super::{cloud::Cloud, host::Domain, lives::deleted};

/// A volume's data are missing, under a guest that is being stopped and under one that runs, and are there again.
pub async fn lost(cloud: &mut Cloud) {
    let new = NewVolume { name: "data".into(), size_gib: 1, ..NewVolume::default() };
    let data = cloud.services().volumes.create(cloud.caller(), new).await.unwrap();
    let made = cloud.launch("web-01", &["data"]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    // The stop ends first.
    cloud.host.state().deaf = true;
    cloud.stop("web-01").await;
    cloud.host.state().volumes.remove(&data.id());
    cloud.register_again().await;
    cloud.becomes(&made, InstanceStatus::Error).await;
    cloud.host.state().deaf = false;
    cloud.host.state().volumes.insert(data.id(), true);
    cloud.register_again().await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;

    cloud.services().instances.start(cloud.caller(), "web-01", "").await.unwrap();
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.host.state().volumes.remove(&data.id());
    cloud.register_again().await;
    cloud.becomes(&made, InstanceStatus::Error).await;
    cloud.host.state().volumes.insert(data.id(), true);
    cloud.register_again().await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    deleted(cloud, &made).await;
    cloud.services().volumes.delete(cloud.caller(), "data", "").await.unwrap();
    let id = data.meta.id;
    let gone = |store: SqlStore| async move {
        store.get::<Volume>(id).await.unwrap().unwrap().status == VolumeStatus::Deleted
    };
    cloud.reaches("the volume is deleted", gone).await;
}

async fn orphans(store: &SqlStore) -> usize {
    store.list::<Orphan>(&Query::default()).await.unwrap().len()
}

/// What was deleted turns up again; a guest that nobody knows comes and goes.
pub async fn strangers(cloud: &mut Cloud) {
    let made = cloud.launch("web-01", &[]).await;
    let root = cloud.becomes(&made, InstanceStatus::Running).await.disks[0].volume;
    let domain = cloud.host.state().domains[&made.id()].clone();
    let domain = Domain { power: GuestPower::Shutoff, reason: GuestReason::Unknown, ports: Vec::new(), ..domain };
    deleted(cloud, &made).await;
    {
        let mut state = cloud.host.state();
        state.domains.insert(made.id(), domain.clone());
        state.volumes.insert(root, true);
    }
    cloud.register_again().await;
    let host = cloud.host.clone();
    let gone = |store: SqlStore| {
        let empty = host.state().domains.is_empty() && host.state().volumes.is_empty();
        async move { empty && orphans(&store).await == 0 }
    };
    cloud.reaches("they are removed", gone).await;

    let stranger = InstanceId::random();
    cloud.host.state().domains.insert(stranger, Domain { disks: Vec::new(), ..domain });
    cloud.register_again().await;
    cloud.reaches("it is shown", |store| async move { orphans(&store).await == 1 }).await;
    cloud.host.state().domains.remove(&stranger);
    cloud.register_again().await;
    cloud.reaches("it is shown no more", |store| async move { orphans(&store).await == 0 }).await;
}

/// A port is unplugged, and the agent believes that it has done what it was told.
pub async fn unplugged(cloud: &mut Cloud) {
    let made = cloud.launch("web-01", &[]).await;
    let row = cloud.becomes(&made, InstanceStatus::Running).await;
    let (vpc, port) = (row.nics[0].vpc, row.nics[0].port);
    cloud.host.state().vpcs.get_mut(&vpc).unwrap().1.clear();
    cloud.register_again().await;
    let host = cloud.host.clone();
    let plugged = |_| std::future::ready(host.state().vpcs.get(&vpc).is_some_and(|(_, ports)| ports.contains(&port)));
    cloud.reaches("it is plugged again", plugged).await;
    deleted(cloud, &made).await;
}

async fn rewrite(cloud: &Cloud, made: &Instance, nics: &[Nic]) {
    let mut tx = cloud.store().begin().await.unwrap();
    let mut row: Instance = tx.get(made.meta.id).await.unwrap().unwrap();
    row.nics = nics.to_vec();
    tx.update(&mut row).await.unwrap();
    tx.commit().await.unwrap();
}

/// The database contradicts itself: a counter, which is corrected, and a row, which is told.
pub async fn contradictions(cloud: &mut Cloud) {
    let made = cloud.launch("web-01", &[]).await;
    let row = cloud.becomes(&made, InstanceStatus::Running).await;
    let id = cloud.host_id;
    let mut tx = cloud.store().begin().await.unwrap();
    tx.set_capacity_used(id, 4, 428).await.unwrap();
    tx.commit().await.unwrap();
    let right = |store: SqlStore| async move {
        let events = store.events(None, Some("host"), None, None, 10).await.unwrap();
        let told = events.iter().filter(|event| event.action == "audit.finding").count();
        (store.capacity_used(id).await.unwrap(), told) == ((1, 128), 1)
    };
    cloud.reaches("the counter is right, and that it was wrong is told once", right).await;

    rewrite(cloud, &made, &[]).await;
    let told = |store: SqlStore| async move {
        let events = store.events(None, Some("port"), None, None, 10).await.unwrap();
        events.iter().any(|event| event.action == "audit.finding" && event.message.contains("has no such NIC"))
    };
    cloud.reaches("the port is told", told).await;
    rewrite(cloud, &made, &row.nics).await;
    deleted(cloud, &made).await;
}

async fn host_is(cloud: &mut Cloud, mode: HostMode) {
    let id = *cloud.host_id.as_uuid();
    let is = |store: SqlStore| async move { store.get::<Host>(id).await.unwrap().unwrap().mode == mode };
    cloud.reaches(mode.as_str(), is).await;
}

/// A host is drained; then it falls silent, is declared dead by the fence command at its second try, and comes back.
pub async fn host(cloud: &mut Cloud) {
    let made = cloud.launch("web-01", &[]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.services().hosts.drain(cloud.caller(), "h1", "").await.unwrap();
    deleted(cloud, &made).await;
    host_is(cloud, HostMode::Cordoned).await;
    cloud.services().hosts.uncordon(cloud.caller(), "h1", "").await.unwrap();

    let made = cloud.launch("web-02", &[]).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    {
        let mut state = cloud.host.state();
        state.off = true;
        state.stumbles.push("fencer.power_off");
    }
    host_is(cloud, HostMode::Fenced).await;
    cloud.becomes(&made, InstanceStatus::Stopped).await;
    cloud.host.state().off = false;
    cloud.register_again().await;
    host_is(cloud, HostMode::Cordoned).await;
    cloud.becomes(&made, InstanceStatus::Running).await;
    cloud.services().hosts.uncordon(cloud.caller(), "h1", "").await.unwrap();
    deleted(cloud, &made).await;
}
