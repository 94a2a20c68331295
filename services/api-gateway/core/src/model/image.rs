//! Images.

use cloud_domain::ImageId;
use serde::{Deserialize, Serialize};

use super::{Meta, Value, meta::resource};
use crate::filter::{Field, FieldKind, ID, LABELS, NAME};

/// What users see of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ImageStatus {
    /// Its bytes are on their way.
    Importing,
    /// Can be launched.
    Ready,
    /// Could not be imported.
    Error,
    /// Being deleted.
    Deleting,
    /// Gone.
    Deleted,
}

impl ImageStatus {
    /// The name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Importing => "IMPORTING",
            Self::Ready => "READY",
            Self::Error => "ERROR",
            Self::Deleting => "DELETING",
            Self::Deleted => "DELETED",
        }
    }
}

/// Who sees an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Visibility {
    /// Its project.
    Private,
    /// Every project.
    Public,
}

/// How an image's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// QEMU's copy-on-write format.
    Qcow2,
    /// As on a disk.
    Raw,
}

impl ImageFormat {
    /// The name that QEMU and the agents use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageSource {
    /// An http or https URL.
    Url(String),
    /// A file beneath the operator's import directory.
    File(String),
    /// Bytes sent by the caller.
    Upload,
}

/// A disk to launch instances from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What every row has.
    pub meta: Meta,
    /// Who sees it.
    pub visibility: Visibility,
    /// What users see.
    pub status: ImageStatus,
    /// Why.
    pub status_reason: String,
    /// Where it comes from.
    pub source: ImageSource,
    /// What it must be, or is once READY; none: found out.
    pub format: Option<ImageFormat>,
    /// SHA-256 in lower-case hex: what it must be, or is once READY; empty: not checked.
    pub sha256: String,
    /// Bytes as imported.
    pub size_bytes: u64,
    /// Bytes a guest sees.
    pub virtual_size_bytes: u64,
    /// Whose machine code is on it: one of [`ARCHITECTURES`].
    #[serde(default = "first")]
    pub architecture: String,
}

/// What images can be of, as hosts name their own architecture.
pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Before images had one they were launched on x86-64 only.
fn first() -> String {
    ARCHITECTURES[0].to_owned()
}

impl Image {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> ImageId {
        self.meta.id.into()
    }
}

resource!(Image, Image, "images", |row| {
    "status": Value::Text(row.status.as_str().to_owned()),
    "public": Value::Int(i64::from(row.visibility == Visibility::Public)),
}, fields: &[
    ID,
    NAME,
    LABELS,
    Field::new("status", FieldKind::Word(STATUSES), &["status"]).column("status"),
    Field::new("visibility", FieldKind::Word(&[("PRIVATE", "PRIVATE"), ("PUBLIC", "PUBLIC")]), &["visibility"]),
    Field::new("format", FieldKind::Word(&[("QCOW2", "qcow2"), ("RAW", "raw")]), &["format"]),
    Field::new("sha256", FieldKind::Text, &["sha256"]),
    Field::new("architecture", FieldKind::Text, &["architecture"]),
    Field::new("project", FieldKind::Text, &["meta", "project_name"]),
]);

/// As the contract has them, and as rows do.
const STATUSES: &[(&str, &str)] = &[
    ("IMPORTING", "IMPORTING"),
    ("READY", "READY"),
    ("ERROR", "ERROR"),
    ("DELETING", "DELETING"),
    ("DELETED", "DELETED"),
];
