//! An instance that shall have nothing left: because it is deleted, or because it could not be provisioned.
//!
//! The order is that of dependence: the guest, then its ports, then its root disk. Claims (name, addresses, capacity) are given back in the
//! transaction that follows, when all of it is gone from the host.

use cloud_domain::InstanceStatus;

use super::{Context, Failure, Outcome, become_status, event, same, target};
use crate::{
    model::{
        AgentRole, Amounts, Desired, Image, Instance, Limited, Port, Timestamp, Volume, VolumeStatus, held_by_instance,
        held_by_volume,
    },
    ports::{Query, Store, StoreError, Tx, WorkItem, WorkKind},
    reconcile::network,
};

pub(super) async fn reconcile<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
) -> Result<Outcome, Failure> {
    context.backends.compute.remove(target(row)).await?;
    if row.desired == Desired::Cleaned && !row.holds_capacity {
        return Ok(Outcome::Done);
    }
    unplug(context, item, row).await?;
    let volumes: Vec<Volume> = context.store.list(&Query::by("instance_id", &row.id())).await?;
    for volume in volumes.iter().filter(|v| goes(v)) {
        if let Some(host) = volume.host {
            context.reach(host, AgentRole::Storage).await?;
            context.backends.storage.remove_volume(host, volume.id(), volume.meta.version).await?;
        }
    }
    release(context, item, row, &volumes).await
}

/// The same where the host was declared dead: nothing is removed from it, and the tombstones remember what is to be if it comes back.
pub(super) async fn abandon<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
) -> Result<Outcome, Failure> {
    if row.desired == Desired::Cleaned && !row.holds_capacity {
        return Ok(Outcome::Done);
    }
    let volumes: Vec<Volume> = context.store.list(&Query::by("instance_id", &row.id())).await?;
    release(context, item, row, &volumes).await
}

/// Whether the volume's data goes: a root disk's does, and that of one which no guest ever saw.
fn goes(volume: &Volume) -> bool {
    volume.root || volume.status == VolumeStatus::Creating
}

/// Takes the ports out of what hosts are told. Their addresses stay claimed.
async fn unplug<S: Store>(context: &Context<S>, item: &WorkItem, row: &Instance) -> Result<(), Failure> {
    let ports: Vec<Port> = context.store.list(&Query::by("instance_id", &row.id())).await?;
    if ports.iter().any(|p| !p.removing) {
        let mut tx = context.begin(item).await?;
        for port in ports.iter().filter(|p| !p.removing) {
            let mut port = same(&mut tx, port).await?;
            port.removing = true;
            tx.update(&mut port).await?;
            tx.bump_generation(port.vpc).await?;
        }
        tx.commit().await?;
    }
    for port in &ports {
        network::apply(context, row.host, port.vpc).await?;
    }
    Ok(())
}

async fn release<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Instance,
    volumes: &[Volume],
) -> Result<Outcome, Failure> {
    let now = Timestamp::now();
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, read).await?;
    let held = given_back(&row, volumes);
    let ports: Vec<Port> = tx.list(&Query::by("instance_id", &row.id())).await?;
    if row.holds_capacity {
        tx.release_capacity(row.host, row.vcpus, row.memory_mib).await?;
        row.holds_capacity = false;
    }
    for port in ports.iter().filter(|port| !port.removing) {
        // Nobody was told yet that it goes.
        tx.bump_generation(port.vpc).await?;
    }
    for mut port in ports {
        port.meta.deleted_at = Some(now);
        tx.update(&mut port).await?;
        tx.enqueue(WorkKind::Vpc, *port.vpc.as_uuid()).await?;
    }
    for volume in volumes {
        let mut volume = same(&mut tx, volume).await?;
        if volume.root {
            volume.status = VolumeStatus::Deleted;
            volume.meta.deleted_at = Some(now);
            evict(&mut tx, &volume).await?;
        } else {
            volume.release();
        }
        tx.update(&mut volume).await?;
    }
    if row.desired == Desired::Deleted {
        row.status = become_status(&row, InstanceStatus::Deleted)?;
        row.meta.deleted_at = Some(now);
        row.started_at = None;
        tx.event(event(&row, "instance.deleted", "")).await?;
    }
    tx.update(&mut row).await?;
    tx.release_quota(row.meta.project, &held).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}

/// What of the project's quota nothing holds any more. An instance that could not be provisioned has nothing left on its host, but is still
/// there to be seen: it counts until it is deleted.
fn given_back(row: &Instance, volumes: &[Volume]) -> Amounts {
    let mut all = held_by_instance(row);
    if row.desired != Desired::Deleted {
        all.remove(&Limited::Instances);
    }
    for (of, amount) in volumes.iter().filter(|v| v.root).flat_map(held_by_volume) {
        *all.entry(of).or_default() += amount;
    }
    all
}

/// Where the image of a root disk that is gone was deleted before, its copy on the host may go now.
async fn evict<T: Tx>(tx: &mut T, volume: &Volume) -> Result<(), StoreError> {
    let Some(id) = volume.image else { return Ok(()) };
    let image: Option<Image> = tx.get(*id.as_uuid()).await?;
    match image.filter(|i| i.meta.deleted_at.is_some()) {
        Some(image) => tx.enqueue(WorkKind::Image, image.meta.id).await,
        None => Ok(()),
    }
}
