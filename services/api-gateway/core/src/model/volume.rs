//! Volumes.

use std::fmt;

use cloud_domain::{DiskLimits, Gib, HostId, ImageId, InstanceId, SnapshotId, VolumeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Meta, Value, meta::resource};
use crate::filter::{Field, FieldKind, ID, LABELS, NAME};

/// The pool that every host has, and that volumes are in where none is named.
pub const DEFAULT_POOL: &str = "default";

/// What users see of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VolumeStatus {
    /// Being made on its host. Only in this status may a missing one be created.
    Creating,
    /// Can be attached. Without a host, it takes its place when it is.
    Available,
    /// Attached.
    InUse,
    /// Could not be made, or its data is missing.
    Error,
    /// Being deleted.
    Deleting,
    /// Gone.
    Deleted,
}

impl VolumeStatus {
    /// The name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Available => "AVAILABLE",
            Self::InUse => "IN_USE",
            Self::Error => "ERROR",
            Self::Deleting => "DELETING",
            Self::Deleted => "DELETED",
        }
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What every row has.
    pub meta: Meta,
    /// Its size.
    pub size: Gib,
    /// What users see.
    pub status: VolumeStatus,
    /// Why.
    pub status_reason: String,
    /// Where it is; none: it takes its place when it is first attached.
    pub host: Option<HostId>,
    /// That host's name.
    pub host_name: String,
    /// The pool there.
    pub pool: String,
    /// The instance it is attached to.
    pub instance: Option<InstanceId>,
    /// That instance's name.
    pub instance_name: String,
    /// Whether it goes with that instance.
    pub root: bool,
    /// The image it is made from.
    pub image: Option<ImageId>,
    /// That image's name.
    pub image_name: String,
    /// It is ERROR because its data are not on its host. It ends with that.
    #[serde(default)]
    pub data_missing: bool,
    /// What it was copied from, where that is no image.
    #[serde(default)]
    pub copied: Option<Copied>,
    /// The size that it is being grown to.
    #[serde(default)]
    pub growing_to: Option<Gib>,
    /// How much its guest may do with it in a second. The disk of its instance has them too.
    #[serde(default)]
    pub limits: VolumeLimits,
    /// They were changed, and the guest that runs does not have them yet.
    #[serde(default)]
    pub limits_pending: bool,
}

/// How much a guest may do with a volume in a second, reads and writes together; 0: as much as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VolumeLimits {
    /// Reads and writes.
    pub iops: u32,
    /// Megabytes (1,000,000 bytes).
    pub mb_per_second: u32,
}

impl fmt::Display for VolumeLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.iops, self.mb_per_second) {
            (0, 0) => f.write_str("no limits"),
            (iops, 0) => write!(f, "{iops} IOPS"),
            (0, mb) => write!(f, "{mb} MB/s"),
            (iops, mb) => write!(f, "{iops} IOPS, {mb} MB/s"),
        }
    }
}

impl VolumeLimits {
    /// As hypervisors have them.
    #[must_use]
    pub fn of_disk(self) -> DiskLimits {
        DiskLimits { total_iops_sec: self.iops.into(), total_bytes_sec: u64::from(self.mb_per_second) * 1_000_000 }
    }
}

/// What a volume was copied from, and its name then.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Copied {
    /// A snapshot.
    Snapshot {
        /// Which.
        id: SnapshotId,
        /// Its name.
        name: String,
    },
    /// Another volume.
    Volume {
        /// Which.
        id: VolumeId,
        /// Its name.
        name: String,
    },
}

impl Copied {
    fn id(&self) -> Uuid {
        match self {
            Self::Snapshot { id, .. } => *id.as_uuid(),
            Self::Volume { id, .. } => *id.as_uuid(),
        }
    }
}

/// What a volume starts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeSource {
    /// Zeros.
    Blank,
    /// A copy of an image.
    Image(ImageId),
    /// A copy of a snapshot.
    Snapshot(SnapshotId),
    /// A copy of a volume.
    Volume(VolumeId),
}

impl Volume {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.meta.id.into()
    }

    /// It belongs to no instance any more. One that no guest ever saw, and whose data are gone, has its place nowhere again.
    pub fn release(&mut self) {
        if self.status == VolumeStatus::Creating {
            self.host = None;
            self.host_name.clear();
        }
        // One whose data are missing stays ERROR, attached or not.
        if !self.data_missing {
            self.status = VolumeStatus::Available;
            self.status_reason.clear();
        }
        self.instance = None;
        self.instance_name.clear();
        self.limits_pending = false;
    }

    /// What it starts as.
    #[must_use]
    pub fn source(&self) -> VolumeSource {
        match (&self.copied, self.image) {
            (Some(Copied::Snapshot { id, .. }), _) => VolumeSource::Snapshot(*id),
            (Some(Copied::Volume { id, .. }), _) => VolumeSource::Volume(*id),
            (None, Some(image)) => VolumeSource::Image(image),
            (None, None) => VolumeSource::Blank,
        }
    }
}

resource!(Volume, Volume, "volumes", |row| {
    "host_id": Value::text(row.host),
    "host_name": Value::Text(row.host_name.clone()),
    "instance_id": Value::text(row.instance),
    "status": Value::Text(row.status.as_str().to_owned()),
    "source_id": Value::text(row.copied.as_ref().map(Copied::id)),
}, fields: &[
    ID,
    NAME,
    LABELS,
    Field::new("status", FieldKind::Word(STATUSES), &["status"]).column("status"),
    Field::new("host", FieldKind::Text, &["host_name"]).column("host_name"),
    Field::new("pool", FieldKind::Text, &["pool"]),
    Field::new("instance", FieldKind::Text, &["instance_name"]),
    Field::new("image", FieldKind::Text, &["image_name"]),
    Field::new("root", FieldKind::Flag, &["root"]),
    Field::new("size_gib", FieldKind::Whole, &["size"]),
    Field::new("iops", FieldKind::Whole, &["limits", "iops"]),
    Field::new("mb_per_second", FieldKind::Whole, &["limits", "mb_per_second"]),
    Field::new("limits_pending", FieldKind::Flag, &["limits_pending"]),
]);

/// As the contract has them, and as rows do.
const STATUSES: &[(&str, &str)] = &[
    ("CREATING", "CREATING"),
    ("AVAILABLE", "AVAILABLE"),
    ("IN_USE", "IN_USE"),
    ("ERROR", "ERROR"),
    ("DELETING", "DELETING"),
    ("DELETED", "DELETED"),
];
