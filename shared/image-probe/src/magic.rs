//! Tells formats apart by the bytes that they begin or end with.

use crate::{Format, ProbeError};

/// How much of a file's end is looked at: VHD and DMG keep their signature in the last sector.
pub(crate) const TAIL_BYTES: usize = 512;

const PACKED: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
];

const FOREIGN: &[(&[u8], &str)] = &[
    (b"KDMV", "a VMDK file"),
    (b"COWD", "a VMDK file"),
    (b"# Disk DescriptorFile", "a VMDK descriptor"),
    (b"vhdxfile", "a VHDX file"),
    (b"conectix", "a VHD file"),
    (b"QED\0", "a QED file"),
    (b"LUKS\xba\xbe", "a LUKS volume"),
    (b"OOOM", "a COW file"),
    (b"WithoutFreeSpace", "a Parallels disk"),
    (b"WithouFreSpacExt", "a Parallels disk"),
    (b"Bochs Virtual HD Image", "a Bochs disk"),
    (b"#!/bin/sh\n#V2.0 Format\n", "a cloop file"),
];

/// At this offset, these bytes, this format.
const DEEPER: &[(usize, &[u8], &str)] = &[(64, b"\x7f\x10\xda\xbe", "a VDI file"), (257, b"ustar", "a tar archive")];

/// The format that a file's first [`crate::HEAD_BYTES`] and last [`TAIL_BYTES`] say.
pub(crate) fn detect(head: &[u8], tail: &[u8]) -> Result<Format, ProbeError> {
    if head.is_empty() {
        return Err(ProbeError::Empty);
    }
    if head.starts_with(b"QFI\xfb") {
        return Ok(Format::Qcow2);
    }
    if let Some((_, name)) = PACKED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(ProbeError::Compressed(name));
    }
    if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(ProbeError::Unsupported(name));
    }
    if let Some((_, _, name)) = DEEPER.iter().find(|(at, magic, _)| has_at(head, *at, magic)) {
        return Err(ProbeError::Unsupported(name));
    }
    if tail.starts_with(b"conectix") {
        return Err(ProbeError::Unsupported("a VHD file"));
    }
    if tail.starts_with(b"koly") {
        return Err(ProbeError::Unsupported("a DMG file"));
    }
    // An ISO with a boot sector ("isohybrid") is a disk as well; one without is a CD only.
    if has_at(head, 32_769, b"CD001") && !has_at(head, 510, b"\x55\xaa") {
        return Err(ProbeError::Unsupported("a CD image (ISO 9660) without a boot sector"));
    }
    Ok(Format::Raw)
}

fn has_at(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}
