//! Disks of an instance that come and go, and their limits.
//!
//! What is intended is in the row: a disk with a change is one that the guest has not got yet, or has not released. The change ends in the transaction that
//! follows the hypervisor's word. Until then the volume belongs to the instance, whatever happens to the guest or to this process: it is nobody else's,
//! and a start gives the guest every disk but those that are to go. Releasing one is the guest's own doing, and it may take its time or refuse; it is
//! asked again and again, and the volume says so. Limits that were changed are a change too, which ends when the hypervisor says that the guest has them.

use std::time::Duration;

use cloud_domain::InstanceStatus;

use super::{Context, Failure, Outcome, event, same, target, up};
use crate::{
    model::{AgentRole, Desired, Disk, DiskChange, Instance, Volume, VolumeStatus},
    ports::{BackendError, DiskSpec, Guest, Store, StoreError, Tx, WorkItem, WorkKind},
    reconcile::volume_data,
};

/// What is said of a disk whose guest is being given other limits.
const LIMITED: &str = "given its limits";
/// How soon a guest is asked again that has not released a disk. The asking itself waits for some seconds.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Whether something is under way with a disk of it.
pub(super) fn pending(row: &Instance) -> bool {
    row.disks.iter().any(|disk| disk.change.is_some())
}

/// What came of trying one disk.
enum Tried {
    /// Written down: the row is another one.
    Changed,
    /// Not yet.
    Waits,
}

/// Gives a guest that runs what its instance has and it lacks, with the limits that it is to have, and takes from it what is to go.
pub(super) async fn of_running<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
    guest: &Guest,
) -> Result<Outcome, Failure> {
    // A guest of an agent that does not say its disks has what it was started with.
    let lacks = |disk: &Disk| !guest.volumes.is_empty() && !guest.volumes.contains(&disk.volume);
    let differs =
        |disk: &&Disk| disk.change.is_some() || lacks(disk) || !guest.is_limited(disk.volume, disk.limits.of_disk());
    each(context, item, row, Some(guest), row.disks.iter().filter(differs)).await
}

/// Takes from a guest of which nothing else is known what is to go.
pub(super) async fn to_go<S: Store>(context: &Context<S>, item: &WorkItem, row: &Instance) -> Result<Outcome, Failure> {
    each(context, item, row, None, row.disks.iter().filter(|disk| !disk.is_wanted())).await
}

/// Ends what is under way with the disks of a guest that does not run.
pub(super) async fn of_stopped<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
) -> Result<Outcome, Failure> {
    each(context, item, row, None, row.disks.iter().filter(|disk| disk.change.is_some())).await
}

/// Whether a disk that the guest is to have differs in nothing but its limits.
fn is_limits_only(disk: &Disk, guest: Option<&Guest>) -> bool {
    match disk.change {
        None => guest.is_some_and(|guest| guest.volumes.contains(&disk.volume)),
        change => change == Some(DiskChange::Limiting),
    }
}

/// Tries all of them, as one that waits or fails holds no other one up; ends with the first that is written down. What is given is given to this guest;
/// none: there is one at the next start.
async fn each<'a, S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
    guest: Option<&Guest>,
    disks: impl Iterator<Item = &'a Disk>,
) -> Result<Outcome, Failure> {
    let (mut waits, mut failed) = (false, None);
    for disk in disks {
        let tried = match disk.is_wanted() {
            true => attach(context, item, row, disk, guest).await,
            false => detach(context, item, row, disk).await,
        };
        match tried_in_vain(context, item, disk, guest, tried).await {
            Ok(Tried::Changed) => return Ok(Outcome::Done),
            Ok(Tried::Waits) => waits = true,
            // Somebody else has the work, or changed the row.
            Err(Failure::Store(error)) => return Err(error.into()),
            Err(failure) => failed = Some(failure),
        }
    }
    match failed {
        Some(failure) => Err(failure),
        None if waits => Ok(Outcome::Again(ASK_AGAIN)),
        None => Ok(Outcome::Done),
    }
}

/// Has the volume say why nothing has come of it yet.
async fn tried_in_vain<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    disk: &Disk,
    guest: Option<&Guest>,
    tried: Result<Tried, Failure>,
) -> Result<Tried, Failure> {
    let does = match disk.is_wanted() {
        true if is_limits_only(disk, guest) => LIMITED,
        true => "attached",
        false => "detached",
    };
    let reason = match &tried {
        Ok(Tried::Changed) | Err(Failure::Store(_) | Failure::Backend(BackendError::Stale(_))) => return tried,
        Ok(Tried::Waits) => "is being detached: its guest has not released it yet, and is asked again".to_owned(),
        Err(failure) => format!("is being {does}, trying again: {failure}"),
    };
    let lost = matches!(tried, Err(Failure::DataMissing(_)));
    let read: Option<Volume> = context.store.get(*disk.volume.as_uuid()).await?;
    let Some(read) = read.filter(|v| !v.data_missing && (lost || v.status_reason != reason)) else { return tried };
    let mut tx = context.begin(item).await?;
    if lost {
        // Its own work finds out, and says so.
        tx.enqueue(WorkKind::Volume, read.meta.id).await?;
    }
    let mut volume = same(&mut tx, &read).await?;
    volume.status_reason = reason;
    tx.update(&mut volume).await?;
    tx.commit().await?;
    tried
}

/// The volume as it is when its data are on the host: from then on they are made no more.
async fn make<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
    disk: &Disk,
) -> Result<(Volume, DiskSpec), Failure> {
    let found: Option<Volume> = context.store.get(*disk.volume.as_uuid()).await?;
    let mut volume = found.ok_or_else(|| Failure::Final(format!("volume `{}` has no row", disk.name)))?;
    if volume.data_missing {
        // It and the instance are as they were when its own work has found them.
        return Err(Failure::DataMissing(volume.status_reason));
    }
    let stored = up::ensure_volume(context, row, &volume).await?;
    if volume.status == VolumeStatus::Creating {
        let mut tx = context.begin(item).await?;
        let mut made = same(&mut tx, &volume).await?;
        volume_data::is_back(&mut made);
        tx.update(&mut made).await?;
        tx.commit().await?;
        volume = made;
    }
    let limits = disk.limits.of_disk();
    let spec = DiskSpec { volume: volume.id(), path: stored.path, format: stored.format, limits };
    Ok((volume, spec))
}

async fn attach<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
    disk: &Disk,
    guest: Option<&Guest>,
) -> Result<Tried, Failure> {
    let only_limits = is_limits_only(disk, guest);
    if guest.is_some() || !only_limits {
        let (volume, spec) = make(context, item, row, disk).await?;
        if guest.is_some() {
            let limits = spec.limits;
            let given = context.backends.compute.attach_disk(target(row), spec, record(row)?).await?;
            if given.is_active() && !given.is_limited(volume.id(), limits) {
                let why = "its host's compute-agent did not give it its limits: it is of an earlier release";
                return Err(BackendError::Failed(why.to_owned()).into());
            }
        }
    }
    attached(context, item, row, disk, only_limits).await
}

fn record(row: &Instance) -> Result<String, StoreError> {
    row.to_record().map_err(|error| StoreError::Fault(Box::new(error)))
}

/// Writes down that the guest has it as it is to have it, or has it so when it starts.
async fn attached<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Instance,
    disk: &Disk,
    only_limits: bool,
) -> Result<Tried, Failure> {
    let found: Option<Volume> = context.store.get(*disk.volume.as_uuid()).await?;
    let found = found.ok_or(StoreError::Stale)?;
    let mut tx = context.begin(item).await?;
    tx.enqueue(WorkKind::Instance, read.meta.id).await?;
    let mut row = same(&mut tx, read).await?;
    let mut volume = same(&mut tx, &found).await?;
    for disk in row.disks.iter_mut().filter(|disk| disk.volume == volume.id()) {
        disk.change = None;
        // It may have grown since.
        disk.size = volume.size;
    }
    let name = &volume.meta.name;
    tx.event(match only_limits {
        true => event(&row, "instance.volume_limited", &format!("volume `{name}`: {}", disk.limits)),
        false => event(&row, "instance.volume_attached", &format!("volume `{name}`")),
    })
    .await?;
    tx.update(&mut row).await?;
    // What was said of anything else stays.
    let told = !volume.status_reason.is_empty() && (!only_limits || volume.status_reason.contains(LIMITED));
    if told || volume.limits_pending {
        if told {
            volume.status_reason.clear();
        }
        volume.limits_pending = false;
        tx.update(&mut volume).await?;
    }
    tx.commit().await?;
    Ok(Tried::Changed)
}

async fn detach<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    row: &Instance,
    disk: &Disk,
) -> Result<Tried, Failure> {
    // Also where no guest is known: from here on no call of before gives it one that has the disk.
    let guest = context.backends.compute.detach_disk(target(row), disk.volume, record(row)?).await?;
    if guest.is_some_and(|guest| guest.may_have_open(disk.volume)) {
        return Ok(Tried::Waits);
    }
    let found: Option<Volume> = context.store.get(*disk.volume.as_uuid()).await?;
    let found = found.ok_or_else(|| Failure::Final(format!("volume `{}` has no row", disk.name)))?;
    if found.status == VolumeStatus::Creating {
        // No guest ever saw it: it takes its place anew where it is attached next.
        context.reach(row.host, AgentRole::Storage).await?;
        context.backends.storage.remove_volume(row.host, found.id(), found.meta.version).await?;
    }
    detached(context, item, row, &found).await
}

async fn detached<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Instance,
    found: &Volume,
) -> Result<Tried, Failure> {
    let mut tx = context.begin(item).await?;
    tx.enqueue(WorkKind::Instance, read.meta.id).await?;
    let mut row = same(&mut tx, read).await?;
    let mut volume = same(&mut tx, found).await?;
    row.disks.retain(|disk| disk.volume != volume.id());
    if row.missing.contains(&volume.id()) {
        row.missing.retain(|id| *id != volume.id());
        if row.missing.is_empty() && row.status == InstanceStatus::Error {
            // One that shall run is looked at by its own work, which finds out whether its guest still does.
            if row.desired == Desired::Stopped {
                row.status = InstanceStatus::Stopped;
            }
            row.status_reason.clear();
        }
    }
    tx.event(event(&row, "instance.volume_detached", &format!("volume `{}`", volume.meta.name))).await?;
    tx.update(&mut row).await?;
    volume.release();
    tx.event(event(&volume, "volume.released", &format!("by instance `{}`", row.meta.name))).await?;
    tx.update(&mut volume).await?;
    tx.commit().await?;
    Ok(Tried::Changed)
}
