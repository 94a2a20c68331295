//! What went wrong, as the gateway reads it. The reasons are part of the contract.

use std::{error::Error, io};

use cloud_service_kit::{
    ServiceError,
    error::{Code, chain},
};

use crate::core::StorageError;

impl From<StorageError> for ServiceError {
    fn from(error: StorageError) -> Self {
        use StorageError as E;
        let message = error.to_string();
        match error {
            E::Invalid { field, message } => Self::invalid(field, message),
            E::NoSuchPool(_) => Self::invalid("spec.pool", message),
            E::PoolNotHealthy { .. } => Self::unavailable("POOL_NOT_HEALTHY", message),
            E::DataMissing(id) | E::DataLost(id) => {
                Self::new(Code::NotFound, "DATA_MISSING", message).with_resource("volume", id)
            }
            E::NoSuchVolume(id) => Self::new(Code::NotFound, "NOT_FOUND", message).with_resource("volume", id),
            E::NoSuchSnapshot(id) => Self::new(Code::NotFound, "NOT_FOUND", message).with_resource("snapshot", id),
            E::SnapshotMissing(id) | E::SnapshotLost(id) => {
                Self::new(Code::NotFound, "DATA_MISSING", message).with_resource("snapshot", id)
            }
            // Trying again does not help until somebody acts, so it is no failed precondition that may pass.
            E::CopyInUse { volume, .. } => {
                Self::new(Code::OutOfRange, "COPY_IN_USE", message).with_resource("volume", volume)
            }
            E::NoSuchImage(id) => Self::new(Code::NotFound, "IMAGE_NOT_CACHED", message).with_resource("image", id),
            E::ImageNotCached { image, .. } => {
                Self::failed_precondition("IMAGE_NOT_CACHED", message).with_resource("image", image)
            }
            E::Differs { .. } => Self::new(Code::AlreadyExists, "SPEC_DIFFERS", message),
            E::OtherCloud { .. } => Self::failed_precondition("OTHER_CLOUD", message),
            E::Foreign(_) => Self::failed_precondition("FOREIGN_OBJECT", message),
            E::ImageInUse { image, .. } => {
                Self::failed_precondition("IMAGE_IN_USE", message).with_resource("image", image)
            }
            E::VolumeInUse(id) => Self::failed_precondition("VOLUME_IN_USE", message).with_resource("volume", id),
            E::NoSpace { ref pool, .. } => full(format!("pool:{pool}"), message),
            E::AtLimit { ref pool, .. } => full(format!("pool:{pool}"), message).with_reason("POOL_LIMIT"),
            E::Hung { .. } => Self::deadline_exceeded(message).with_reason("HUNG"),
            E::Corrupt { image, .. } => {
                Self::new(Code::InvalidArgument, "IMAGE_CORRUPT", message).with_resource("image", image)
            }
            E::BadImage { image, .. } => {
                Self::new(Code::InvalidArgument, "IMAGE_REFUSED", message).with_resource("image", image)
            }
            E::Slow { .. } => Self::deadline_exceeded(message),
            E::Stalled { .. } => Self::deadline_exceeded(message).with_reason("STALLED"),
            E::NotAdmitted(refusal) => *refusal,
            E::Stopping => Self::unavailable("STOPPING", message),
            E::Backend { source, .. } if is_full(source.as_ref()) => {
                full("pool".into(), format!("{message}: the pool is full")).with_source(source)
            }
            E::Backend { source, .. } => {
                let message = format!("{message}; the storage-agent's log has the cause");
                Self::new(Code::Internal, "BACKEND_FAILED", message).with_source(source)
            }
        }
    }
}

fn full(subject: String, message: String) -> ServiceError {
    ServiceError::resource_exhausted(subject, message).with_reason("POOL_FULL")
}

/// Whether an error comes from a full file system, or thin pool, or volume group; `qemu-img` and the LVM commands say so
/// only in words.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        cause = error.source();
    }
    let said = chain(error).to_lowercase();
    [
        "no space left on device",
        "insufficient free space",
        "insufficient free extents",
        "reached threshold",
        "exceeds maximum metadata size",
    ]
    .iter()
    .any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let code = |source: io::Error| ServiceError::from(StorageError::backend("write", source)).code;
        assert_eq!(code(io::ErrorKind::StorageFull.into()), Code::ResourceExhausted);
        assert_eq!(code(io::Error::other("qemu-img: x: No space left on device")), Code::ResourceExhausted);
        assert_eq!(code(io::ErrorKind::PermissionDenied.into()), Code::Internal);
    }

    #[test]
    fn the_cause_of_a_failure_is_logged_and_not_answered() {
        let error = ServiceError::from(StorageError::backend("read a record", io::Error::other("secret")));
        assert!(!error.message.contains("secret") && error.source.is_some());
    }
}
