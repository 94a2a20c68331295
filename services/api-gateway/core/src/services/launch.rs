//! Launching: everything an instance needs is claimed in one transaction, or nothing is.

use std::{net::Ipv4Addr, time::Duration};

use cloud_domain::{Gib, Incarnation, InstanceId, InstanceStatus, MacAddr, PortId, ProjectId, VolumeId};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    HostRegistry, Placement, Settings,
    lookup::{event, insert, labels, live, name},
    placement::{self, Ask},
    quotas::claim,
};
use crate::{
    CoreError, Kind,
    model::{
        Amounts, Caller, DEFAULT_POOL, Desired, Disk, Image, ImageStatus, Instance, InstanceType, Labels, Limited,
        Meta, Nic, Placed, Port, RestartPolicy, Subnet, Timestamp, Visibility, Volume, VolumeLimits, VolumeStatus, Vpc,
    },
    ports::{Query, Store, Tx, WorkKind},
};

/// How many addresses of guests without a row are passed over.
const STRANGERS: usize = 64;

/// What a caller wants launched. Ids and names are taken alike.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// The instance's name.
    pub name: String,
    /// The image.
    pub image: String,
    /// The type; empty: the default one.
    pub instance_type: String,
    /// The VPC; empty: the project's default one.
    pub vpc: String,
    /// The subnet; empty: the VPC's only one, or the one called `default`.
    pub subnet: String,
    /// Volumes to attach beside the root disk.
    pub volumes: Vec<String>,
    /// Words of the user's own.
    pub labels: Labels,
    /// Public keys.
    pub ssh_keys: Vec<String>,
    /// user-data.
    pub user_data: String,
    /// The root disk's size in GiB; 0: the larger of the type's and the image's.
    pub root_disk_gib: u32,
    /// What happens when its guest ends by itself.
    pub restart_policy: RestartPolicy,
    /// Where it shall be.
    pub placement: Placement,
}

pub(super) async fn launch<S: Store>(
    store: &S,
    registry: &HostRegistry,
    settings: &Settings,
    caller: &Caller,
    request: Launch,
) -> Result<Instance, CoreError> {
    name(&request.name)?;
    labels(&request.labels)?;
    check_keys(&request.ssh_keys)?;
    request.placement.check(caller)?;
    // A type never changes, so it is read before the one writer is taken.
    let kind = instance_type(store, &request.instance_type).await?;
    let mut tx = store.begin().await?;
    let image = visible_image(&mut tx, caller, &request.image).await?;
    let size = root_size(&request, &kind, &image)?;
    let vpc = vpc(&mut tx, caller, &request.vpc).await?;
    let mut data = data_volumes(&mut tx, caller, &request.volumes).await?;
    if tx.find::<Instance>(caller.project, &request.name).await?.is_some() {
        return Err(CoreError::AlreadyExists { kind: Kind::Instance, name: request.name });
    }
    let ask = Ask::new(&kind, &image, &data, &request.placement)?;
    let (host, placed) = placement::place(&mut tx, store, registry, settings.placement, caller, &ask).await?;
    let (host, host_name) = (host.id(), host.meta.name);
    // The hosts are told of a new port. As late as may be, since whatever launches into this VPC waits from here on until this commits; but before
    // the subnet is read, so that neither it nor the VPC can be deleted behind our back.
    tx.bump_generation(vpc.id()).await?;
    let subnet = subnet(&mut tx, &vpc, &request.subnet).await?;
    // Whoever waited here may have lost a volume to the one that it waited for: that is told as what it is.
    data_volumes(&mut tx, caller, &request.volumes).await?;

    let id = InstanceId::random();
    let meta = |id: Uuid, name: &str, labels| Meta::new(id, caller.project, &caller.project_name, name, labels);
    let root = Volume {
        meta: meta(*VolumeId::random().as_uuid(), &format!("root-{id}"), Labels::new()),
        size,
        status: VolumeStatus::Creating,
        status_reason: String::new(),
        host: Some(host),
        host_name: host_name.clone(),
        pool: DEFAULT_POOL.to_owned(),
        instance: Some(id),
        instance_name: request.name.clone(),
        root: true,
        image: Some(image.id()),
        image_name: image.meta.name.clone(),
        data_missing: false,
        copied: None,
        growing_to: None,
        limits: VolumeLimits::default(),
        limits_pending: false,
    };
    let port_id = PortId::random();
    let ip = free_address(&mut tx, registry, &subnet).await?.ok_or_else(|| CoreError::Exhausted {
        reason: "SUBNET_FULL",
        message: format!(
            "subnet `{}` of VPC `{}` ({}) has no free address",
            subnet.meta.name, vpc.meta.name, subnet.cidr
        ),
    })?;
    let port = Port {
        meta: meta(*port_id.as_uuid(), &port_id.to_string(), Labels::new()),
        vpc: vpc.id(),
        vpc_name: vpc.meta.name.clone(),
        subnet: subnet.id(),
        subnet_name: subnet.meta.name.clone(),
        mac: MacAddr::for_port(port_id),
        ip,
        instance: id,
        instance_name: request.name.clone(),
        host,
        host_name: host_name.clone(),
        removing: false,
    };
    let nic = Nic {
        port: port_id,
        vpc: vpc.id(),
        vpc_name: vpc.meta.name.clone(),
        subnet: subnet.id(),
        subnet_name: subnet.meta.name.clone(),
        mac: port.mac,
        ip,
    };
    let instance = Instance {
        meta: meta(*id.as_uuid(), &request.name, request.labels),
        image: image.id(),
        image_name: image.meta.name.clone(),
        instance_type: kind.meta.name.clone(),
        vcpus: kind.vcpus,
        memory_mib: kind.memory_mib,
        status: InstanceStatus::Starting,
        status_reason: String::new(),
        desired: Desired::Running,
        host,
        host_name: host_name.clone(),
        incarnation: Incarnation::random(),
        boot_generation: 0,
        booted_generation: 0,
        nics: vec![nic],
        disks: std::iter::once(&root).chain(&data).map(Disk::of).collect(),
        ssh_keys: request.ssh_keys,
        user_data: request.user_data,
        started_at: None,
        has_run: false,
        holds_capacity: true,
        stop_requested_at: None,
        start_deadline: Some(Timestamp::now().plus(settings.start_timeout)),
        restart_policy: request.restart_policy,
        quick_ends: 0,
        restart_at: None,
        missing: Vec::new(),
        anti_affinity_group: request.placement.group,
        placed: Some(placed),
    };
    insert(&mut tx, &instance).await?;
    tx.insert(&root).await?;
    tx.insert(&port).await?;
    // In one order, whatever the caller's: two launches that want the same ones do not wait for each other.
    data.sort_by_key(|volume| volume.meta.id);
    for volume in data {
        attach(&mut tx, volume, &instance).await?;
    }
    tx.enqueue(WorkKind::Instance, instance.meta.id).await?;
    tx.enqueue(WorkKind::Vpc, vpc.meta.id).await?;
    tx.event(event(caller, &instance, "instance.launch")).await?;
    claim(&mut tx, settings, caller, &wanted(&kind, size)).await?;
    tx.commit().await?;
    Ok(instance)
}

/// Chooses a host as a launch does, and claims nothing of it.
pub(super) async fn would_be_placed<S: Store>(
    store: &S,
    registry: &HostRegistry,
    settings: &Settings,
    caller: &Caller,
    request: &Launch,
) -> Result<(Placed, Duration), CoreError> {
    request.placement.check(caller)?;
    let kind = instance_type(store, &request.instance_type).await?;
    let mut tx = store.begin().await?;
    let image = visible_image(&mut tx, caller, &request.image).await?;
    let data = data_volumes(&mut tx, caller, &request.volumes).await?;
    let ask = Ask::new(&kind, &image, &data, &request.placement)?;
    let begun = Instant::now();
    let (_, placed) = placement::place(&mut tx, store, registry, settings.placement, caller, &ask).await?;
    Ok((placed, begun.elapsed()))
}

/// An address that no row has, and if there is another one, that no guest without a row has.
async fn free_address<T: Tx>(
    tx: &mut T,
    registry: &HostRegistry,
    subnet: &Subnet,
) -> Result<Option<Ipv4Addr>, CoreError> {
    for _ in 0..STRANGERS {
        match tx.free_address(subnet.id(), subnet.cidr).await? {
            Some(ip) if registry.strangers().have(subnet.id(), ip) => {}
            found => return Ok(found),
        }
    }
    Ok(tx.free_address(subnet.id(), subnet.cidr).await?)
}

/// What the instance and its root disk will hold of the project's quota: see `model::held_by_instance` and `model::held_by_volume`.
fn wanted(kind: &InstanceType, size: Gib) -> Amounts {
    Amounts::from([
        (Limited::Instances, 1),
        (Limited::Vcpus, kind.vcpus.into()),
        (Limited::MemoryMib, kind.memory_mib.into()),
        (Limited::VolumeGib, size.get().into()),
    ])
}

fn check_keys(keys: &[String]) -> Result<(), CoreError> {
    for key in keys {
        // One line in authorized_keys form (sshd(8)): options are not taken, so it begins with the key's type.
        let line = key.trim_end();
        let known = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|p| line.starts_with(p));
        if !known || line.contains(['\n', '\r']) || line.split_whitespace().nth(1).is_none() {
            return Err(CoreError::invalid(
                "ssh_keys",
                "each must be one public key, such as `ssh-ed25519 AAAA… me@home`",
            ));
        }
    }
    Ok(())
}

async fn instance_type<S: Store>(store: &S, name: &str) -> Result<InstanceType, CoreError> {
    let nobody = ProjectId::from(Uuid::nil());
    if !name.is_empty() {
        return store.find(nobody, name).await?.ok_or_else(|| CoreError::not_found(Kind::InstanceType, name));
    }
    let all: Vec<InstanceType> = store.list(&Query::default()).await?;
    all.into_iter()
        .find(|t| t.is_default)
        .ok_or_else(|| CoreError::invalid("instance_type", "there is no default type: name one"))
}

/// The caller's own image of that name, or else the public one.
pub(super) async fn visible_image<T: Tx>(tx: &mut T, caller: &Caller, text: &str) -> Result<Image, CoreError> {
    let found: Option<Image> = match super::lookup::as_id(text) {
        Some(id) => tx.get(id).await?,
        None => match tx.find(caller.project, text).await? {
            Some(own) => Some(own),
            None => super::images::public(tx, text).await?,
        },
    };
    let visible = |i: &Image| {
        let deleted = i.meta.deleted_at.is_some() || i.status == ImageStatus::Deleting;
        !deleted && (i.meta.project == caller.project || i.visibility == Visibility::Public)
    };
    let image = found.filter(visible).ok_or_else(|| CoreError::not_found(Kind::Image, text))?;
    match image.status {
        ImageStatus::Ready => Ok(image),
        status => Err(CoreError::precondition(
            "IMAGE_STATE",
            format!("image `{}` is {}: only a READY one can be used", image.meta.name, status.as_str()),
        )),
    }
}

fn root_size(request: &Launch, kind: &InstanceType, image: &Image) -> Result<Gib, CoreError> {
    let least = Gib::holding(image.virtual_size_bytes).map_err(|e| CoreError::invalid("image", e))?;
    if request.root_disk_gib == 0 {
        return Ok(least.max(kind.disk));
    }
    let size = Gib::try_from(u64::from(request.root_disk_gib)).map_err(|e| CoreError::invalid("root_disk_gib", e))?;
    if size < least {
        return Err(CoreError::invalid(
            "root_disk_gib",
            format!("image `{}` needs at least {}", image.meta.name, least.get()),
        ));
    }
    Ok(size)
}

async fn vpc<T: Tx>(tx: &mut T, caller: &Caller, text: &str) -> Result<Vpc, CoreError> {
    if !text.is_empty() {
        return live(tx, caller.project, text).await;
    }
    let query = Query { project: Some(caller.project), ..Query::default() };
    let all: Vec<Vpc> = tx.list(&query).await?;
    all.into_iter()
        .find(|v| v.is_default)
        .ok_or_else(|| CoreError::invalid("vpc", "the project has no default VPC: name one"))
}

async fn subnet<T: Tx>(tx: &mut T, vpc: &Vpc, text: &str) -> Result<Subnet, CoreError> {
    let mut all: Vec<Subnet> = tx.list(&Query::by("vpc_id", &vpc.id())).await?;
    if text.is_empty() {
        if all.len() == 1 {
            return Ok(all.remove(0));
        }
        return all.into_iter().find(|s| s.meta.name == "default").ok_or_else(|| {
            CoreError::invalid("subnet", format!("VPC `{}` has several subnets or none: name one", vpc.meta.name))
        });
    }
    all.into_iter()
        .find(|s| s.meta.name == text || s.meta.id.to_string() == text)
        .ok_or_else(|| CoreError::not_found(Kind::Subnet, text))
}

async fn data_volumes<T: Tx>(tx: &mut T, caller: &Caller, names: &[String]) -> Result<Vec<Volume>, CoreError> {
    let mut volumes: Vec<Volume> = Vec::new();
    for name in names {
        let volume: Volume = live(tx, caller.project, name).await?;
        if volumes.iter().any(|v| v.meta.id == volume.meta.id) {
            return Err(CoreError::invalid("volumes", format!("`{name}` is named twice")));
        }
        if volume.status != VolumeStatus::Available {
            let message =
                format!("volume `{name}` is {}: only an AVAILABLE one can be attached", volume.status.as_str());
            return Err(CoreError::precondition("VOLUME_STATE", message));
        }
        volumes.push(volume);
    }
    Ok(volumes)
}

/// Makes the volume a disk of the instance.
pub(super) async fn attach<T: Tx>(tx: &mut T, mut volume: Volume, instance: &Instance) -> Result<(), CoreError> {
    // A blank volume takes its place now: from here on it may be created there, and only until it has been.
    volume.status = if volume.host.is_none() { VolumeStatus::Creating } else { VolumeStatus::InUse };
    volume.host = Some(instance.host);
    volume.host_name.clone_from(&instance.host_name);
    volume.instance = Some(instance.id());
    volume.instance_name.clone_from(&instance.meta.name);
    tx.update(&mut volume).await?;
    Ok(())
}
