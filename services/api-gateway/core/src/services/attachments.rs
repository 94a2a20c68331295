//! Volumes that become disks of an instance, and stop being them. What is intended is written into the instance's row; its work gives its guest what it is to
//! have, and a volume is AVAILABLE again when the guest has released it.

use cloud_domain::InstanceStatus;

use super::{
    HostRegistry,
    instances::{check_host, ordered, refuse},
    launch,
    lookup::{check_etag, live},
    snapshots::volume_state,
};
use crate::{
    CoreError,
    model::{Caller, Desired, Disk, DiskChange, Instance, MAX_DISKS, Volume, VolumeStatus},
    ports::Tx,
};

/// Writes the volume's part of an attachment, and answers with what the instance's row becomes.
pub(super) async fn attach<T: Tx>(
    tx: &mut T,
    registry: &HostRegistry,
    caller: &Caller,
    (id, etag): (&str, &str),
    volume: &str,
) -> Result<Instance, CoreError> {
    let mut row = ordered(tx, caller, id).await?;
    check_etag(&row, etag)?;
    let volume = free(tx, caller, &row, volume).await?;
    takes_disks(&row)?;
    check_host(tx, &row, "attach a volume to").await?;
    fits(registry, &row, &volume)?;
    row.disks.push(Disk { change: Some(DiskChange::Attaching), ..Disk::of(&volume) });
    let name = volume.meta.id.to_string();
    match launch::attach(tx, volume, &row).await {
        // Somebody else was faster: that is told as what it is.
        Err(stale @ CoreError::Unavailable { .. }) => {
            free(tx, caller, &row, &name).await?;
            Err(stale)
        }
        attached => attached.map(|()| row),
    }
}

/// The volume, which nobody has.
async fn free<T: Tx>(tx: &mut T, caller: &Caller, row: &Instance, text: &str) -> Result<Volume, CoreError> {
    let volume: Volume = live(tx, caller.project, text).await?;
    let name = &volume.meta.name;
    if volume.instance == Some(row.id()) {
        let leaves = row.disks.iter().any(|disk| disk.volume == volume.id() && !disk.is_wanted());
        let how = if leaves { "is being detached from" } else { "is attached already to" };
        let message = format!("volume `{name}` {how} instance `{}`", row.meta.name);
        return Err(CoreError::precondition("VOLUME_ATTACHED", message));
    }
    if volume.instance.is_some() {
        let message = format!("volume `{name}` is attached to instance `{}`: detach it first", volume.instance_name);
        return Err(CoreError::precondition("VOLUME_ATTACHED", message));
    }
    if volume.status != VolumeStatus::Available {
        let why = format!("is {}: only an AVAILABLE one can be attached", volume.status.as_str());
        return Err(volume_state(&volume, &why));
    }
    Ok(volume)
}

/// Whether the instance takes another disk as it is.
fn takes_disks(row: &Instance) -> Result<(), CoreError> {
    use InstanceStatus::{Paused, Running, Stopped};
    if !matches!(row.status, Running | Paused | Stopped) {
        let why = format!("is {}: only a RUNNING, PAUSED or STOPPED one takes volumes", row.status);
        return Err(refuse(row, "attach a volume to", &why));
    }
    if row.disks.len() >= MAX_DISKS {
        let name = &row.meta.name;
        let message =
            format!("instance `{name}` has {} disks, and may have {MAX_DISKS}: detach one first", row.disks.len());
        return Err(CoreError::precondition("TOO_MANY_DISKS", message));
    }
    Ok(())
}

/// Whether the volume can be where the instance is.
fn fits(registry: &HostRegistry, row: &Instance, volume: &Volume) -> Result<(), CoreError> {
    let (name, here) = (&volume.meta.name, &row.host_name);
    match volume.host {
        Some(host) if host == row.host => Ok(()),
        Some(_) => {
            let message = format!(
                "volume `{name}` is on host {} and instance `{}` on host {here}: a volume is attached where it is",
                volume.host_name, row.meta.name
            );
            Err(CoreError::precondition("OTHER_HOST", message))
        }
        // It takes its place there.
        None => {
            let mut has = false;
            registry.each(|facts| {
                has |= facts.id == row.host && facts.capacity.pools.iter().any(|pool| pool.name == volume.pool);
            });
            if has {
                return Ok(());
            }
            let message = format!(
                "volume `{name}` is to be in pool `{}`, which host {here} of instance `{}` does not have",
                volume.pool, row.meta.name
            );
            Err(CoreError::precondition("NO_POOL", message))
        }
    }
}

/// Writes the volume's part of a detachment, and answers with what the instance's row becomes, and whether it is another than before.
pub(super) async fn detach<T: Tx>(
    tx: &mut T,
    caller: &Caller,
    (id, etag): (&str, &str),
    volume: &str,
) -> Result<(Instance, bool), CoreError> {
    let mut row = ordered(tx, caller, id).await?;
    check_etag(&row, etag)?;
    let mut volume: Volume = live(tx, caller.project, volume).await?;
    let Some(at) = row.disks.iter().position(|disk| disk.volume == volume.id() && volume.instance == Some(row.id()))
    else {
        let other = match volume.instance_name.as_str() {
            "" => "to none".to_owned(),
            other => format!("but to `{other}`"),
        };
        let message = format!("volume `{}` is not attached to instance `{}`, {other}", volume.meta.name, row.meta.name);
        return Err(CoreError::precondition("VOLUME_NOT_ATTACHED", message));
    };
    if volume.root {
        let message = format!("volume `{}` is the root disk of instance `{}`", volume.meta.name, row.meta.name);
        return Err(CoreError::precondition("ROOT_DISK", format!("{message}, and goes with it")));
    }
    lets_go(&row)?;
    if !row.disks[at].is_wanted() {
        return Ok((row, false));
    }
    check_host(tx, &row, "detach a volume from").await?;
    row.disks[at].change = Some(DiskChange::Detaching);
    if !volume.data_missing {
        volume.status_reason = format!("is being detached from instance `{}`", row.meta.name);
    }
    tx.update(&mut volume).await?;
    Ok((row, true))
}

/// Whether the instance lets a disk go as it is.
fn lets_go(row: &Instance) -> Result<(), CoreError> {
    use InstanceStatus::{Error, Paused, Running, Stopped};
    match row.status {
        Running | Paused | Stopped => Ok(()),
        // One without a disk whose data are missing can be started again.
        Error if row.desired != Desired::Cleaned => Ok(()),
        status => {
            let why = format!(
                "is {status}: only a RUNNING, PAUSED or STOPPED one, or one in ERROR that ran, lets a volume go"
            );
            Err(refuse(row, "detach a volume from", &why))
        }
    }
}
