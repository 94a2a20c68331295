//! The port that a kind of pool implements: `directory` and `lvm-thin`.

use async_trait::async_trait;
use bytes::Bytes;
use cloud_domain::{ImageId, Mib, SnapshotId, VolumeId};
use cloud_image_probe::ImageInfo;

use super::{
    error::StorageError,
    model::{Image, ImageSpec, Owner, PoolName, PoolStatus, Snapshot, SnapshotSpec, Volume, VolumeSpec},
};

/// What a pool says about a volume id. Every answer is a fact: the backend proved that it is the right, healthy one, or
/// gave an error instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundVolume {
    /// Nothing has the id.
    Nothing,
    /// Its creation or its removal was begun and not finished; nobody was told that it exists.
    Unfinished(Owner),
    /// Its record is there, its data are not.
    Lost(Owner),
    /// Something that no agent made has its place.
    Foreign(std::path::PathBuf),
    /// It is there.
    Whole(Volume),
}

/// What a pool says about a snapshot id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundSnapshot {
    /// Nothing has the id.
    Nothing,
    /// Taking or removing it was begun and not finished; nobody was told that it exists.
    Unfinished(Owner),
    /// Its record is there, its data are not.
    Lost(Owner),
    /// Something that no agent made has its place.
    Foreign(std::path::PathBuf),
    /// It is there.
    Whole(Snapshot),
}

/// What a pool says about an image id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundImage {
    /// Nothing has the id.
    Nothing,
    /// Its record is there, its bytes are not.
    Lost(Image),
    /// Something that no agent made has its place.
    Foreign(std::path::PathBuf),
    /// It is there.
    Whole(Image),
}

/// A pool. The caller serialises the operations on one id; operations on different ids run at the same time.
///
/// # Errors
/// Every method answers [`StorageError::PoolNotHealthy`] where the pool cannot be proved to be the one that it was at
/// the start.
#[async_trait]
pub trait StorageBackend: Send + Sync + 'static {
    /// The kind: `directory` or `lvm-thin`.
    fn kind(&self) -> &'static str;

    /// The pool's name on this host.
    fn pool(&self) -> &PoolName;

    /// Proves that the pool is the right one and can be written to, and says what it has.
    async fn status(&self) -> Result<PoolStatus, StorageError>;

    /// The pool's space, without the proof by writing.
    async fn space(&self) -> Result<PoolStatus, StorageError>;

    /// What has this id.
    async fn find_volume(&self, id: VolumeId) -> Result<FoundVolume, StorageError>;

    /// Makes a volume where there is [`FoundVolume::Nothing`] or [`FoundVolume::Unfinished`]. Failing or cut off at any
    /// point, it leaves one of the two. Its source, if any, is there and stays. [`StorageError::VolumeInUse`] where the
    /// source is a volume that cannot be copied while a process has it open.
    async fn create_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, StorageError>;

    /// Makes a whole volume one that a hypervisor can open, where it is not: after the host was started, say.
    async fn prepare_volume(&self, volume: &Volume) -> Result<(), StorageError>;

    /// Removes what [`StorageBackend::find_volume`] calls whole, lost or unfinished. [`StorageError::VolumeInUse`] where
    /// a process has it open.
    async fn remove_volume(&self, id: VolumeId) -> Result<(), StorageError>;

    /// Grows a whole volume. [`StorageError::VolumeInUse`] where it cannot be grown while a process has it open.
    async fn grow_volume(&self, id: VolumeId, size: Mib) -> Result<Volume, StorageError>;

    /// Every whole volume that can be read; that one is not among them says nothing of it.
    async fn volumes(&self) -> Result<Vec<Volume>, StorageError>;

    /// What has this id.
    async fn find_snapshot(&self, id: SnapshotId) -> Result<FoundSnapshot, StorageError>;

    /// Takes a snapshot of a whole volume, where there is [`FoundSnapshot::Nothing`] or [`FoundSnapshot::Unfinished`]:
    /// what is on the volume at one moment, as after a loss of power. Failing or cut off at any point, it leaves one of
    /// the two. [`StorageError::VolumeInUse`] where that cannot be had while a process has the volume open.
    async fn create_snapshot(&self, spec: &SnapshotSpec, owner: &Owner) -> Result<Snapshot, StorageError>;

    /// Removes what [`StorageBackend::find_snapshot`] calls whole, lost or unfinished. Volumes made from it stay.
    async fn remove_snapshot(&self, id: SnapshotId) -> Result<(), StorageError>;

    /// Every whole snapshot that can be read; that one is not among them says nothing of it.
    async fn snapshots(&self) -> Result<Vec<Snapshot>, StorageError>;

    /// What stands on this image, in words: volumes and snapshots, unfinished and lost ones included.
    async fn users_of_image(&self, id: ImageId) -> Result<Vec<String>, StorageError>;

    /// What has this id.
    async fn find_image(&self, id: ImageId) -> Result<FoundImage, StorageError>;

    /// Begins to take an image's bytes, apart from whatever has the id now.
    async fn begin_image(&self, spec: &ImageSpec) -> Result<Box<dyn ImageUpload>, StorageError>;

    /// Removes an image, whole or lost.
    async fn remove_image(&self, id: ImageId) -> Result<(), StorageError>;

    /// Every whole image.
    async fn images(&self) -> Result<Vec<Image>, StorageError>;
}

/// The bytes of an image on their way. Dropped before [`ImageUpload::commit`], it leaves nothing.
#[async_trait]
pub trait ImageUpload: Send {
    /// Takes the next bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError>;

    /// Puts the bytes on stable storage and says what they are. [`StorageError::BadImage`] where they are no image that
    /// may be used.
    async fn seal(&mut self) -> Result<ImageInfo, StorageError>;

    /// Makes the bytes the image, where there is [`FoundImage::Nothing`] or [`FoundImage::Lost`].
    async fn commit(self: Box<Self>, image: &Image) -> Result<(), StorageError>;
}
