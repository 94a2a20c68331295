//! The disks that a domain has: given to it and taken from it while its guest runs. Everything here blocks.
//!
//! A disk is known by its serial number, which is its volume's: names such as `vdb` are given anew when one has become free. A running domain has two
//! descriptions, of what its guest has now and of what it will have when libvirt starts it; either may lack a disk that the other has, where a call was
//! interrupted. So each is looked at for itself.

use std::collections::BTreeSet;

use cloud_domain::{Mib, VolumeId};
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

/// Gives a running domain a disk where it lacks it.
pub fn attach(domain: &Domain, disk: &Disk) -> Result<(), Problem> {
    let serial = serial_number(disk.volume);
    let (live, config) = (disks(domain, LIVE)?, disks(domain, CONFIG)?);
    let mut flags = 0;
    if of(&live, &serial).is_none() {
        flags |= sys::VIR_DOMAIN_AFFECT_LIVE;
    }
    if of(&config, &serial).is_none() {
        flags |= sys::VIR_DOMAIN_AFFECT_CONFIG;
    }
    if flags == 0 {
        return Ok(());
    }
    let target = free_name(&[&live, &config]).ok_or_else(|| other("it has no name left for a disk"))?;
    let xml = disk_alone(disk, &target).map_err(other)?;
    Ok(domain.attach_device_flags(&xml, flags)?)
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
        };
        let first = has("file", "file", "/pool/a&b.qcow2", "vda", "550e8400-e29b-41d4-a");
        let second = has("block", "dev", "/dev/vg0/data", "vdc", "660e8400-e29b-41d4-a");
        let found = parse(DOMAIN).unwrap();
        assert_eq!(found, [first.clone(), second]);
        assert_eq!(of(&found, &serial_number("550e8400-e29b-41d4-a716-446655440000".parse().unwrap())), Some(&first));
        assert_eq!(free_name(&[&found]).unwrap(), "vdb", "the first that neither has");
        assert_eq!(free_name(&[&found, &[has("", "", "", "vdb", "")]]).unwrap(), "vdd");
        assert!(parse("<domain><devices></domain>").is_err());
    }

    #[test]
    fn what_is_detached_is_named_in_xml() {
        let disk = parse(DOMAIN).unwrap().remove(0);
        let xml = r#"<disk type="file" device="disk"><source file="/pool/a&amp;b.qcow2"/><target dev="vda" bus="virtio"/></disk>"#;
        assert_eq!(disk.named().unwrap(), xml);
    }
}
