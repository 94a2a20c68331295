use proptest::prelude::*;

use super::*;

/// A sound qcow2 head of version 3 with 64 KiB clusters for a 1 GiB disk, as `qemu-img create` writes it.
fn sound() -> Vec<u8> {
    let mut head = vec![0; HEAD_BYTES];
    put(&mut head, 0, b"QFI\xfb");
    put(&mut head, 4, &3_u32.to_be_bytes());
    put(&mut head, 20, &16_u32.to_be_bytes());
    put(&mut head, 24, &(1_u64 << 30).to_be_bytes());
    put(&mut head, 36, &2_u32.to_be_bytes());
    put(&mut head, 40, &0x30000_u64.to_be_bytes());
    put(&mut head, 48, &0x10000_u64.to_be_bytes());
    put(&mut head, 56, &1_u32.to_be_bytes());
    put(&mut head, 96, &4_u32.to_be_bytes());
    put(&mut head, 100, &112_u32.to_be_bytes());
    head
}

fn put(head: &mut [u8], at: usize, bytes: &[u8]) {
    head[at..at + bytes.len()].copy_from_slice(bytes);
}

const SIZE: u64 = 0x40000;

fn with(at: usize, bytes: &[u8]) -> Result<ImageInfo, ProbeError> {
    let mut head = sound();
    put(&mut head, at, bytes);
    judge(&head, &[], SIZE, 2 << 40)
}

fn header_error(at: usize, bytes: &[u8]) -> HeaderError {
    match with(at, bytes) {
        Err(ProbeError::Header(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_header_passes() {
    let info = judge(&sound(), &[], SIZE, 2 << 40).unwrap();
    assert_eq!(info, ImageInfo { format: Format::Qcow2, virtual_size: 1 << 30, file_size: SIZE });
}

#[test]
fn files_that_stand_on_others_are_refused() {
    assert_eq!(header_error(8, &0x70_u64.to_be_bytes()), HeaderError::BackingFile);
    assert_eq!(header_error(16, &11_u32.to_be_bytes()), HeaderError::BackingFile);
    assert_eq!(header_error(72, &4_u64.to_be_bytes()), HeaderError::DataFile);
    assert_eq!(header_error(112, b"DATA\0\0\0\x05"), HeaderError::DataFile);
    assert_eq!(header_error(32, &2_u32.to_be_bytes()), HeaderError::Encrypted);
    assert_eq!(header_error(112, b"\x05\x37\xbe\x77\0\0\0\x10"), HeaderError::Encrypted);
}

#[test]
fn an_extension_behind_another_one_is_seen() {
    let mut head = sound();
    put(&mut head, 112, b"\x68\x03\xf8\x57\0\0\0\x05abcde\0\0\0DATA\0\0\0\x01");
    assert!(matches!(judge(&head, &[], SIZE, 2 << 40), Err(ProbeError::Header(HeaderError::DataFile))));
}

#[test]
fn unclean_and_unknown_files_are_refused() {
    assert_eq!(header_error(60, &3_u32.to_be_bytes()), HeaderError::Snapshots(3));
    assert!(matches!(header_error(72, &1_u64.to_be_bytes()), HeaderError::Unclean(_)));
    assert!(matches!(header_error(72, &2_u64.to_be_bytes()), HeaderError::Unclean(_)));
    assert_eq!(header_error(72, &(1_u64 << 40).to_be_bytes()), HeaderError::Features(1 << 40));
    assert_eq!(header_error(4, &1_u32.to_be_bytes()), HeaderError::Version(1));
}

#[test]
fn absurd_tables_are_refused() {
    let field = |at, bytes: &[u8]| match header_error(at, bytes) {
        HeaderError::Field { field, .. } => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(36, &u32::MAX.to_be_bytes()), "L1 table size");
    assert_eq!(field(36, &1_u32.to_be_bytes()), "L1 table size");
    assert_eq!(field(40, &(SIZE).to_be_bytes()), "L1 table offset");
    assert_eq!(field(40, &(u64::MAX - 0xffff).to_be_bytes()), "L1 table offset");
    assert_eq!(field(40, &0_u64.to_be_bytes()), "L1 table offset");
    assert_eq!(field(48, &0x10001_u64.to_be_bytes()), "refcount table offset");
    assert_eq!(field(56, &u32::MAX.to_be_bytes()), "refcount table size");
    assert_eq!(field(20, &63_u32.to_be_bytes()), "cluster size exponent");
    assert_eq!(field(24, &1_u64.to_be_bytes()), "disk size");
    assert_eq!(field(96, &7_u32.to_be_bytes()), "refcount order");
    assert_eq!(field(100, &u32::MAX.to_be_bytes()), "header length");
}

#[test]
fn a_disk_beyond_the_limit_is_refused() {
    assert!(matches!(judge(&sound(), &[], SIZE, 1 << 20), Err(ProbeError::TooLarge { size: 0x4000_0000, .. })));
    assert!(matches!(judge(&[1; 512], &[], 1 << 20, 1 << 19), Err(ProbeError::TooLarge { .. })));
}

#[test]
fn other_formats_are_refused_by_name() {
    let refusal = |head: &[u8], tail: &[u8]| judge(head, tail, 1 << 20, 2 << 40).unwrap_err().to_string();
    let mut deep = vec![0; HEAD_BYTES];
    put(&mut deep, 64, b"\x7f\x10\xda\xbe");
    assert!(refusal(&deep, &[]).contains("VDI"));
    let mut iso = vec![0; HEAD_BYTES];
    put(&mut iso, 32_769, b"CD001");
    assert!(refusal(&iso, &[]).contains("ISO 9660"));
    for (head, tail, name) in [
        (&b"KDMV"[..], &b""[..], "VMDK"),
        (b"# Disk DescriptorFile\nversion=1", b"", "VMDK"),
        (b"vhdxfile", b"", "VHDX"),
        (b"LUKS\xba\xbe\0\x02", b"", "LUKS"),
        (b"QED\0", b"", "QED"),
        (b"\xfd7zXZ\0", b"", "xz"),
        (b"\0\0", b"conectix", "VHD"),
        (b"\0\0", b"koly", "DMG"),
        (b"", b"", "empty"),
    ] {
        assert!(refusal(head, tail).contains(name), "{name}");
    }
}

#[test]
fn a_raw_disk_is_whole_sectors_and_a_hybrid_iso_is_a_disk() {
    assert_eq!(judge(b"\xeb\x63", &[], 1024, 2 << 40).unwrap().format, Format::Raw);
    assert!(matches!(judge(b"<!DOCTYPE html>", &[], 1000, 2 << 40), Err(ProbeError::RawSize(1000))));
    let mut iso = vec![0; HEAD_BYTES];
    put(&mut iso, 32_769, b"CD001");
    put(&mut iso, 510, b"\x55\xaa");
    assert_eq!(judge(&iso, &[], 1 << 20, 2 << 40).unwrap().format, Format::Raw);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_fail_otherwise_than_by_an_error(
        mut head in proptest::collection::vec(any::<u8>(), 0..600), qcow2 in any::<bool>(), size in any::<u64>(),
    ) {
        if qcow2 && head.len() >= 8 {
            put(&mut head, 0, b"QFI\xfb\0\0\0\x03");
        }
        if let Ok(info) = judge(&head, &[], size, u64::MAX) {
            prop_assert_eq!(info.virtual_size % 512, 0);
        }
    }

    #[test]
    fn a_cut_off_header_is_never_accepted(len in 4_usize..104) {
        prop_assert!(judge(&sound()[..len], &[], SIZE, 2 << 40).is_err());
    }
}
