//! Instances and the sizes they come in.

use std::net::Ipv4Addr;

use cloud_domain::{
    Gib, HostId, ImageId, Incarnation, InstanceId, InstanceStatus, MacAddr, PortId, SubnetId, VolumeId, VpcId,
};
use serde::{Deserialize, Serialize};

use super::{Meta, Timestamp, Value, Volume, VolumeLimits, meta::resource};
use crate::filter::{Field, FieldKind, ID, LABELS, NAME};

/// What an instance shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Desired {
    /// Run.
    Running,
    /// Not run, its disk kept.
    Stopped,
    /// Be gone.
    Deleted,
    /// Have nothing left on its host: it could not be provisioned.
    Cleaned,
}

/// What happens when a guest ends without having been asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RestartPolicy {
    /// It stays off.
    #[default]
    Never,
    /// It is started again where it crashed.
    OnFailure,
    /// It is started again.
    Always,
}

/// A NIC of an instance, with the names users see. The truth about its address is the port's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// The port.
    pub port: PortId,
    /// Its VPC.
    pub vpc: VpcId,
    /// The VPC's name.
    pub vpc_name: String,
    /// Its subnet.
    pub subnet: SubnetId,
    /// The subnet's name.
    pub subnet_name: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// A disk of an instance, with what users see of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The volume.
    pub volume: VolumeId,
    /// The volume's name.
    pub name: String,
    /// Whether it goes with the instance.
    pub root: bool,
    /// Its size.
    pub size: Gib,
    /// How much the guest is to do with it in a second.
    #[serde(default)]
    pub limits: VolumeLimits,
    /// What is under way with it; none: nothing.
    #[serde(default)]
    pub change: Option<DiskChange>,
}

/// What is under way with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DiskChange {
    /// Its guest is being given it.
    Attaching,
    /// Its guest is asked to release it. It is gone from the row when the hypervisor says that the guest has.
    Detaching,
    /// Its guest, which has it, is being given other limits.
    Limiting,
}

impl Disk {
    /// A volume as a disk that nothing is under way with.
    #[must_use]
    pub fn of(volume: &Volume) -> Self {
        let (name, root, size) = (volume.meta.name.clone(), volume.root, volume.size);
        Self { volume: volume.id(), name, root, size, limits: volume.limits, change: None }
    }

    /// Whether the guest is to have it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.change != Some(DiskChange::Detaching)
    }
}

/// Disks of an instance at most, the root disk among them: as many as hypervisors keep room for.
pub const MAX_DISKS: usize = 16;

/// Bytes that a host keeps of an instance's row (`InstanceSpec.record`).
const RECORD: usize = 1 << 20;

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// What every row has.
    pub meta: Meta,
    /// The image its root disk is made from.
    pub image: ImageId,
    /// The image's name then.
    pub image_name: String,
    /// The type's name.
    pub instance_type: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// What users see.
    pub status: InstanceStatus,
    /// Why.
    pub status_reason: String,
    /// What it shall be.
    pub desired: Desired,
    /// Where it is. Set by the launch.
    pub host: HostId,
    /// That host's name.
    pub host_name: String,
    /// The start it is at.
    pub incarnation: Incarnation,
    /// Reboots asked for.
    pub boot_generation: u64,
    /// Reboots seen done.
    #[serde(default)]
    pub booted_generation: u64,
    /// Its NICs, in order.
    pub nics: Vec<Nic>,
    /// Its disks, the root disk first.
    pub disks: Vec<Disk>,
    /// Public keys given at launch.
    pub ssh_keys: Vec<String>,
    /// user-data given at launch.
    pub user_data: String,
    /// When the current run began.
    pub started_at: Option<Timestamp>,
    /// Whether it ever ran: from then on its root disk holds data.
    pub has_run: bool,
    /// Whether its processors and memory are claimed on its host.
    pub holds_capacity: bool,
    /// When it was asked to stop.
    pub stop_requested_at: Option<Timestamp>,
    /// Until when it may be STARTING.
    pub start_deadline: Option<Timestamp>,
    /// What happens when its guest ends by itself.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// How often in a row its guest ended soon after it was started.
    #[serde(default)]
    pub quick_ends: u32,
    /// When a guest that ended by itself is started again.
    #[serde(default)]
    pub restart_at: Option<Timestamp>,
    /// Its volumes whose data are missing. While there are any it is ERROR, and nothing is done to its guest.
    #[serde(default)]
    pub missing: Vec<VolumeId>,
    /// Instances of one group of a project go to different hosts; empty: it is in none.
    #[serde(default)]
    pub anti_affinity_group: String,
    /// Why it was placed where it is; none: it was placed by an earlier release.
    #[serde(default)]
    pub placed: Option<Placed>,
}

/// How a host was chosen, as of then.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placed {
    /// `spread` or `pack`.
    pub strategy: String,
    /// Hosts there were.
    pub hosts: u32,
    /// Hosts that passed every filter but that of room.
    pub fitting: u32,
    /// The first of those that had room, the best first; the chosen one among them.
    pub candidates: Vec<PlacedCandidate>,
    /// The first of those that did not pass, and why: name and filter.
    pub refused: Vec<(String, String)>,
}

/// A host that an instance could have been placed on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlacedCandidate {
    /// Its name.
    pub host: String,
    /// The lower the better.
    pub score: u64,
    /// How full it was, in thousandths of its memory.
    pub fill: u64,
    /// Whether it was known to have the image.
    pub cached: bool,
    /// Instances of the group on it.
    pub group: u64,
    /// Whether it was chosen.
    pub chosen: bool,
}

impl Instance {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.meta.id.into()
    }

    /// The row as its host keeps it, for a database that has forgotten it: see [`Self::from_record`]. Empty where it is longer than hosts keep.
    ///
    /// # Errors
    /// It cannot be written as JSON, which does not happen.
    pub fn to_record(&self) -> Result<String, serde_json::Error> {
        // As it is when what is under way with its disks is done.
        let wanted = self.disks.iter().filter(|disk| disk.is_wanted());
        let disks = wanted.map(|disk| Disk { change: None, ..disk.clone() }).collect();
        let record =
            serde_json::to_string(&Self { placed: None, status_reason: String::new(), disks, ..self.clone() })?;
        Ok(if record.len() > RECORD { String::new() } else { record })
    }

    /// What [`Self::to_record`] made, by this release or an earlier one.
    ///
    /// # Errors
    /// It is none of those.
    pub fn from_record(record: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(record)
    }
}

resource!(Instance, Instance, "instances", |row| {
    "host_id": Value::Text(row.host.to_string()),
    "host_name": Value::Text(row.host_name.clone()),
    "status": Value::Text(row.status.as_str().to_owned()),
    "affinity_group": Value::Text(row.anti_affinity_group.clone()),
}, fields: &[
    ID,
    NAME,
    LABELS,
    Field::new("status", FieldKind::Word(STATUSES), &["status"]).column("status"),
    Field::new("host", FieldKind::Text, &["host_name"]).column("host_name"),
    Field::new("image", FieldKind::Text, &["image_name"]),
    Field::new("instance_type", FieldKind::Text, &["instance_type"]),
    Field::new("vcpus", FieldKind::Whole, &["vcpus"]),
    Field::new("memory_mib", FieldKind::Whole, &["memory_mib"]),
]);

/// As the contract has them, and as rows do.
const STATUSES: &[(&str, &str)] = &[
    ("STARTING", "STARTING"),
    ("RUNNING", "RUNNING"),
    ("STOPPING", "STOPPING"),
    ("STOPPED", "STOPPED"),
    ("PAUSED", "PAUSED"),
    ("ERROR", "ERROR"),
    ("DELETING", "DELETING"),
    ("DELETED", "DELETED"),
];

/// A size of instances. Belongs to the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceType {
    /// What every row has.
    pub meta: Meta,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// The root disk's size.
    pub disk: Gib,
    /// Whether a launch that names no type gets it.
    pub is_default: bool,
}

resource!(InstanceType, InstanceType, "instance_types", |row| {}, fields: &[
    NAME,
    Field::new("vcpus", FieldKind::Whole, &["vcpus"]),
    Field::new("memory_mib", FieldKind::Whole, &["memory_mib"]),
    Field::new("disk_gib", FieldKind::Whole, &["disk"]),
    Field::new("is_default", FieldKind::Flag, &["is_default"]),
]);
