//! The records beside volumes and images.

use std::path::Path;

use cloud_domain::{ImageId, SnapshotId, VolumeId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    adapters::files,
    core::{
        StorageError,
        model::{Format, Image, ImageSpec, Owner, PoolName, Sha256, SnapshotSpec, Source, VolumeSpec},
    },
};

/// The form of records that this release writes, and the only one it reads.
pub const RECORD_FORM: u32 = 1;

/// How far a volume or a snapshot got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// What is there is ours, and worth nothing.
    Creating,
    /// Its data are there; if they are not, they were lost.
    Ready,
    /// Its removal was ordered.
    Removing,
}

/// What is written beside a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// [`RECORD_FORM`].
    pub form: u32,
    /// The volume.
    pub id: VolumeId,
    /// Whose it is.
    pub owner: Owner,
    /// How far it got.
    pub state: VolumeState,
    /// What it started as.
    pub source: Source,
    /// Bytes it had when it was made.
    pub created_size_bytes: u64,
    /// Where it is.
    pub pool: PoolName,
    /// The image that its file stands on, where its source is a copy of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ImageId>,
}

impl VolumeRecord {
    /// The image that its file stands on.
    #[must_use]
    pub fn image(&self) -> Option<ImageId> {
        match self.source {
            Source::Image { image_id } => Some(image_id),
            Source::Blank | Source::Snapshot { .. } | Source::Volume { .. } => self.base,
        }
    }

    /// The record of a volume that is about to be made.
    #[must_use]
    pub fn creating(spec: &VolumeSpec, owner: &Owner) -> Self {
        Self {
            form: RECORD_FORM,
            id: spec.id,
            owner: *owner,
            state: VolumeState::Creating,
            source: spec.source,
            created_size_bytes: spec.size.bytes(),
            pool: spec.pool.clone(),
            base: None,
        }
    }
}

/// What is written beside a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// [`RECORD_FORM`].
    pub form: u32,
    /// The snapshot.
    pub id: SnapshotId,
    /// Whose it is.
    pub owner: Owner,
    /// How far it got.
    pub state: VolumeState,
    /// The volume that it is of.
    pub volume: VolumeId,
    /// Where it is.
    pub pool: PoolName,
    /// The image that its file stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ImageId>,
}

impl SnapshotRecord {
    /// The record of a snapshot that is about to be taken.
    #[must_use]
    pub fn creating(spec: &SnapshotSpec, owner: &Owner) -> Self {
        Self {
            form: RECORD_FORM,
            id: spec.id,
            owner: *owner,
            state: VolumeState::Creating,
            volume: spec.volume,
            pool: spec.pool.clone(),
            base: None,
        }
    }
}

/// What is written beside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// [`RECORD_FORM`].
    pub form: u32,
    /// The image.
    pub id: ImageId,
    /// Whose it is.
    pub owner: Owner,
    /// How its bytes are written.
    pub format: Format,
    /// Bytes of its file.
    pub size_bytes: u64,
    /// SHA-256 of its file.
    pub sha256: Sha256,
    /// Bytes a guest sees.
    pub virtual_size_bytes: u64,
}

impl From<&Image> for ImageRecord {
    fn from(image: &Image) -> Self {
        let ImageSpec { id, format, size_bytes, sha256 } = image.spec;
        let Image { owner, virtual_size_bytes, .. } = *image;
        Self { form: RECORD_FORM, id, owner, format, size_bytes, sha256, virtual_size_bytes }
    }
}

impl From<ImageRecord> for Image {
    fn from(record: ImageRecord) -> Self {
        let ImageRecord { id, owner, format, size_bytes, sha256, virtual_size_bytes, .. } = record;
        Self { spec: ImageSpec { id, format, size_bytes, sha256 }, virtual_size_bytes, owner }
    }
}

/// A record that cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("it is written in form {0}, by a newer release of this agent")]
    Form(u32),
    #[error("it is about another id")]
    Id,
}

pub(super) trait Record: Serialize + DeserializeOwned {
    type Id: Copy + PartialEq + std::fmt::Display;

    fn form(&self) -> u32;
    fn id(&self) -> Self::Id;

    /// The record at `path`, which must be about `id`; `None` where there is none.
    fn read(path: &Path, id: Self::Id) -> Result<Option<Self>, StorageError> {
        let doing = || format!("read the record `{}`", path.display());
        let Some(bytes) = files::read(path).map_err(|e| StorageError::backend(doing(), e))? else { return Ok(None) };
        let record: Self = serde_json::from_slice(&bytes).map_err(|e| StorageError::backend(doing(), e))?;
        if record.form() != RECORD_FORM {
            return Err(StorageError::backend(doing(), RecordError::Form(record.form())));
        }
        if record.id() != id {
            return Err(StorageError::backend(doing(), RecordError::Id));
        }
        Ok(Some(record))
    }

    /// Writes the record to `path`, whole or not at all.
    fn write(&self, path: &Path) -> Result<(), StorageError> {
        let doing = || format!("write the record `{}`", path.display());
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| StorageError::backend(doing(), e))?;
        bytes.push(b'\n');
        files::write(path, &bytes, files::PRIVATE).map_err(|e| StorageError::backend(doing(), e))
    }
}

impl Record for VolumeRecord {
    type Id = VolumeId;

    fn form(&self) -> u32 {
        self.form
    }

    fn id(&self) -> VolumeId {
        self.id
    }
}

impl Record for SnapshotRecord {
    type Id = SnapshotId;

    fn form(&self) -> u32 {
        self.form
    }

    fn id(&self) -> SnapshotId {
        self.id
    }
}

impl Record for ImageRecord {
    type Id = ImageId;

    fn form(&self) -> u32 {
        self.form
    }

    fn id(&self) -> ImageId {
        self.id
    }
}
