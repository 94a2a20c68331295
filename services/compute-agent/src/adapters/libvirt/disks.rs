//! The disks that a domain has: given to it and taken from it while its guest runs. Everything here blocks.
//!
//! A disk is known by its serial number, which is its volume's: names such as `vdb` are given anew when one has become free. A running domain has two
//! descriptions, of what its guest has now and of what it will have when libvirt starts it; either may lack a disk that the other has, where a call was
//! interrupted. So each is looked at for itself.

use std::collections::{BTreeMap, BTreeSet};

use cloud_domain::{DiskLimits, Mib, VolumeId};
use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};
use virt::{domain::Domain, error::Error, sys};

use super::domain_xml::{disk_alone, disk_name, disk_to_detach, serial_number};
use crate::core::Disk;

/// What QEMU says where a guest was asked before, and has not answered.
const ASKED_BEFORE: &str = "already in the process of unplug";
/// Names that disks can have.
const NAMES: usize = 26;

/// Why it was not done.
#[derive(Debug)]
pub enum Problem {
    /// libvirt says so.
    Libvirt(Error),
    /// Something else.
    Other(String),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Libvirt(error)
    }
}

fn other(problem: impl std::fmt::Display) -> Problem {
    Problem::Other(problem.to_string())
}

/// A disk in a domain's description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Has {
    /// `file` or `block`.
    kind: String,
    /// The attribute that says where it is, and where.
    source: (String, String),
    /// Such as `vdb`.
    target: String,
    serial: String,
    limits: DiskLimits,
}

/// The description of what the guest has now, and that of what it will have.
const LIVE: sys::virDomainXMLFlags = 0;
const CONFIG: sys::virDomainXMLFlags = sys::VIR_DOMAIN_XML_INACTIVE;

fn disks(domain: &Domain, which: sys::virDomainXMLFlags) -> Result<Vec<Has>, Problem> {
    parse(&domain.xml_desc(which)?).map_err(|error| other(format_args!("the domain cannot be read: {error}")))
}

fn of<'a>(disks: &'a [Has], serial: &str) -> Option<&'a Has> {
    disks.iter().find(|disk| disk.serial == serial)
}

/// Has a running guest see that a disk is larger.
pub fn resize(domain: &Domain, volume: VolumeId, size: Mib) -> Result<(), Problem> {
    let there = disks(domain, LIVE)?;
    let disk = of(&there, &serial_number(volume)).ok_or_else(|| other(format_args!("it has no disk {volume}")))?;
    // Of a device that has grown already, it makes QEMU look at its size again and tell the guest.
    Ok(domain.block_resize(&disk.target, size.bytes(), sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES)?)
}

/// Gives a running domain a disk where it lacks it. Where it has it with other limits: says where, as virsh calls the place, and what the disk is called there.
pub fn attach(domain: &Domain, disk: &Disk) -> Result<Vec<(&'static str, String)>, Problem> {
    let serial = serial_number(disk.volume);
    let (live, config) = (disks(domain, LIVE)?, disks(domain, CONFIG)?);
    let (mut flags, mut differ) = (0, Vec::new());
    let places = [(&live, sys::VIR_DOMAIN_AFFECT_LIVE, "--live"), (&config, sys::VIR_DOMAIN_AFFECT_CONFIG, "--config")];
    for (has, flag, place) in places {
        match of(has, &serial) {
            None => flags |= flag,
            Some(has) if has.limits != disk.limits => differ.push((place, has.target.clone())),
            Some(_) => {}
        }
    }
    if flags != 0 {
        let target = free_name(&[&live, &config]).ok_or_else(|| other("it has no name left for a disk"))?;
        let xml = disk_alone(disk, &target).map_err(other)?;
        domain.attach_device_flags(&xml, flags)?;
    }
    Ok(differ)
}

/// The limits that a running domain's description says these volumes have, as far as they are disks of it.
pub fn limits(xml: &str, volumes: &[String]) -> BTreeMap<VolumeId, DiskLimits> {
    let has = parse(xml).unwrap_or_else(|error| {
        // What is not known to be limited is given its limits, which then says what is wrong.
        tracing::warn!(%error, "a domain's description cannot be read");
        Vec::new()
    });
    let known = volumes.iter().filter_map(|volume| {
        let volume: VolumeId = volume.parse().ok()?;
        of(&has, &serial_number(volume)).map(|disk| (volume, disk.limits))
    });
    known.collect()
}

fn free_name(all: &[&[Has]]) -> Option<String> {
    let taken: BTreeSet<&str> = all.iter().flat_map(|disks| disks.iter().map(|disk| disk.target.as_str())).collect();
    (0..NAMES).map(disk_name).find(|name| !taken.contains(name.as_str()))
}

/// Takes a disk from a domain; a running guest is asked to release it, which libvirt waits for a few seconds. Whether the domain has it no more.
pub fn detach(domain: &Domain, volume: VolumeId) -> Result<bool, Problem> {
    let serial = serial_number(volume);
    if let Some(disk) = of(&disks(domain, CONFIG)?, &serial) {
        domain.detach_device_flags(&disk.named()?, sys::VIR_DOMAIN_AFFECT_CONFIG)?;
    }
    if !domain.is_active()? {
        return Ok(true);
    }
    let Some(disk) = of(&disks(domain, LIVE)?, &serial).cloned() else { return Ok(true) };
    match domain.detach_device_flags(&disk.named()?, sys::VIR_DOMAIN_AFFECT_LIVE) {
        Err(error) if error.message().contains(ASKED_BEFORE) => {}
        asked => asked?,
    }
    Ok(of(&disks(domain, LIVE)?, &serial).is_none())
}

impl Has {
    fn named(&self) -> Result<String, Problem> {
        let (attribute, place) = &self.source;
        disk_to_detach(&self.kind, (attribute, place), &self.target).map_err(other)
    }
}

/// The disks of a domain, as `virDomainGetXMLDesc` gives it. What a disk stands on (`backingStore`, `mirror`) is no disk.
fn parse(xml: &str) -> Result<Vec<Has>, quick_xml::Error> {
    let mut reader = Reader::from_str(xml);
    let (mut path, mut found) = (Vec::<String>::new(), Vec::new());
    let mut disk = Has::default();
    loop {
        match reader.read_event()? {
            Event::Start(start) => {
                path.push(name(&start));
                enter(&path, &start, &mut disk)?;
            }
            Event::Empty(start) => {
                path.push(name(&start));
                enter(&path, &start, &mut disk)?;
                path.pop();
            }
            Event::Text(text) if is(&path, &["serial"]) => disk.serial.push_str(&text.decode()?),
            Event::Text(text) => {
                if let Some((limit, above)) = path.split_last()
                    && is(above, &["iotune"])
                {
                    limited(&mut disk.limits, limit, text.decode()?.trim().parse().unwrap_or_default());
                }
            }
            Event::End(_) => {
                if is(&path, &[]) {
                    found.push(std::mem::take(&mut disk));
                }
                path.pop();
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

/// Notes a limit. libvirt knows those of reads or of writes alone, too: nobody here sets them, and one that somebody has set is no less a difference. A disk
/// has the one kind or the other.
fn limited(limits: &mut DiskLimits, name: &str, limit: u64) {
    let of = match name {
        "total_bytes_sec" | "read_bytes_sec" | "write_bytes_sec" => &mut limits.total_bytes_sec,
        "total_iops_sec" | "read_iops_sec" | "write_iops_sec" => &mut limits.total_iops_sec,
        _ => return,
    };
    *of = of.saturating_add(limit);
}

fn name(start: &BytesStart<'_>) -> String {
    String::from_utf8_lossy(start.local_name().as_ref()).into_owned()
}

/// Whether the path leads to a disk, or to this below one.
fn is(path: &[String], below: &[&str]) -> bool {
    let whole = ["domain", "devices", "disk"].iter().chain(below);
    path.iter().map(String::as_str).eq(whole.copied())
}

fn enter(path: &[String], start: &BytesStart<'_>, disk: &mut Has) -> Result<(), quick_xml::Error> {
    let attribute = |key: &str| -> Result<Option<String>, quick_xml::Error> {
        match start.try_get_attribute(key)? {
            Some(value) => Ok(Some(value.unescape_value()?.into_owned())),
            None => Ok(None),
        }
    };
    if is(path, &[]) {
        disk.kind = attribute("type")?.unwrap_or_default();
    } else if is(path, &["source"]) {
        for key in ["file", "dev"] {
            if let Some(place) = attribute(key)? {
                disk.source = (key.to_owned(), place);
            }
        }
    } else if is(path, &["target"]) {
        disk.target = attribute("dev")?.unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "<domain type='kvm' id='3'>
  <name>cloud-x</name>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/pool/a&amp;b.qcow2' index='2'/>
      <backingStore type='file'><format type='raw'/><source file='/pool/base'/><target dev='vdq'/></backingStore>
      <target dev='vda' bus='virtio'/>
      <serial>550e8400-e29b-41d4-a</serial>
    </disk>
    <disk type='block' device='disk'>
      <source dev='/dev/vg0/data'/>
      <target dev='vdc' bus='virtio'/>
      <iotune><total_bytes_sec>1000000</total_bytes_sec><read_iops_sec>70</read_iops_sec><group_name>x</group_name></iotune>
      <serial>660e8400-e29b-41d4-a</serial>
    </disk>
    <serial type='pty'><target port='0'/></serial>
  </devices>
</domain>";

    #[test]
    fn disks_are_read_without_what_they_stand_on() {
        let has = |kind: &str, key: &str, place: &str, target: &str, serial: &str| Has {
            kind: kind.into(),
            source: (key.into(), place.into()),
            target: target.into(),
            serial: serial.into(),
            limits: DiskLimits::default(),
        };
        let first = has("file", "file", "/pool/a&b.qcow2", "vda", "550e8400-e29b-41d4-a");
        let limits = DiskLimits { total_iops_sec: 70, total_bytes_sec: 1_000_000 };
        let second = Has { limits, ..has("block", "dev", "/dev/vg0/data", "vdc", "660e8400-e29b-41d4-a") };
        let found = parse(DOMAIN).unwrap();
        assert_eq!(found, [first.clone(), second]);
        assert_eq!(of(&found, &serial_number("550e8400-e29b-41d4-a716-446655440000".parse().unwrap())), Some(&first));
        assert_eq!(free_name(&[&found]).unwrap(), "vdb", "the first that neither has");
        assert_eq!(free_name(&[&found, &[has("", "", "", "vdb", "")]]).unwrap(), "vdd");
        assert!(parse("<domain><devices></domain>").is_err());
    }

    #[test]
    fn limits_are_those_of_the_disks_that_it_has() {
        let id = |first: u32| format!("{first}0e8400-e29b-41d4-a716-446655440000");
        let (one, two, other) = (id(55), id(66), id(77));
        let limits = limits(DOMAIN, &[one.clone(), other, two.clone()]);
        let limited = DiskLimits { total_iops_sec: 70, total_bytes_sec: 1_000_000 };
        let wanted = [(one.parse().unwrap(), DiskLimits::default()), (two.parse().unwrap(), limited)];
        assert_eq!(limits, BTreeMap::from(wanted));
    }

    #[test]
    fn what_is_detached_is_named_in_xml() {
        let disk = parse(DOMAIN).unwrap().remove(0);
        let xml = r#"<disk type="file" device="disk"><source file="/pool/a&amp;b.qcow2"/><target dev="vda" bus="virtio"/></disk>"#;
        assert_eq!(disk.named().unwrap(), xml);
    }
}
