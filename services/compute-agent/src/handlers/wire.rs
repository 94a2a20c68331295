//! Messages of the contract to and from the domain's types.

use std::{fmt::Display, str::FromStr};

use cloud_contracts::agent as wire;
use cloud_domain::{DiskLimits, InstanceId, Mib, VolumeId};
use cloud_service_kit::ServiceError;
use prost_types::Timestamp;

use crate::core::{Disk, Ended, Guest, GuestSpec, Nic, Power, Reason, Seed, SpecError};

fn parse<T: FromStr<Err: Display>>(field: impl Into<String>, text: &str) -> Result<T, SpecError> {
    text.parse().map_err(|problem| SpecError::new(field, problem))
}

/// A size in bytes that is whole MiB.
pub fn mebibytes(field: &'static str, bytes: u64) -> Result<Mib, ServiceError> {
    let whole = bytes.is_multiple_of(1 << 20).then(|| Mib::try_from(bytes >> 20).ok()).flatten();
    whole.ok_or_else(|| {
        ServiceError::invalid(field, format!("must be a multiple of 1 MiB (1048576) and more than 0, is {bytes}"))
    })
}

/// The id of a request.
pub fn instance_id(field: &str, text: &str) -> Result<InstanceId, SpecError> {
    parse(field, text)
}

/// A specification.
pub fn spec(spec: Option<wire::InstanceSpec>) -> Result<GuestSpec, SpecError> {
    let spec = spec.ok_or_else(|| SpecError::new("spec", "is required"))?;
    let seed = spec.seed.unwrap_or_else(|| wire::SeedSpec { hostname: spec.name.clone(), ..Default::default() });
    Ok(GuestSpec {
        id: parse("spec.id", &spec.id)?,
        incarnation: parse("spec.incarnation", &spec.incarnation)?,
        boot_generation: spec.boot_generation,
        name: parse("spec.name", &spec.name)?,
        vcpus: spec.vcpus,
        memory: spec.memory_mib.try_into().map_err(|problem| SpecError::new("spec.memory_mib", problem))?,
        disks: spec
            .disks
            .into_iter()
            .enumerate()
            .map(|(index, it)| disk(&format!("spec.disks[{index}]"), it))
            .collect::<Result<_, _>>()?,
        nics: spec.nics.iter().enumerate().map(|(index, it)| nic(index, it)).collect::<Result<_, _>>()?,
        seed: Seed {
            hostname: parse("spec.seed.hostname", &seed.hostname)?,
            ssh_keys: seed.ssh_keys,
            user_data: seed.user_data,
        },
        record: spec.record,
    })
}

/// A disk; `field` is where it stands in the contract.
pub fn disk(field: &str, disk: wire::DiskSpec) -> Result<Disk, SpecError> {
    let field = |name| format!("{field}.{name}");
    Ok(Disk {
        volume: parse(field("volume_id"), &disk.volume_id)?,
        path: disk.path.into(),
        format: parse(field("format"), &disk.format)?,
        read_only: disk.read_only,
        limits: DiskLimits { total_iops_sec: disk.total_iops_sec, total_bytes_sec: disk.total_bytes_sec },
    })
}

fn nic(index: usize, nic: &wire::NicSpec) -> Result<Nic, SpecError> {
    let field = |name| format!("spec.nics[{index}].{name}");
    Ok(Nic {
        port: parse(field("port_id"), &nic.port_id)?,
        mac: parse(field("mac"), &nic.mac)?,
        device: parse(field("device"), &nic.device)?,
        mtu: nic.mtu,
    })
}

/// A guest's state.
pub fn state(guest: &Guest) -> wire::InstanceState {
    let tag = &guest.tag;
    wire::InstanceState {
        owner: Some(wire::Owner {
            cloud_id: tag.cloud.to_string(),
            resource_id: tag.instance.to_string(),
            incarnation: tag.incarnation.to_string(),
        }),
        power: power(guest.power()).into(),
        reason: reason(guest.reason()).into(),
        boot_generation: tag.boot_generation,
        started_at: tag.started_at.map(Timestamp::from),
        volume_ids: tag.spec.volumes(),
        disks: guest.limits.iter().map(disk_state).collect(),
    }
}

fn disk_state((volume, limits): (&VolumeId, &DiskLimits)) -> wire::DiskState {
    wire::DiskState {
        volume_id: volume.to_string(),
        total_iops_sec: limits.total_iops_sec,
        total_bytes_sec: limits.total_bytes_sec,
    }
}

const fn power(power: Power) -> wire::PowerState {
    match power {
        Power::Running => wire::PowerState::Running,
        Power::Shutoff => wire::PowerState::Shutoff,
        Power::Paused => wire::PowerState::Paused,
        Power::Crashed => wire::PowerState::Crashed,
    }
}

const fn reason(reason: Reason) -> wire::StateReason {
    match reason {
        Reason::Unknown => wire::StateReason::Unspecified,
        Reason::Ended(Ended::GuestShutdown) => wire::StateReason::GuestShutdown,
        Reason::Ended(Ended::Destroyed) => wire::StateReason::Destroyed,
        Reason::Ended(Ended::Crashed) => wire::StateReason::Crashed,
        Reason::StartFailed => wire::StateReason::Failed,
        Reason::IoError => wire::StateReason::IoError,
        Reason::NeverStarted => wire::StateReason::NeverStarted,
    }
}
