//! The rows that orphans become.
//!
//! A volume needs no more than what its host says of it. Of a guest, the host keeps the row with which it was last started
//! ([`Instance::to_record`]): where its network, its addresses and its room are still there for it, it becomes that instance again. Nothing happens on
//! the host here; the instance's work finds the guest as it is.

use cloud_domain::{Gib, InstanceStatus};

use super::{
    lookup::{event, insert, live, name},
    orphans::{Adoption, nobody},
};
use crate::{
    CoreError,
    model::{
        Amounts, Caller, Copied, Desired, Disk, Image, Instance, Labels, Meta, Nic, Orphan, OrphanKind, Port, Project,
        Resource, Snapshot, Subnet, Timestamp, Volume, VolumeLimits, VolumeStatus, Vpc, held_by_instance,
        held_by_volume,
    },
    ports::{Query, StoreError, Tx, WorkKind},
};

/// The version of an adopted row: newer than any call about it that its host's agent may have seen.
const ADOPTED: u64 = 1 << 40;

/// What an orphan can become.
pub(super) enum Adoptable<'a> {
    Volume,
    /// What it was.
    Instance(&'a Instance),
}

fn refuse(message: String) -> CoreError {
    CoreError::precondition("NOT_ADOPTABLE", message)
}

pub(super) fn adoptable(orphan: &Orphan) -> Result<Adoptable<'_>, CoreError> {
    let (kind, id) = (orphan.kind.kind(), orphan.object);
    if orphan.removing {
        return Err(refuse(format!("{kind} {id} is being removed")));
    }
    match (orphan.kind, &orphan.kept) {
        (OrphanKind::Volume, _) => Ok(Adoptable::Volume),
        (OrphanKind::Instance, Some(kept)) => Ok(Adoptable::Instance(kept)),
        (OrphanKind::Instance, None) => Err(refuse(format!(
            "{kind} {id} cannot be adopted: its host does not know what it was launched with. Remove the guest (its disks stay), adopt its volumes, and \
             launch an instance with them"
        ))),
        (OrphanKind::Snapshot, _) => {
            Err(refuse(format!("{kind} {id} cannot be adopted: adopt its volume, and take a new one")))
        }
        (OrphanKind::Vpc, _) => Err(refuse(format!("{kind} {id} has no data: remove it"))),
    }
}

/// Refuses an id that has, or had, a row.
async fn unknown<R: Resource, T: Tx>(tx: &mut T, orphan: &Orphan) -> Result<(), CoreError> {
    let Some(row) = tx.get::<R>(orphan.object).await? else { return Ok(()) };
    let (kind, name) = (R::KIND, &row.meta().name);
    let message = match row.meta().deleted_at {
        None => format!("{kind} `{name}` has this id already: {}", orphan.detail),
        Some(_) => format!("{kind} `{name}` had this id and was deleted: it will be removed"),
    };
    Err(CoreError::precondition("ORPHAN_KNOWN", message))
}

/// Makes a volume of it, in the project that is asked for. Answers with the project and what is to be claimed of its quota.
pub(super) async fn adopt_volume<T: Tx>(
    tx: &mut T,
    caller: &Caller,
    orphan: &Orphan,
    request: &Adoption,
) -> Result<(Project, Amounts), CoreError> {
    let users: Vec<Orphan> = tx.list(&Query::by("host_id", &orphan.host)).await?;
    if let Some(user) = users.iter().find(|o| o.volumes.iter().any(|v| *v.as_uuid() == orphan.object)) {
        let message = format!(
            "volume {} is a disk of guest {}, which is an orphan itself: adopt the guest, or remove it first, its disks stay",
            orphan.object, user.object
        );
        return Err(CoreError::precondition("ORPHAN_IN_USE", message));
    }
    unknown::<Volume, _>(tx, orphan).await?;
    let project: Project = match request.project.as_str() {
        "" => live(tx, nobody(), &caller.project.to_string()).await?,
        text => live(tx, nobody(), text).await?,
    };
    let own = format!("adopted-{}", orphan.object.simple().to_string().chars().take(8).collect::<String>());
    let wanted = if request.name.is_empty() { own.as_str() } else { name(&request.name)? };
    let row = volume(tx, orphan, &project, wanted).await?;
    insert(tx, &row).await?;
    tx.event(event(caller, &row, "volume.adopt")).await?;
    Ok((project, held_by_volume(&row)))
}

/// The row of an adopted volume.
async fn volume<T: Tx>(tx: &mut T, orphan: &Orphan, project: &Project, name: &str) -> Result<Volume, CoreError> {
    let size = Gib::holding(orphan.size_bytes).ok().filter(|size| size.bytes() == orphan.size_bytes);
    let size = size.ok_or_else(|| {
        refuse(format!("volume {} has {} bytes, which is no whole number of GiB", orphan.object, orphan.size_bytes))
    })?;
    let image = match orphan.image {
        Some(image) => tx.get::<Image>(*image.as_uuid()).await?,
        None => None,
    };
    let copied = match orphan.copied.clone() {
        Some(Copied::Snapshot { id, .. }) => {
            let row: Option<Snapshot> = tx.get(*id.as_uuid()).await?;
            Some(Copied::Snapshot { id, name: row.map(|row| row.meta.name).unwrap_or_default() })
        }
        Some(Copied::Volume { id, .. }) => {
            let row: Option<Volume> = tx.get(*id.as_uuid()).await?;
            Some(Copied::Volume { id, name: row.map(|row| row.meta.name).unwrap_or_default() })
        }
        None => None,
    };
    let mut meta = Meta::new(orphan.object, project.meta.id.into(), &project.meta.name, name, Labels::new());
    meta.version = ADOPTED;
    Ok(Volume {
        meta,
        size,
        status: VolumeStatus::Available,
        status_reason: String::new(),
        host: Some(orphan.host),
        host_name: orphan.host_name.clone(),
        pool: orphan.pool.clone(),
        instance: None,
        instance_name: String::new(),
        root: false,
        image: orphan.image,
        image_name: image.map(|row| row.meta.name).unwrap_or_default(),
        data_missing: false,
        copied,
        growing_to: None,
        limits: VolumeLimits::default(),
        limits_pending: false,
    })
}

/// Makes an instance of it, with its volumes and ports. Answers with its project and what is to be claimed of its quota.
pub(super) async fn adopt_instance<T: Tx>(
    tx: &mut T,
    caller: &Caller,
    orphan: &Orphan,
    kept: &Instance,
    request: &Adoption,
) -> Result<(Project, Amounts), CoreError> {
    let is = &kept.meta.name;
    if !request.name.is_empty() && request.name != *is {
        return Err(CoreError::invalid("name", format!("the guest was started as `{is}`, and keeps that name")));
    }
    unknown::<Instance, _>(tx, orphan).await?;
    let project = project_of(tx, kept, request).await?;
    if tx.claim_capacity(orphan.host, kept.vcpus, kept.memory_mib).await?.is_none() {
        let message = format!(
            "host {} takes nothing new, or has not as much left as `{is}` was started with ({} vCPUs, {} MiB): see `cloud host show {0}`",
            orphan.host_name, kept.vcpus, kept.memory_mib
        );
        return Err(CoreError::precondition("HOST_STATE", message));
    }
    let mut row = instance(orphan, kept, &project);
    // A call's first event is of what it is about.
    tx.event(event(caller, &row, "instance.adopt")).await?;
    for nic in &kept.nics {
        plug(tx, &row, nic).await?;
    }
    let mut held = held_by_instance(&row);
    // In one order, as launches do.
    let mut places: Vec<usize> = (0..row.disks.len()).collect();
    places.sort_by_key(|place| row.disks[*place].volume);
    for place in places {
        let (volume, more) = attach(tx, caller, orphan, &project, &row, &row.disks[place]).await?;
        // It may have grown since.
        let disk = &mut row.disks[place];
        (disk.name, disk.size, disk.limits) = (volume.meta.name, volume.size, volume.limits);
        more.into_iter().for_each(|(of, amount)| *held.entry(of).or_default() += amount);
    }
    insert(tx, &row).await?;
    tx.enqueue(WorkKind::Instance, row.meta.id).await?;
    for nic in &kept.nics {
        tx.enqueue(WorkKind::Vpc, *nic.vpc.as_uuid()).await?;
    }
    Ok((project, held))
}

/// The project that it was in. Its network is that project's, so it belongs to no other.
async fn project_of<T: Tx>(tx: &mut T, kept: &Instance, request: &Adoption) -> Result<Project, CoreError> {
    let (id, was) = (kept.meta.project, &kept.meta.project_name);
    let project: Option<Project> = tx.get(*id.as_uuid()).await?;
    let Some(project) = project.filter(|row| row.meta.deleted_at.is_none()) else {
        return Err(refuse(format!("its project `{was}` ({id}) is not there any more")));
    };
    let asked = match request.project.as_str() {
        "" => project.meta.id,
        text => live::<Project, _>(tx, nobody(), text).await?.meta.id,
    };
    if asked != project.meta.id {
        let problem = format!("the guest is in the network of project `{}`, and stays in it", project.meta.name);
        return Err(CoreError::invalid("project", problem));
    }
    Ok(project)
}

/// The row of an adopted guest: what it was, and what it does now.
fn instance(orphan: &Orphan, kept: &Instance, project: &Project) -> Instance {
    let labels = kept.meta.labels.clone();
    let mut meta = Meta::new(orphan.object, project.meta.id.into(), &project.meta.name, &kept.meta.name, labels);
    meta.version = ADOPTED;
    meta.created_at = kept.meta.created_at;
    let (status, desired) = match orphan.active {
        true => (InstanceStatus::Running, Desired::Running),
        false => (InstanceStatus::Stopped, Desired::Stopped),
    };
    Instance {
        meta,
        status,
        status_reason: String::new(),
        desired,
        host: orphan.host,
        host_name: orphan.host_name.clone(),
        has_run: true,
        holds_capacity: true,
        stop_requested_at: None,
        start_deadline: None,
        quick_ends: 0,
        restart_at: None,
        missing: Vec::new(),
        placed: None,
        ..kept.clone()
    }
}

/// Makes the port of one of its NICs, with the address that its guest has, and has the VPC's hosts told of it.
async fn plug<T: Tx>(tx: &mut T, row: &Instance, nic: &Nic) -> Result<(), CoreError> {
    let gone = |what: &str, name: &str| {
        refuse(format!("its {what} `{name}` is not there any more, and without it the guest has no network"))
    };
    match tx.bump_generation(nic.vpc).await {
        Ok(()) => {}
        Err(StoreError::Stale) => return Err(gone("VPC", &nic.vpc_name)),
        Err(error) => return Err(error.into()),
    }
    let vpc: Option<Vpc> = tx.get(*nic.vpc.as_uuid()).await?;
    // The record is what a host says.
    let vpc = vpc.filter(|vpc| vpc.meta.project == row.meta.project).ok_or_else(|| gone("VPC", &nic.vpc_name))?;
    let subnet: Option<Subnet> = tx.get(*nic.subnet.as_uuid()).await?;
    let subnet = subnet.filter(|subnet| subnet.meta.deleted_at.is_none() && subnet.vpc == nic.vpc);
    let subnet =
        subnet.filter(|subnet| subnet.cidr.is_guest(nic.ip)).ok_or_else(|| gone("subnet", &nic.subnet_name))?;
    let (project, project_name) = (row.meta.project, &row.meta.project_name);
    let port = Port {
        meta: Meta::new(*nic.port.as_uuid(), project, project_name, &nic.port.to_string(), Labels::new()),
        vpc: nic.vpc,
        vpc_name: vpc.meta.name,
        subnet: nic.subnet,
        subnet_name: subnet.meta.name,
        mac: nic.mac,
        ip: nic.ip,
        instance: row.id(),
        instance_name: row.meta.name.clone(),
        host: row.host,
        host_name: row.host_name.clone(),
        removing: false,
    };
    tx.insert(&port).await.map_err(|error| match error {
        StoreError::Taken => CoreError::precondition(
            "ADDRESS_TAKEN",
            format!(
                "its address {} or {} in subnet `{}` of VPC `{}` is another instance's by now: delete that one, or remove the guest",
                nic.ip, nic.mac, port.subnet_name, port.vpc_name
            ),
        ),
        error => error.into(),
    })
}

/// Gives it one of its volumes: an orphan too, or one that is there and free, or that the database has not placed yet. Answers with what is to be
/// claimed for it.
async fn attach<T: Tx>(
    tx: &mut T,
    caller: &Caller,
    orphan: &Orphan,
    project: &Project,
    instance: &Instance,
    disk: &Disk,
) -> Result<(Volume, Amounts), CoreError> {
    let known: Option<Volume> = tx.get(*disk.volume.as_uuid()).await?;
    if let Some(row) = &known {
        let free = row.meta.deleted_at.is_none() && row.status == VolumeStatus::Available;
        let here = row.host.is_none_or(|host| host == orphan.host) && row.meta.project == instance.meta.project;
        if !free || !here {
            let state = if row.meta.deleted_at.is_some() { "DELETED" } else { row.status.as_str() };
            let message = format!(
                "its volume `{}` is {state} in project `{}`: it would have to be AVAILABLE, on host {}, in its own",
                row.meta.name, row.meta.project_name, orphan.host_name
            );
            return Err(CoreError::precondition("VOLUME_STATE", message));
        }
    }
    let (is_new, before) = (known.is_none(), known.as_ref().map(held_by_volume).unwrap_or_default());
    let row = match known {
        Some(row) if row.host.is_some() => row,
        known => {
            let found = found_volume(tx, orphan, disk).await?;
            let made = Volume { limits: disk.limits, ..volume(tx, &found, project, &disk.name).await? };
            // One that was blank and without a place when the backup was made.
            known.map_or(made.clone(), |row| Volume { meta: row.meta, ..made })
        }
    };
    let mut row = Volume {
        status: VolumeStatus::InUse,
        instance: Some(instance.id()),
        instance_name: instance.meta.name.clone(),
        root: disk.root,
        ..row
    };
    if is_new {
        insert(tx, &row).await?;
        tx.event(event(caller, &row, "volume.adopt")).await?;
    } else {
        tx.update(&mut row).await?;
    }
    let mut held = held_by_volume(&row);
    for (of, amount) in before {
        held.entry(of).and_modify(|more| *more = more.saturating_sub(amount));
    }
    Ok((row, held))
}

/// The orphan that a guest's volume is, which ends.
async fn found_volume<T: Tx>(tx: &mut T, guest: &Orphan, disk: &Disk) -> Result<Orphan, CoreError> {
    let orphans: Vec<Orphan> = tx.list(&Query::by("host_id", &guest.host)).await?;
    let is = |o: &Orphan| o.kind == OrphanKind::Volume && o.object == *disk.volume.as_uuid() && !o.removing;
    let Some(mut found) = orphans.into_iter().find(is) else {
        let message = format!(
            "host {} has not said that it has its volume `{}` ({}), or that is being removed",
            guest.host_name, disk.name, disk.volume
        );
        return Err(refuse(message));
    };
    found.meta.deleted_at = Some(Timestamp::now());
    tx.update(&mut found).await?;
    Ok(found)
}
