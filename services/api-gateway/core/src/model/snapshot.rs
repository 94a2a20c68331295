//! Snapshots.

use cloud_domain::{Gib, HostId, SnapshotId, VolumeId};
use serde::{Deserialize, Serialize};

use super::{Meta, Value, meta::resource};
use crate::filter::{Field, FieldKind, ID, LABELS, NAME};

/// What users see of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SnapshotStatus {
    /// Being taken. Only in this status may a missing one be taken.
    Creating,
    /// Can be restored.
    Available,
    /// Could not be taken, or its data are missing.
    Error,
    /// Being deleted.
    Deleting,
    /// Gone.
    Deleted,
}

impl SnapshotStatus {
    /// The name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Available => "AVAILABLE",
            Self::Error => "ERROR",
            Self::Deleting => "DELETING",
            Self::Deleted => "DELETED",
        }
    }
}

/// What a volume was at one moment. It is where its volume is, and outlives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What every row has.
    pub meta: Meta,
    /// The volume that it is of.
    pub volume: VolumeId,
    /// That volume's name then.
    pub volume_name: String,
    /// The volume's size then.
    pub size: Gib,
    /// What users see.
    pub status: SnapshotStatus,
    /// Why.
    pub status_reason: String,
    /// Where it is.
    pub host: HostId,
    /// That host's name.
    pub host_name: String,
    /// The pool there.
    pub pool: String,
    /// It is ERROR because its data are not on its host. It ends with that.
    #[serde(default)]
    pub data_missing: bool,
}

impl Snapshot {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        self.meta.id.into()
    }
}

resource!(Snapshot, Snapshot, "snapshots", |row| {
    "host_id": Value::text(Some(row.host)),
    "host_name": Value::Text(row.host_name.clone()),
    "volume_id": Value::text(Some(row.volume)),
    "status": Value::Text(row.status.as_str().to_owned()),
}, fields: &[
    ID,
    NAME,
    LABELS,
    Field::new("status", FieldKind::Word(STATUSES), &["status"]).column("status"),
    Field::new("host", FieldKind::Text, &["host_name"]).column("host_name"),
    Field::new("volume", FieldKind::Text, &["volume_name"]),
    Field::new("size_gib", FieldKind::Whole, &["size"]),
]);

/// As the contract has them, and as rows do.
const STATUSES: &[(&str, &str)] = &[
    ("CREATING", "CREATING"),
    ("AVAILABLE", "AVAILABLE"),
    ("ERROR", "ERROR"),
    ("DELETING", "DELETING"),
    ("DELETED", "DELETED"),
];
