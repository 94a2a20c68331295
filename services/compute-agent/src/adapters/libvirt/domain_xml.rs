//! A guest as libvirt's domain XML: q35, virtio everything, nothing that listens on an address.
//!
//! Source: libvirt's domain XML format, <https://libvirt.org/formatdomain.html>. Values that are not obvious are explained where they stand.

use std::{
    io,
    path::{Path, PathBuf},
};

use cloud_domain::{DiskLimits, VolumeId};
use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};

use super::tag_xml;
use crate::{
    adapters::accelerator::Accelerator,
    core::{Disk, GuestSpec, Nic, Tag},
};

/// PCIe ports kept free beside those of all the disks that a guest may have: q35's root bus does not hot-plug, so whatever is plugged in later takes one.
const SPARE_PORTS: usize = 2;
/// Devices with a port of their own besides disks and NICs: serial bus, balloon, random numbers.
const FIXED_DEVICES: usize = 3;
/// Of volume ids that a disk shows as its serial number (the limit of virtio-blk).
const SERIAL_CHARS: usize = 20;

/// What a domain needs that is not in the guest's specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// What it runs under.
    pub accelerator: Accelerator,
    /// The emulator, where libvirt's own choice does not do.
    pub emulator: Option<PathBuf>,
    /// The seed image.
    pub seed: PathBuf,
    /// Where the serial console's socket is made.
    pub serial_socket: PathBuf,
    /// Where what the serial console says is kept.
    pub console_log: PathBuf,
    /// Whether NICs leave checksums and segmentation to the host. Not on a userspace datapath, whose connection tracking marks such packets
    /// as invalid.
    pub nic_offload: bool,
}

/// The name of an instance's domain.
pub fn domain_name(id: cloud_domain::InstanceId) -> String {
    format!("cloud-{id}")
}

/// The domain's XML.
///
/// # Errors
/// None but those of the writer.
pub fn domain(spec: &GuestSpec, tag: &Tag, around: &Surroundings) -> io::Result<String> {
    let mut xml = Xml(Writer::new_with_indent(Vec::new(), b' ', 2));
    xml.0.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let kind = match around.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "qemu",
    };
    xml.with("domain", &[("type", kind)], |xml| {
        xml.text("name", &[], &domain_name(spec.id))?;
        xml.text("uuid", &[], &spec.id.to_string())?;
        xml.text("title", &[], spec.name.as_str())?;
        xml.with("metadata", &[], |xml| tag_xml::write(&mut xml.0, tag, &format!("{}:", tag_xml::PREFIX)))?;
        machine(xml, spec, around)?;
        xml.with("devices", &[], |xml| devices(xml, spec, around))
    })?;
    String::from_utf8(xml.0.into_inner()).map_err(io::Error::other)
}

fn machine(xml: &mut Xml, spec: &GuestSpec, around: &Surroundings) -> io::Result<()> {
    let memory = spec.memory.get().to_string();
    xml.text("memory", &[("unit", "MiB")], &memory)?;
    xml.text("currentMemory", &[("unit", "MiB")], &memory)?;
    xml.text("vcpu", &[("placement", "static")], &spec.vcpus.to_string())?;
    xml.with("os", &[], |xml| xml.text("type", &[("arch", "x86_64"), ("machine", "q35")], "hvm"))?;
    xml.with("features", &[], |xml| {
        xml.empty("acpi", &[])?;
        xml.empty("apic", &[])
    })?;
    let cpu: &[(&str, &str)] = match around.accelerator {
        // The host's own processor; a migration between unlike hosts would need a common model instead.
        Accelerator::Kvm => &[("mode", "host-passthrough"), ("check", "none"), ("migratable", "on")],
        // Everything the emulation can do: distributions begin to need x86-64-v2 and v3, which the default model lacks.
        Accelerator::Tcg => &[("mode", "maximum")],
    };
    xml.empty("cpu", cpu)?;
    xml.with("clock", &[("offset", "utc")], |xml| {
        xml.empty("timer", &[("name", "rtc"), ("tickpolicy", "catchup")])?;
        xml.empty("timer", &[("name", "pit"), ("tickpolicy", "delay")])?;
        xml.empty("timer", &[("name", "hpet"), ("present", "no")])
    })?;
    // The domain stays defined and off, so that how it ended can be seen; the guest's own reboot stays a reboot.
    xml.text("on_poweroff", &[], "destroy")?;
    xml.text("on_reboot", &[], "restart")?;
    xml.text("on_crash", &[], "destroy")?;
    xml.with("pm", &[], |xml| {
        xml.empty("suspend-to-mem", &[("enabled", "no")])?;
        xml.empty("suspend-to-disk", &[("enabled", "no")])
    })
}

fn devices(xml: &mut Xml, spec: &GuestSpec, around: &Surroundings) -> io::Result<()> {
    if let Some(emulator) = &around.emulator {
        xml.text("emulator", &[], &path_text(emulator)?)?;
    }
    for (index, disk) in spec.disks.iter().enumerate() {
        self::disk(xml, &disk_name(index), index == 0, disk)?;
    }
    seed(xml, spec.disks.len(), &around.seed)?;
    controllers(xml, spec)?;
    for nic in &spec.nics {
        self::nic(xml, nic, around.nic_offload)?;
    }
    serial(xml, around)?;
    xml.with("channel", &[("type", "unix")], |xml| {
        xml.empty("target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")])
    })?;
    // libvirt chooses a socket in the domain's own directory, which nobody but the hypervisor and root may enter.
    xml.with("graphics", &[("type", "vnc")], |xml| xml.empty("listen", &[("type", "socket")]))?;
    xml.with("video", &[], |xml| xml.empty("model", &[("type", "vga"), ("vram", "8192"), ("heads", "1")]))?;
    xml.with("memballoon", &[("model", "virtio")], |xml| xml.empty("stats", &[("period", "10")]))?;
    xml.with("rng", &[("model", "virtio")], |xml| xml.text("backend", &[("model", "random")], "/dev/urandom"))?;
    // A kernel panic is told to the host instead of leaving a guest that seems to run.
    xml.empty("panic", &[("model", "isa")])
}

fn controllers(xml: &mut Xml, spec: &GuestSpec) -> io::Result<()> {
    xml.empty("controller", &[("type", "usb"), ("model", "none")])?;
    xml.empty("controller", &[("type", "pci"), ("index", "0"), ("model", "pcie-root")])?;
    let used = GuestSpec::MAX_DISKS.max(spec.disks.len()) + 1 + spec.nics.len() + FIXED_DEVICES;
    for index in 1..=used + SPARE_PORTS {
        let index = index.to_string();
        xml.empty("controller", &[("type", "pci"), ("index", &index), ("model", "pcie-root-port")])?;
    }
    Ok(())
}

/// What a disk shows the guest as its serial number.
pub fn serial_number(volume: VolumeId) -> String {
    volume.to_string().chars().take(SERIAL_CHARS).collect()
}

/// A disk alone, as it is attached to a domain under a name that is free there.
///
/// # Errors
/// None but those of the writer.
pub fn disk_alone(disk: &Disk, target: &str) -> io::Result<String> {
    let mut xml = Xml(Writer::new(Vec::new()));
    self::disk(&mut xml, target, false, disk)?;
    String::from_utf8(xml.0.into_inner()).map_err(io::Error::other)
}

fn disk(xml: &mut Xml, target: &str, boots: bool, disk: &Disk) -> io::Result<()> {
    let block = disk.path.starts_with("/dev");
    let (kind, attribute) = if block { ("block", "dev") } else { ("file", "file") };
    xml.with("disk", &[("type", kind), ("device", "disk")], |xml| {
        // No host cache: what the guest flushed is on the disk, and memory is not used twice. Freed blocks go back to the pool; a read-only
        // disk has none to free.
        // Native I/O waits where a sparse file has to grow, and the guest with it; a block device does not grow.
        let io = if block { "native" } else { "threads" };
        let mut driver = vec![("name", "qemu"), ("type", disk.format.as_str()), ("cache", "none"), ("io", io)];
        if !disk.read_only {
            driver.extend([("discard", "unmap"), ("detect_zeroes", "unmap")]);
        }
        xml.empty("driver", &driver)?;
        xml.empty("source", &[(attribute, &path_text(&disk.path)?)])?;
        xml.empty("target", &[("dev", target), ("bus", "virtio")])?;
        xml.text("serial", &[], &serial_number(disk.volume))?;
        limits(xml, disk.limits)?;
        if boots {
            xml.empty("boot", &[("order", "1")])?;
        }
        if disk.read_only {
            xml.empty("readonly", &[])?;
        }
        Ok(())
    })
}

/// QEMU lets a tenth of a second's worth through at once, and delays what is beyond.
fn limits(xml: &mut Xml, limits: DiskLimits) -> io::Result<()> {
    if limits == DiskLimits::default() {
        return Ok(());
    }
    xml.with("iotune", &[], |xml| {
        xml.text("total_bytes_sec", &[], &limits.total_bytes_sec.to_string())?;
        xml.text("total_iops_sec", &[], &limits.total_iops_sec.to_string())
    })
}

fn seed(xml: &mut Xml, index: usize, path: &Path) -> io::Result<()> {
    xml.with("disk", &[("type", "file"), ("device", "disk")], |xml| {
        xml.empty("driver", &[("name", "qemu"), ("type", "raw")])?;
        xml.empty("source", &[("file", &path_text(path)?)])?;
        xml.empty("target", &[("dev", &disk_name(index)), ("bus", "virtio")])?;
        xml.text("serial", &[], "cidata")?;
        xml.empty("readonly", &[])
    })
}

fn nic(xml: &mut Xml, nic: &Nic, offload: bool) -> io::Result<()> {
    xml.with("interface", &[("type", "ethernet")], |xml| {
        xml.empty("mac", &[("address", &nic.mac.to_string())])?;
        // The network-agent made the device and owns it.
        xml.empty("target", &[("dev", nic.device.as_str()), ("managed", "no")])?;
        xml.empty("model", &[("type", "virtio")])?;
        xml.empty("mtu", &[("size", &nic.mtu.to_string())])?;
        if offload {
            return xml.empty("driver", &[("name", "qemu")]);
        }
        xml.with("driver", &[("name", "qemu")], |xml| {
            let off = [("csum", "off"), ("tso4", "off"), ("tso6", "off"), ("ecn", "off"), ("ufo", "off")];
            xml.empty("host", &[&off[..], &[("gso", "off")]].concat())?;
            xml.empty("guest", &off)
        })
    })
}

/// As much of a disk as names it to be detached.
///
/// # Errors
/// None but those of the writer.
pub fn disk_to_detach(kind: &str, source: (&str, &str), target: &str) -> io::Result<String> {
    let mut xml = Xml(Writer::new(Vec::new()));
    xml.with("disk", &[("type", kind), ("device", "disk")], |xml| {
        xml.empty("source", &[source])?;
        xml.empty("target", &[("dev", target), ("bus", "virtio")])
    })?;
    String::from_utf8(xml.0.into_inner()).map_err(io::Error::other)
}

fn serial(xml: &mut Xml, around: &Surroundings) -> io::Result<()> {
    let (socket, log) = (path_text(&around.serial_socket)?, path_text(&around.console_log)?);
    xml.with("serial", &[("type", "unix")], |xml| {
        xml.empty("source", &[("mode", "bind"), ("path", &socket)])?;
        // Written by QEMU whether anybody looks or not, through virtlogd, which keeps its size within bounds.
        xml.empty("log", &[("file", &log), ("append", "on")])?;
        xml.with("target", &[("type", "isa-serial"), ("port", "0")], |xml| {
            xml.empty("model", &[("name", "isa-serial")])
        })
    })
}

/// The name of a disk in the domain, by its place among the disks: `vda` to `vdz`.
pub fn disk_name(index: usize) -> String {
    let letter = (b'a'..=b'z').nth(index).map_or('z', char::from);
    format!("vd{letter}")
}

fn path_text(path: &Path) -> io::Result<String> {
    let text = path.to_str().filter(|text| !text.contains(|c: char| c.is_control()));
    text.map(str::to_owned)
        .ok_or_else(|| io::Error::other(format!("the path `{}` cannot be written in XML", path.display())))
}

struct Xml(Writer<Vec<u8>>);

impl Xml {
    fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
        self.0.create_element(name).with_attributes(attributes.iter().copied()).write_empty().map(drop)
    }

    fn text(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) -> io::Result<()> {
        let element = self.0.create_element(name).with_attributes(attributes.iter().copied());
        element.write_text_content(BytesText::new(text)).map(drop)
    }

    fn with(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        inner: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        use quick_xml::events::{BytesEnd, BytesStart};
        let start = BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.0.write_event(Event::Start(start))?;
        inner(self)?;
        self.0.write_event(Event::End(BytesEnd::new(name)))
    }
}

#[cfg(test)]
mod tests;
