//! An instance that shall run.

use std::time::Duration;

use cloud_domain::{DiskLimits, Incarnation, InstanceStatus};
use futures::future::try_join_all;

use super::{Context, Failure, Outcome, become_status, disks, ended, event, same, target};
use crate::{
    model::{AgentRole, Instance, Timestamp, Volume, VolumeStatus},
    ports::{
        BackendError, DiskSpec, Guest, GuestPower, GuestReason, GuestSpec, NicSpec, Store, StoreError, StoredVolume,
        Tx, VolumeSpec, WorkItem, WorkKind,
    },
    reconcile::{image, network, volume_data},
};

/// How often to look whether a guest has rebooted.
const REBOOTING: Duration = Duration::from_secs(1);
/// How often a start that takes long looks whether it is still wanted.
const STILL_WANTED: Duration = Duration::from_secs(1);

pub(super) async fn reconcile<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
) -> Result<Outcome, Failure> {
    if !row.missing.is_empty() {
        // Its guest may hold the only copy of the data open: nothing is done to it until they are back, or until its user says so.
        return disks::to_go(context, item, row).await;
    }
    if let Some(wait) = ended::remaining(row, Timestamp::now()) {
        return match wait.is_zero() {
            true => start_again(context, item, row, ended::why(row)).await,
            false if disks::pending(row) => disks::of_stopped(context, item, row).await,
            false => Ok(Outcome::Again(wait)),
        };
    }
    if row.status != InstanceStatus::Starting {
        let guest = context.backends.compute.get(row.host, row.id()).await?;
        return match guest {
            Some(guest) if guest.incarnation == row.incarnation => present(context, item, row, guest).await,
            Some(guest) if guest.is_active() => adopt(context, item, row, &guest).await,
            // Gone from a healthy hypervisor, or another start of it ended there: start it again.
            _ => start_again(context, item, row, "it was missing on its host").await,
        };
    }
    match ensure(context, item, row).await {
        Ok(guest) => settle(context, item, row, guest).await,
        Err(failure @ Failure::Backend(BackendError::Precondition(_))) => {
            let guest = context.backends.compute.get(row.host, row.id()).await?;
            match guest.filter(|g| g.is_active() && g.incarnation != row.incarnation) {
                Some(guest) => adopt(context, item, row, &guest).await,
                None => Err(failure),
            }
        }
        Err(failure) => Err(failure),
    }
}

/// Takes another start of the instance that is on its host for the one that is wanted: one that was given up while the host did not answer,
/// or that a restored database does not know. It has the instance's disks, so it is the instance.
async fn adopt<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Instance,
    guest: &Guest,
) -> Result<Outcome, Failure> {
    let mut tx = context.begin(item).await?;
    tx.enqueue(WorkKind::Instance, read.meta.id).await?;
    let mut row = same(&mut tx, read).await?;
    row.incarnation = guest.incarnation;
    row.has_run = true;
    tx.update(&mut row).await?;
    tx.event(event(&row, "instance.adopt", "an earlier start of it was still running")).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}

/// A guest of this start that was up before.
async fn present<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
    guest: Guest,
) -> Result<Outcome, Failure> {
    match (guest.power, guest.reason) {
        (GuestPower::Running, _) if guest.boot_generation < row.boot_generation => {
            let guest = ensure(context, item, row).await?;
            let rebooting = guest.power == GuestPower::Running && guest.boot_generation < row.boot_generation;
            let settled = settle(context, item, row, guest).await?;
            // The agent tells when it is done; where that is lost, it is seen here.
            Ok(if rebooting { Outcome::Again(REBOOTING) } else { settled })
        }
        // The hypervisor does not say that it ended: it or the host was restarted, and the guest went down with it.
        (
            GuestPower::Shutoff | GuestPower::Crashed,
            GuestReason::Unknown | GuestReason::NeverStarted | GuestReason::Failed | GuestReason::IoError,
        ) => start_again(context, item, row, "its host was restarted").await,
        _ => settle(context, item, row, guest).await,
    }
}

/// Makes everything the guest needs, then the guest.
async fn ensure<S: Store>(context: &Context<S>, item: &WorkItem, row: &Instance) -> Result<Guest, Failure> {
    let (disks, nics) = futures::future::try_join(made_disks(context, item, row), nics(context, row)).await?;
    let spec = GuestSpec {
        name: row.meta.name.clone(),
        vcpus: row.vcpus,
        memory_mib: row.memory_mib,
        disks,
        nics,
        ssh_keys: row.ssh_keys.clone(),
        user_data: row.user_data.clone(),
        boot_generation: row.boot_generation,
        record: row.to_record().map_err(|error| StoreError::Fault(Box::new(error)))?,
    };
    Ok(context.backends.compute.ensure(target(row), spec).await?)
}

async fn made_disks<S: Store>(context: &Context<S>, item: &WorkItem, row: &Instance) -> Result<Vec<DiskSpec>, Failure> {
    let made = try_join_all(row.disks.iter().filter(|disk| disk.is_wanted()).map(|disk| async move {
        let limits = disk.limits.of_disk();
        let found: Option<Volume> = context.store.get(*disk.volume.as_uuid()).await?;
        let volume = found.ok_or_else(|| Failure::Final(format!("volume `{}` has no row", disk.name)))?;
        let stored = ensure_volume(context, row, &volume).await?;
        Ok::<_, Failure>((volume, stored, limits))
    }))
    .await?;
    // From here on a missing volume is missing data. Written before the guest is, so that nothing a guest wrote is ever made anew.
    let fresh = |v: &&Volume| v.status == VolumeStatus::Creating || v.data_missing;
    let fresh: Vec<&Volume> = made.iter().map(|(v, ..)| v).filter(fresh).collect();
    if !fresh.is_empty() {
        let mut tx = context.begin(item).await?;
        for volume in fresh {
            let mut volume = same(&mut tx, volume).await?;
            volume_data::is_back(&mut volume);
            tx.update(&mut volume).await?;
        }
        tx.commit().await?;
    }
    let disk = |(volume, stored, limits): (Volume, StoredVolume, DiskLimits)| DiskSpec {
        volume: volume.id(),
        path: stored.path,
        format: stored.format,
        limits,
    };
    Ok(made.into_iter().map(disk).collect())
}

pub(super) async fn ensure_volume<S: Store>(
    context: &Context<S>,
    row: &Instance,
    volume: &Volume,
) -> Result<StoredVolume, Failure> {
    let may_create = volume.status == VolumeStatus::Creating;
    context.reach(row.host, AgentRole::Storage).await?;
    if let Some(image) = volume.image.filter(|_| may_create) {
        // Sending an image may take minutes: who stops or deletes the instance does not wait for it.
        tokio::select! {
            sent = image::ensure_on_host(context, row.host, &volume.pool, image) => sent?,
            changed = changed(context, row) => return Err(changed.into()),
        }
    }
    let spec = VolumeSpec {
        host: row.host,
        id: volume.id(),
        version: volume.meta.version,
        size_bytes: volume.size.bytes(),
        source: volume.source(),
        pool: volume.pool.clone(),
        may_create,
    };
    context.backends.storage.ensure_volume(spec).await.map_err(|error| match error {
        BackendError::DataMissing(message) => Failure::DataMissing(format!(
            "the data of volume `{}` is missing on host {}: {message}",
            volume.meta.name, row.host_name
        )),
        other => other.into(),
    })
}

/// Returns when the row is no longer what was read.
async fn changed<S: Store>(context: &Context<S>, read: &Instance) -> StoreError {
    loop {
        tokio::time::sleep(STILL_WANTED).await;
        let row = context.store.get::<Instance>(read.meta.id).await;
        if row.is_ok_and(|row| row.is_none_or(|row| row.meta.version != read.meta.version)) {
            return StoreError::Stale;
        }
    }
}

async fn nics<S: Store>(context: &Context<S>, row: &Instance) -> Result<Vec<NicSpec>, Failure> {
    let mut nics = Vec::with_capacity(row.nics.len());
    for nic in &row.nics {
        let plugged = network::apply(context, row.host, nic.vpc).await?;
        let port = plugged.into_iter().find(|p| p.id == nic.port);
        let port =
            port.ok_or_else(|| BackendError::Failed(format!("the network-agent did not plug port {}", nic.port)))?;
        nics.push(NicSpec { port: nic.port, mac: nic.mac, device: port.device, mtu: context.settings.mtu });
    }
    Ok(nics)
}

/// Writes down what the guest of this start does.
async fn settle<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Instance,
    guest: Guest,
) -> Result<Outcome, Failure> {
    let (status, action, reason) = match (guest.power, guest.reason) {
        (GuestPower::Running, _) => (InstanceStatus::Running, "instance.running", ""),
        (GuestPower::Paused, GuestReason::IoError) => (
            InstanceStatus::Paused,
            "instance.paused",
            "a disk of its host does not take its writes; it goes on when it does",
        ),
        (GuestPower::Paused, _) => (InstanceStatus::Paused, "instance.paused", "paused on its host"),
        (_, GuestReason::GuestShutdown) => (InstanceStatus::Stopped, "instance.stopped", "the guest shut itself down"),
        (_, GuestReason::Crashed) => (InstanceStatus::Stopped, "instance.stopped", "the guest crashed"),
        (_, GuestReason::Destroyed) => (InstanceStatus::Stopped, "instance.stopped", "powered off on its host"),
        (GuestPower::Shutoff | GuestPower::Crashed, _) => {
            return Err(BackendError::Failed("the hypervisor did not start the guest".into()).into());
        }
    };
    let rebooted = guest.boot_generation > read.booted_generation;
    if read.status == status && read.status_reason == reason && read.has_run && !rebooted {
        return match guest.is_active() {
            true => disks::of_running(context, item, read, &guest).await,
            false => disks::of_stopped(context, item, read).await,
        };
    }
    let mut tx = context.begin(item).await?;
    if disks::pending(read) {
        tx.enqueue(WorkKind::Instance, read.meta.id).await?;
    }
    let mut row = same(&mut tx, read).await?;
    if (row.status, status) == (InstanceStatus::Starting, InstanceStatus::Paused) {
        // It ran before it stood still.
        row.status = become_status(&row, InstanceStatus::Running)?;
    }
    row.status = become_status(&row, status)?;
    reason.clone_into(&mut row.status_reason);
    row.has_run = true;
    row.booted_generation = guest.boot_generation;
    row.start_deadline = None;
    let now = Timestamp::now();
    match status {
        InstanceStatus::Stopped => ended::note(&mut row, &guest, reason, now),
        _ => row.started_at = guest.started_at.or(row.started_at).or(Some(now)),
    }
    tx.update(&mut row).await?;
    let action = if rebooted && read.status == status { "instance.rebooted" } else { action };
    tx.event(event(&row, action, &row.status_reason)).await?;
    tx.commit().await?;
    // By its policy it is started again, at once or later.
    Ok(ended::remaining(&row, now).map_or(Outcome::Done, Outcome::Again))
}

/// Back to STARTING, as another start.
async fn start_again<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Instance,
    why: &str,
) -> Result<Outcome, Failure> {
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, read).await?;
    row.status = become_status(&row, InstanceStatus::Starting)?;
    row.status_reason = format!("started again: {why}");
    row.restart_at = None;
    row.incarnation = Incarnation::random();
    row.start_deadline = Some(Timestamp::now().plus(context.settings.start_timeout));
    tx.update(&mut row).await?;
    tx.event(event(&row, "instance.restart", why)).await?;
    tx.enqueue(WorkKind::Instance, row.meta.id).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}
