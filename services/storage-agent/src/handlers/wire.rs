//! The contract's messages to the core's types and back.

use std::str::FromStr;

use cloud_contracts::agent as wire;
use cloud_domain::{ImageId, Mib, SnapshotId, VolumeId};
use cloud_service_kit::ServiceError;

use crate::core::{
    call::Call,
    model::{Image, ImageSpec, Owner, PoolName, PoolStatus, Snapshot, SnapshotSpec, Source, Volume, VolumeSpec},
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
        Some(Wire::SnapshotId(id)) => Source::Snapshot { snapshot_id: parse("spec.snapshot_id", &id)? },
        Some(Wire::VolumeId(id)) => Source::Volume { volume_id: parse("spec.volume_id", &id)? },
    };
    Ok(VolumeSpec {
        id: parse::<VolumeId>("spec.id", &spec.id)?,
        size: mebibytes("spec.size_bytes", spec.size_bytes)?,
        source,
        pool: pool_or_default("spec.pool", &spec.pool)?,
    })
}

/// The pool that is named, or else the default one.
pub(super) fn pool_or_default(field: &str, name: &str) -> Result<PoolName, ServiceError> {
    parse(field, if name.is_empty() { DEFAULT_POOL } else { name })
}

/// The pool that is named, if any.
pub(super) fn pool_if_named(name: &str) -> Result<Option<PoolName>, ServiceError> {
    if name.is_empty() { Ok(None) } else { parse("pool", name).map(Some) }
}

pub(super) fn snapshot_spec(request: &wire::EnsureSnapshotRequest) -> Result<SnapshotSpec, ServiceError> {
    Ok(SnapshotSpec {
        id: parse::<SnapshotId>("id", &request.id)?,
        volume: parse("volume_id", &request.volume_id)?,
        pool: pool_or_default("pool", &request.pool)?,
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

fn owner(owner: &Owner, resource_id: String) -> wire::Owner {
    wire::Owner {
        cloud_id: owner.cloud_id.to_string(),
        resource_id,
        incarnation: owner.incarnation.map(|i| i.to_string()).unwrap_or_default(),
    }
}

pub(super) fn volume(volume: &Volume) -> wire::Volume {
    let [mut image_id, mut snapshot_id, mut volume_id] = [const { String::new() }; 3];
    match volume.source {
        Source::Blank => {}
        Source::Image { image_id: id } => image_id = id.to_string(),
        Source::Snapshot { snapshot_id: id } => snapshot_id = id.to_string(),
        Source::Volume { volume_id: id } => volume_id = id.to_string(),
    }
    wire::Volume {
        owner: Some(owner(&volume.owner, volume.id.to_string())),
        size_bytes: volume.size_bytes,
        allocated_bytes: volume.allocated_bytes,
        path: volume.path.to_string_lossy().into_owned(),
        format: volume.format.to_string(),
        pool: volume.pool.to_string(),
        image_id,
        snapshot_id,
        volume_id,
    }
}

pub(super) fn snapshot(snapshot: &Snapshot) -> wire::Snapshot {
    wire::Snapshot {
        owner: Some(owner(&snapshot.owner, snapshot.id.to_string())),
        volume_id: snapshot.volume.to_string(),
        size_bytes: snapshot.size_bytes,
        allocated_bytes: snapshot.allocated_bytes,
        pool: snapshot.pool.to_string(),
    }
}

pub(super) fn image(image: &Image, pool: &PoolName) -> wire::CachedImage {
    wire::CachedImage {
        id: image.spec.id.to_string(),
        size_bytes: image.spec.size_bytes,
        virtual_size_bytes: image.virtual_size_bytes,
        sha256: image.spec.sha256.to_string(),
        pool: pool.to_string(),
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
        data_permille: status.thin.map_or(0, |thin| thin.data_permille),
        metadata_permille: status.thin.map_or(0, |thin| thin.metadata_permille),
        virtual_bytes: status.thin.map_or(0, |thin| thin.virtual_bytes),
    }
}
