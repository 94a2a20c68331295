//! What a guest is: what was asked for, what is tagged on the hypervisor, what it does.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::SystemTime};

use cloud_domain::{CloudId, DiskLimits, Incarnation, InstanceId, MacAddr, Mib, PortId, ResourceName, VolumeId};

use super::SpecRecord;

/// Why a specification is refused: the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// As in the contract, such as `spec.disks[0].path`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl SpecError {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }
}

/// A guest as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSpec {
    /// The instance, and the domain's UUID.
    pub id: InstanceId,
    /// New with every start on a host.
    pub incarnation: Incarnation,
    /// Goes up with every reboot asked for.
    pub boot_generation: u64,
    /// What users call it.
    pub name: ResourceName,
    /// Virtual processors, at least one.
    pub vcpus: u32,
    /// Memory.
    pub memory: Mib,
    /// The boot disk first.
    pub disks: Vec<Disk>,
    /// In the order the guest sees them.
    pub nics: Vec<Nic>,
    /// cloud-init data.
    pub seed: Seed,
    /// What the gateway wants back; no business of ours.
    pub record: String,
}

impl GuestSpec {
    /// More virtual processors than QEMU's q35 takes without extras.
    pub const MAX_VCPUS: u32 = 255;
    /// Disks besides the seed.
    pub const MAX_DISKS: usize = 16;
    /// Network interfaces.
    pub const MAX_NICS: usize = 8;
    /// Bytes of the record.
    pub const MAX_RECORD: usize = 1 << 20;

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        if !(1..=Self::MAX_VCPUS).contains(&self.vcpus) {
            return Err(SpecError::new(
                "spec.vcpus",
                format_args!("must be 1 to {}, is {}", Self::MAX_VCPUS, self.vcpus),
            ));
        }
        if self.disks.is_empty() {
            return Err(SpecError::new("spec.disks", "must hold the boot disk"));
        }
        if self.disks.len() > Self::MAX_DISKS {
            return Err(SpecError::new(
                "spec.disks",
                format_args!("must hold at most {}, holds {}", Self::MAX_DISKS, self.disks.len()),
            ));
        }
        if self.nics.len() > Self::MAX_NICS {
            return Err(SpecError::new(
                "spec.nics",
                format_args!("must hold at most {}, holds {}", Self::MAX_NICS, self.nics.len()),
            ));
        }
        Self::check_record("spec.record", &self.record)?;
        for (index, disk) in self.disks.iter().enumerate() {
            disk.check(&format!("spec.disks[{index}]"))?;
            if self.disks[..index].iter().any(|other| other.volume == disk.volume) {
                return Err(SpecError::new(
                    format!("spec.disks[{index}].volume_id"),
                    format_args!("{} is there twice", disk.volume),
                ));
            }
        }
        for (index, nic) in self.nics.iter().enumerate() {
            if !(68..=65_521).contains(&nic.mtu) {
                return Err(SpecError::new(
                    format!("spec.nics[{index}].mtu"),
                    format_args!("must be 68 to 65521, is {}", nic.mtu),
                ));
            }
        }
        Ok(())
    }

    /// Checks a record, the field as the contract names it.
    ///
    /// # Errors
    /// It is too long.
    pub fn check_record(field: &str, record: &str) -> Result<(), SpecError> {
        if record.len() > Self::MAX_RECORD {
            let problem = format_args!("must be at most {} bytes, is {}", Self::MAX_RECORD, record.len()).to_string();
            return Err(SpecError::new(field, problem));
        }
        Ok(())
    }
}

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The volume.
    pub volume: VolumeId,
    /// Where it is on this host: a file, or a block device under `/dev`.
    pub path: PathBuf,
    /// How it is laid out.
    pub format: DiskFormat,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// How much the guest may do with it in a second. No part of what it is: see [`SpecRecord`].
    pub limits: DiskLimits,
}

impl Disk {
    /// The largest limit that QEMU takes (`THROTTLE_VALUE_MAX`).
    const MAX_LIMIT: u64 = 1_000_000_000_000_000;

    /// Checks what the types cannot say; `field` as the contract names it.
    ///
    /// # Errors
    /// The path is not absolute, or a limit is more than QEMU takes.
    pub fn check(&self, field: &str) -> Result<(), SpecError> {
        if !self.path.is_absolute() {
            let problem = format!("must be absolute, is `{}`", self.path.display());
            return Err(SpecError::new(format!("{field}.path"), problem));
        }
        let DiskLimits { total_iops_sec, total_bytes_sec } = self.limits;
        for (name, limit) in [("total_iops_sec", total_iops_sec), ("total_bytes_sec", total_bytes_sec)] {
            if limit > Self::MAX_LIMIT {
                let problem = format!("must be at most {}, is {limit}", Self::MAX_LIMIT);
                return Err(SpecError::new(format!("{field}.{name}"), problem));
            }
        }
        Ok(())
    }
}

/// How a disk is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// QEMU's own.
    Qcow2,
    /// Just the bytes.
    Raw,
}

impl DiskFormat {
    /// As in the contract and for QEMU.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

impl FromStr for DiskFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "qcow2" => Ok(Self::Qcow2),
            "raw" => Ok(Self::Raw),
            other => Err(format!("must be `qcow2` or `raw`, is `{}`", other.escape_default())),
        }
    }
}

/// A network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The switch port.
    pub port: PortId,
    /// The guest's address.
    pub mac: MacAddr,
    /// The tap device that the network-agent made.
    pub device: DeviceName,
    /// In bytes.
    pub mtu: u32,
}

/// The name of a network device on the host: 1 to 15 of `a-z A-Z 0-9 - _ .`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceName(String);

impl DeviceName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=15).contains(&text.len()) && !text.starts_with('.');
        if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{}` is not a network device's name", text.escape_default()))
        }
    }
}

/// What the guest reads at its first boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// local-hostname.
    pub hostname: ResourceName,
    /// public-keys, one line each.
    pub ssh_keys: Vec<String>,
    /// user-data, as given.
    pub user_data: String,
}

/// What is written on a domain to say whose it is and what was done with it. It lives in the hypervisor; the agent keeps no state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The cloud that owns the domain.
    pub cloud: CloudId,
    /// The instance.
    pub instance: InstanceId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// The boot generation last carried out.
    pub boot_generation: u64,
    /// A reboot that was begun and not yet seen to happen.
    pub reboot: Option<PendingReboot>,
    /// When this incarnation was started; absent where it was only defined.
    pub started_at: Option<SystemTime>,
    /// How this incarnation ended, because libvirt forgets that when it restarts.
    pub ended: Option<Ended>,
    /// The host's operator stopped it: it counts as stopped by a power failure, and is to be started again.
    pub host_stop: bool,
    /// What was asked for.
    pub spec: SpecRecord,
}

impl Tag {
    /// The tag of a new incarnation that has not started.
    pub fn new(cloud: CloudId, spec: &GuestSpec) -> Self {
        Self {
            cloud,
            instance: spec.id,
            incarnation: spec.incarnation,
            boot_generation: spec.boot_generation,
            reboot: None,
            started_at: None,
            ended: None,
            host_stop: false,
            spec: SpecRecord::of(spec),
        }
    }
}

/// A reboot under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingReboot {
    /// The boot generation it leads to.
    pub to: u64,
    /// When the guest, if it did not follow, is reset.
    pub force_at: SystemTime,
}

/// How an incarnation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest shut itself down, or followed a request to.
    GuestShutdown,
    /// Powered off from outside.
    Destroyed,
    /// A fault of the guest or of its process.
    Crashed,
}

/// What a guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Runs.
    Running,
    /// Does not.
    Shutoff,
    /// Stands still.
    Paused,
    /// Ended in a fault.
    Crashed,
}

/// Why it does what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The hypervisor does not say.
    Unknown,
    /// It ended, and how.
    Ended(Ended),
    /// The hypervisor could not start it.
    StartFailed,
    /// An I/O error, such as a full disk.
    IoError,
    /// Only defined.
    NeverStarted,
}

/// A domain with some cloud's tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// What is written on it.
    pub tag: Tag,
    /// What it does.
    pub power: Power,
    /// Why, as far as the hypervisor alone says.
    pub hypervisor_reason: Reason,
    /// The limits of the disks that it has as it runs, as the hypervisor has them; of one that is off, none.
    pub limits: BTreeMap<VolumeId, DiskLimits>,
}

impl Guest {
    /// Why, by the hypervisor and by what is written on the domain.
    pub fn reason(&self) -> Reason {
        let off = matches!(self.power, Power::Shutoff | Power::Crashed);
        match self.hypervisor_reason {
            _ if off && self.tag.host_stop => Reason::Unknown,
            Reason::Unknown if off => match self.tag.ended {
                Some(ended) => Reason::Ended(ended),
                None if self.tag.started_at.is_none() => Reason::NeverStarted,
                None => Reason::Unknown,
            },
            reason => reason,
        }
    }

    /// What it does, with a fault that only the tag remembers.
    pub fn power(&self) -> Power {
        match (self.power, self.reason()) {
            (Power::Shutoff, Reason::Ended(Ended::Crashed)) => Power::Crashed,
            (power, _) => power,
        }
    }

    /// Whether a process holds its disks.
    pub fn is_active(&self) -> bool {
        matches!(self.power, Power::Running | Power::Paused)
    }
}

/// What carries an instance's name or UUID on the hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the way from the hypervisor to a decision")]
pub enum Found {
    /// A domain with a cloud's tag for this instance.
    Tagged(Guest),
    /// A domain without one, or with one that does not fit; never touched. Says what it is.
    Foreign(String),
}
