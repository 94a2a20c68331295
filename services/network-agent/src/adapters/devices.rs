//! Network devices by `ip` (iproute2) and /sys.
//!
//! A guest's tap is the switch's alone. With the userspace datapath the host's own network stack sees every frame of it too, so a guest
//! could talk to the host past every flow. Before a device comes up it is therefore made deaf: no ARP answers, no IPv6, no forwarding,
//! and strict reverse-path filtering (RFC 3704), which no source passes because no route leads to a device without addresses.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use cloud_domain::CloudId;
use cloud_service_kit::exec::{Command, run};

use crate::core::ports::{BackendError, Device, Devices};

const DEADLINE: Duration = Duration::from_secs(10);
/// More time per line of a script: the kernel takes about 35 ms to remove a device.
const PER_LINE: Duration = Duration::from_millis(200);
/// First part of the alias that every device of ours carries; cloud, VPC and port follow.
const TAG: &str = "thecloud";

/// Taps that a hypervisor attaches to by name.
#[derive(Debug, Default)]
pub struct Taps;

#[async_trait]
impl Devices for Taps {
    async fn ensure(&self, devices: &[Device]) -> Result<(), BackendError> {
        ensure(devices, |name| format!("tuntap add dev {name} mode tap vnet_hdr\n")).await
    }

    async fn list(&self, cloud: CloudId) -> Result<Vec<Device>, BackendError> {
        list(cloud)
    }

    async fn remove(&self, devices: &[Device]) -> Result<(), BackendError> {
        remove(devices).await
    }
}

/// What [`Devices::ensure`] says, for devices that the line `make` of an `ip -batch` script creates.
///
/// # Errors
/// As [`Devices::ensure`].
pub async fn ensure(devices: &[Device], make: impl Fn(&str) -> String) -> Result<(), BackendError> {
    let (mut create, mut raise, mut fresh) = (String::new(), String::new(), Vec::new());
    for device in devices {
        let (name, mtu) = (device.port.tap_device(), device.mtu);
        match fs::read_to_string(class(&name).join("ifalias")) {
            Ok(alias) => {
                check_owner(&name, alias.trim(), device)?;
                let current = fs::read_to_string(class(&name).join("mtu")).unwrap_or_default();
                if current.trim() == mtu.to_string() && alias.trim() == tag(device) && is_up(&name) {
                    continue;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => create.push_str(&make(&name)),
            Err(error) => return Err(BackendError::failed_by(format!("cannot read the alias of {name}"), error)),
        }
        // The arguments are an id's digits, a number and ids: nothing that needs quoting.
        let _ = writeln!(create, "link set dev {name} alias {} mtu {mtu}", tag(device));
        let _ = writeln!(raise, "link set dev {name} up");
        fresh.push(name);
    }
    if fresh.is_empty() {
        return Ok(());
    }
    batch(create).await?;
    fresh.iter().try_for_each(|name| deafen(name))?;
    batch(raise).await
}

/// The devices whose tag names the cloud.
///
/// # Errors
/// The system does not list its devices.
pub fn list(cloud: CloudId) -> Result<Vec<Device>, BackendError> {
    let entries = fs::read_dir("/sys/class/net")
        .map_err(|error| BackendError::failed_by("cannot list the host's network devices", error))?;
    let names: BTreeSet<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    Ok(names.iter().filter_map(|name| read(name)).filter(|device| device.cloud == cloud).collect())
}

/// Removes devices; what is gone is success.
///
/// # Errors
/// One of them stays.
pub async fn remove(devices: &[Device]) -> Result<(), BackendError> {
    let names = devices.iter().map(|device| device.port.tap_device());
    let script: String =
        names.filter(|name| class(name).exists()).map(|name| format!("link del dev {name}\n")).collect();
    if script.is_empty() { Ok(()) } else { batch(script).await }
}

/// Takes up a device that the switch made, deaf.
///
/// # Errors
/// The device is not there, or stays down.
pub async fn make_ready(name: &str) -> Result<(), BackendError> {
    if is_up(name) {
        return Ok(());
    }
    deafen(name)?;
    let command = Command::new("ip").args(["link", "set", "dev", name, "up"]).deadline(DEADLINE);
    match run(&command).await {
        Ok(_) => Ok(()),
        Err(error) => Err(BackendError::failed_by(format!("cannot take up {name}"), error)),
    }
}

async fn batch(script: String) -> Result<(), BackendError> {
    let lines = u32::try_from(script.lines().count()).unwrap_or(u32::MAX);
    let command = Command::new("ip").args(["-batch", "-"]).stdin(script).deadline(DEADLINE + PER_LINE * lines);
    match run(&command).await {
        Ok(_) => Ok(()),
        Err(error) => Err(BackendError::failed_by("cannot change the host's network devices", error)),
    }
}

fn class(name: &str) -> PathBuf {
    Path::new("/sys/class/net").join(name)
}

fn is_up(name: &str) -> bool {
    let flags = fs::read_to_string(class(name).join("flags")).unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or_default();
    // IFF_UP, netdevice(7)
    flags & 1 == 1
}

fn deafen(name: &str) -> Result<(), BackendError> {
    for (family, key, value) in [
        ("ipv6", "disable_ipv6", "1"),
        ("ipv4", "arp_ignore", "8"),
        ("ipv4", "rp_filter", "1"),
        ("ipv4", "forwarding", "0"),
    ] {
        let path = Path::new("/proc/sys/net").join(family).join("conf").join(name).join(key);
        match fs::write(&path, value) {
            Ok(()) => {}
            // A kernel without IPv6 has nothing to turn off.
            Err(error) if family == "ipv6" && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("cannot shield the host from {name}: {} cannot be set", path.display());
                return Err(BackendError::failed_by(what, error));
            }
        }
    }
    Ok(())
}

fn tag(device: &Device) -> String {
    format!("{TAG}/{}/{}/{}", device.cloud, device.vpc, device.port)
}

/// A device of ours by its alias.
fn read(name: &str) -> Option<Device> {
    let alias = fs::read_to_string(class(name).join("ifalias")).ok()?;
    let mut parts = alias.trim().strip_prefix(TAG)?.strip_prefix('/')?.split('/');
    let (cloud, vpc, port) = (parts.next()?, parts.next()?, parts.next()?);
    let mtu = fs::read_to_string(class(name).join("mtu")).ok()?;
    let device = Device {
        cloud: cloud.parse().ok()?,
        vpc: vpc.parse().ok()?,
        port: port.parse().ok()?,
        mtu: mtu.trim().parse().ok()?,
    };
    (device.port.tap_device() == name).then_some(device)
}

/// A device without an alias is one whose making was cut short: its name is the port's.
fn check_owner(name: &str, alias: &str, device: &Device) -> Result<(), BackendError> {
    if alias.is_empty() || alias == tag(device) {
        return Ok(());
    }
    Err(BackendError::Refused(format!(
        "network device {name} exists and is `{alias}`, not `{}`: it is not touched. Remove it if nothing needs it",
        tag(device)
    )))
}
