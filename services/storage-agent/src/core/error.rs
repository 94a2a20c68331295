//! What can go wrong with storage.

use std::path::PathBuf;

use cloud_domain::{CloudId, ImageId, SnapshotId, VolumeId};
use cloud_image_probe::ProbeError;
use cloud_service_kit::ServiceError;

use super::model::PoolName;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Something in the request is wrong.
    #[error("{field}: {message}")]
    Invalid {
        /// The field of the request.
        field: &'static str,
        /// What is wrong with it, with its value.
        message: String,
    },
    /// The pool cannot be trusted now, so that nothing it says is a fact.
    #[error("pool `{pool}` is not healthy: {reason}")]
    PoolNotHealthy {
        /// The pool.
        pool: PoolName,
        /// What is wrong with it.
        reason: String,
    },
    /// The host has no such pool.
    #[error("this host has no pool `{0}`")]
    NoSuchPool(PoolName),
    /// A volume that must be there is not.
    #[error("volume {0} is not on this host, and may not be created: its data are missing")]
    DataMissing(VolumeId),
    /// A volume's record is there and its data are not.
    #[error("the data of volume {0} are gone from this host; it is not created again over them")]
    DataLost(VolumeId),
    /// No such volume.
    #[error("volume {0} is not on this host")]
    NoSuchVolume(VolumeId),
    /// No such snapshot.
    #[error("snapshot {0} is not on this host")]
    NoSuchSnapshot(SnapshotId),
    /// A snapshot that must be there is not.
    #[error("snapshot {0} is not on this host, and may not be taken: its data are missing")]
    SnapshotMissing(SnapshotId),
    /// A snapshot's record is there and its data are not.
    #[error("the data of snapshot {0} are gone from this host; it is not taken again")]
    SnapshotLost(SnapshotId),
    /// A volume that a process has open cannot be copied in this kind of pool.
    #[error(
        "volume {volume} is in use by a running guest, and a {kind} pool copies only what no process writes: stop its \
         instance first, or keep the volume in an lvm-thin pool"
    )]
    CopyInUse {
        /// The volume.
        volume: VolumeId,
        /// The kind of its pool.
        kind: &'static str,
    },
    /// No such image.
    #[error("image {0} is not cached on this host")]
    NoSuchImage(ImageId),
    /// The image that a volume stands on is not here.
    #[error("volume {volume} stands on image {image}, which is not cached on this host; put it first")]
    ImageNotCached {
        /// The volume.
        volume: VolumeId,
        /// Its image.
        image: ImageId,
    },
    /// Something else has the id.
    #[error("{what} exists with another specification: {difference}")]
    Differs {
        /// Which object.
        what: String,
        /// What is different.
        difference: String,
    },
    /// It belongs to another cloud.
    #[error("{what} belongs to cloud {cloud}; it is not touched")]
    OtherCloud {
        /// Which object.
        what: String,
        /// Its owner.
        cloud: CloudId,
    },
    /// A file that no agent made has its place.
    #[error("`{0}` was not made by this agent; it is not touched. Move it away")]
    Foreign(PathBuf),
    /// Volumes or snapshots stand on an image.
    #[error("image {image} is in use by {count} volumes or snapshots, such as {example}")]
    ImageInUse {
        /// The image.
        image: ImageId,
        /// How many.
        count: usize,
        /// One of them.
        example: String,
    },
    /// A process has a volume open.
    #[error("volume {0} is in use by a running process; detach it or stop its instance first")]
    VolumeInUse(VolumeId),
    /// There is not enough space.
    #[error("pool `{pool}` has {free} bytes free; {needed} are needed and {reserve} are kept in reserve")]
    NoSpace {
        /// The pool.
        pool: PoolName,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
        /// Bytes kept.
        reserve: u64,
    },
    /// The pool is as full as it may be.
    #[error("pool `{pool}` is at its limit: {what} is {is}, and may be {limit}")]
    AtLimit {
        /// The pool.
        pool: PoolName,
        /// What is limited.
        what: &'static str,
        /// What it is.
        is: String,
        /// What it may be.
        limit: String,
    },
    /// A command was killed because it did not end. What it did by then is found out by the next call.
    #[error("{what} did not end within {seconds} s and was given up; the pool's disk may not answer")]
    Hung {
        /// What was run.
        what: String,
        /// How long it was waited.
        seconds: u64,
    },
    /// The bytes that came are not those that were announced.
    #[error("image {image} is not what was announced: {difference}")]
    Corrupt {
        /// The image.
        image: ImageId,
        /// What is different.
        difference: String,
    },
    /// The bytes that came are no image that may be used.
    #[error("image {image} is refused: {source}")]
    BadImage {
        /// The image.
        image: ImageId,
        /// Why.
        source: ProbeError,
    },
    /// Another operation on the object, or the disk, takes too long. What was begun goes on.
    #[error("{what} did not finish within {seconds} s; it goes on, ask again")]
    Slow {
        /// Which operation.
        what: String,
        /// The deadline.
        seconds: u64,
    },
    /// The bytes of an image stopped coming.
    #[error("no bytes of image {image} came for {seconds} s")]
    Stalled {
        /// The image.
        image: ImageId,
        /// How long it was waited.
        seconds: u64,
    },
    /// The call is older than one that was seen, or meant for another session.
    #[error("the call is not admitted")]
    NotAdmitted(#[source] Box<ServiceError>),
    /// The agent stops.
    #[error("the storage-agent is shutting down")]
    Stopping,
    /// The backend failed.
    #[error("failed to {doing}")]
    Backend {
        /// What was tried.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StorageError {
    /// The backend failed at `doing`.
    pub fn backend(doing: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Backend { doing: doing.into(), source: source.into() }
    }
}
