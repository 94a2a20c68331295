//! Volumes, images and pools as this host knows them.

use std::{fmt, path::PathBuf, str::FromStr};

use cloud_domain::{CloudId, ImageId, Incarnation, Mib, NameError, ResourceName, SnapshotId, VolumeId};
pub use cloud_image_probe::Format;
use serde::{Deserialize, Serialize};

/// The name of a pool on its host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolName(ResourceName);

impl FromStr for PoolName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 lower-case hexadecimal digits")]
pub struct DigestError;

impl From<[u8; 32]> for Sha256 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Sha256 {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        // One digest has one spelling, so that it can be compared as text elsewhere.
        if text.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(DigestError);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| DigestError)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// Who ordered an object, as written beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The cloud that it belongs to. No other cloud's call touches it.
    pub cloud_id: CloudId,
    /// The epoch of the call that made it.
    pub epoch: u64,
    /// The version of the call that made it.
    pub version: u64,
    /// The incarnation of the instance that it was made for, where there was one.
    pub incarnation: Option<Incarnation>,
}

/// What a volume starts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Source {
    /// Zeros.
    Blank,
    /// A copy of an image.
    Image {
        /// Which.
        image_id: ImageId,
    },
    /// A copy of a snapshot.
    Snapshot {
        /// Which.
        snapshot_id: SnapshotId,
    },
    /// A copy of a volume, as it was at the moment of the copy.
    Volume {
        /// Which.
        volume_id: VolumeId,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("blank"),
            Self::Image { image_id } => write!(f, "image {image_id}"),
            Self::Snapshot { snapshot_id } => write!(f, "snapshot {snapshot_id}"),
            Self::Volume { volume_id } => write!(f, "volume {volume_id}"),
        }
    }
}

/// A volume to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Its id.
    pub id: VolumeId,
    /// Its size, as a guest sees it.
    pub size: Mib,
    /// What it starts as.
    pub source: Source,
    /// Where it is.
    pub pool: PoolName,
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Whose it is.
    pub owner: Owner,
    /// What it started as.
    pub source: Source,
    /// Its size when it was made, in bytes.
    pub created_size_bytes: u64,
    /// Its size now, in bytes, as a guest sees it.
    pub size_bytes: u64,
    /// Bytes that it takes in its pool.
    pub allocated_bytes: u64,
    /// The file or device that a hypervisor opens.
    pub path: PathBuf,
    /// How that is written.
    pub format: Format,
    /// Where it is.
    pub pool: PoolName,
}

/// A snapshot to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// Its id.
    pub id: SnapshotId,
    /// The volume that it is of.
    pub volume: VolumeId,
    /// Where that is.
    pub pool: PoolName,
}

/// A snapshot that is there: never written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Whose it is.
    pub owner: Owner,
    /// The volume that it is of. It may be gone.
    pub volume: VolumeId,
    /// Bytes that a guest would see.
    pub size_bytes: u64,
    /// Bytes that it takes in its pool; with thin volumes, those it shares included.
    pub allocated_bytes: u64,
    /// Where it is.
    pub pool: PoolName,
}

/// An image to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSpec {
    /// Its id.
    pub id: ImageId,
    /// Its format.
    pub format: Format,
    /// Bytes of its file.
    pub size_bytes: u64,
    /// SHA-256 of its file.
    pub sha256: Sha256,
}

/// An image that is there: whole, verified, and with nothing behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// As asked for.
    pub spec: ImageSpec,
    /// Bytes a guest sees.
    pub virtual_size_bytes: u64,
    /// Whose it is.
    pub owner: Owner,
}

/// What a pool has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its name on this host.
    pub name: PoolName,
    /// Its identity.
    pub pool_id: String,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes free, those that the pool can still grow by included.
    pub free_bytes: u64,
    /// More about a pool whose volumes take space only as they are written.
    pub thin: Option<ThinStatus>,
}

/// How full a thin pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThinStatus {
    /// Of its data, in thousandths.
    pub data_permille: u32,
    /// Of its metadata, in thousandths.
    pub metadata_permille: u32,
    /// Bytes that all volumes in it would have if they were full.
    pub virtual_bytes: u64,
}
