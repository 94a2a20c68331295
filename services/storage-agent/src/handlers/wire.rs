//! The contract's messages to the core's types and back.

use std::str::FromStr;

use cloud_contracts::agent as wire;
use cloud_domain::{ImageId, Mib, VolumeId};
use cloud_service_kit::ServiceError;

use crate::core::{
    call::Call,
    model::{Image, ImageSpec, PoolName, PoolStatus, Source, Volume, VolumeSpec},
};

/// The pool that a request means where it names none.
pub const DEFAULT_POOL: &str = "default";

/// Reads a field of text.
pub(super) fn parse<T>(field: &str, text: &str) -> Result<T, ServiceError>
where
    T: FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error: T::Err| ServiceError::invalid(field, error.to_string()))
}

pub(super) fn missing(field: &str) -> ServiceError {
    ServiceError::invalid(field, "is missing")
}

pub(super) fn call(prefix: &str, context: Option<wire::CallContext>) -> Result<Call, ServiceError> {
    let field = |name: &str| format!("{prefix}context.{name}");
    let context = context.ok_or_else(|| missing(&format!("{prefix}context")))?;
    let incarnation = match context.incarnation.as_str() {
        "" => None,
        text => Some(parse(&field("incarnation"), text)?),
    };
    Ok(Call {
        cloud_id: parse(&field("cloud_id"), &context.cloud_id)?,
        session_id: context.session_id,
        epoch: context.epoch,
        version: context.version,
        incarnation,
    })
}

pub(super) fn mebibytes(field: &str, bytes: u64) -> Result<Mib, ServiceError> {
    if !bytes.is_multiple_of(1 << 20) {
        return Err(ServiceError::invalid(field, format!("must be a multiple of 1 MiB (1048576), is {bytes}")));
    }
    let mib = Mib::try_from(bytes >> 20);
    mib.map_err(|error| ServiceError::invalid(field, format!("in MiB, {error}")))
}

pub(super) fn volume_spec(spec: Option<wire::VolumeSpec>) -> Result<VolumeSpec, ServiceError> {
    use wire::volume_spec::Source as Wire;
    let spec = spec.ok_or_else(|| missing("spec"))?;
    let source = match spec.source {
        None => Source::Blank,
        Some(Wire::ImageId(id)) => Source::Image { image_id: parse("spec.image_id", &id)? },
        Some(Wire::SnapshotId(_)) => {
            return Err(ServiceError::invalid("spec.snapshot_id", "volumes from snapshots are not built yet"));
        }
        Some(Wire::VolumeId(_)) => {
            return Err(ServiceError::invalid("spec.volume_id", "volumes from volumes are not built yet"));
        }
    };
    let pool = if spec.pool.is_empty() { DEFAULT_POOL } else { &spec.pool };
    Ok(VolumeSpec {
        id: parse::<VolumeId>("spec.id", &spec.id)?,
        size: mebibytes("spec.size_bytes", spec.size_bytes)?,
        source,
        pool: parse::<PoolName>("spec.pool", pool)?,
    })
}

pub(super) fn image_spec(header: &wire::ImageHeader) -> Result<ImageSpec, ServiceError> {
    if header.size_bytes == 0 {
        return Err(ServiceError::invalid("header.size_bytes", "must be more than 0"));
    }
    Ok(ImageSpec {
        id: parse::<ImageId>("header.id", &header.id)?,
        format: parse("header.format", &header.format)?,
        size_bytes: header.size_bytes,
        sha256: parse("header.sha256", &header.sha256)?,
    })
}

pub(super) fn volume(volume: &Volume) -> wire::Volume {
    wire::Volume {
        owner: Some(wire::Owner {
            cloud_id: volume.owner.cloud_id.to_string(),
            resource_id: volume.id.to_string(),
            incarnation: volume.owner.incarnation.map(|i| i.to_string()).unwrap_or_default(),
        }),
        size_bytes: volume.size_bytes,
        allocated_bytes: volume.allocated_bytes,
        path: volume.path.to_string_lossy().into_owned(),
        format: volume.format.to_string(),
        pool: volume.pool.to_string(),
        image_id: match volume.source {
            Source::Blank => String::new(),
            Source::Image { image_id } => image_id.to_string(),
        },
    }
}

pub(super) fn image(image: &Image) -> wire::CachedImage {
    wire::CachedImage {
        id: image.spec.id.to_string(),
        size_bytes: image.spec.size_bytes,
        virtual_size_bytes: image.virtual_size_bytes,
        sha256: image.spec.sha256.to_string(),
    }
}

/// A pool as heartbeats tell it.
#[must_use]
pub fn pool(status: &PoolStatus, kind: &str) -> wire::Pool {
    wire::Pool {
        name: status.name.to_string(),
        backend: kind.to_owned(),
        pool_id: status.pool_id.clone(),
        total_bytes: status.total_bytes,
        free_bytes: status.free_bytes,
    }
}
