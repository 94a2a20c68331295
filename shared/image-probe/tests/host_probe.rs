//! The probe against images made by the real `qemu-img`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cloud_image_probe::{ConfirmError, Format, HeaderError, Limits, ProbeError, probe};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn create(dir: &TempDir, name: &str, args: &[&str]) -> PathBuf {
    let path = dir.path().join(name);
    let status = Command::new("qemu-img").arg("create").arg("-q").args(args).arg(&path).arg("64M").status().unwrap();
    assert!(status.success());
    path
}

async fn refusal(path: &Path) -> ProbeError {
    let error = probe(path, &Limits::default()).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    error
}

#[tokio::test]
async fn images_that_stand_alone_pass() {
    let dir = TempDir::new().unwrap();
    for (name, args) in [
        ("v3", &["-f", "qcow2"][..]),
        ("v2", &["-f", "qcow2", "-o", "compat=0.10"]),
        ("extended", &["-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k"]),
        ("zstd", &["-f", "qcow2", "-o", "compression_type=zstd"]),
        ("small, clusters", &["-f", "qcow2", "-o", "cluster_size=512"]),
    ] {
        let info = probe(&create(&dir, name, args), &Limits::default()).await.unwrap();
        assert_eq!((info.format, info.virtual_size), (Format::Qcow2, 64 * MIB), "{name}");
    }
    let info = probe(&create(&dir, "raw", &["-f", "raw"]), &Limits::default()).await.unwrap();
    assert_eq!((info.format, info.virtual_size, info.file_size), (Format::Raw, 64 * MIB, 64 * MIB));
}

#[tokio::test]
async fn images_that_reach_for_other_files_are_refused() {
    let dir = TempDir::new().unwrap();
    create(&dir, "base", &["-f", "qcow2"]);
    let overlay = create(&dir, "overlay", &["-f", "qcow2", "-b", "base", "-F", "qcow2"]);
    assert!(matches!(refusal(&overlay).await, ProbeError::Header(HeaderError::BackingFile)));
    let passwd = create(&dir, "passwd", &["-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw"]);
    assert!(matches!(refusal(&passwd).await, ProbeError::Header(HeaderError::BackingFile)));
    let data = dir.path().join("data");
    let external = create(&dir, "external", &["-f", "qcow2", "-o", &format!("data_file={}", data.display())]);
    assert!(matches!(refusal(&external).await, ProbeError::Header(HeaderError::DataFile)));
}

#[tokio::test]
async fn other_formats_are_refused_by_name() {
    let dir = TempDir::new().unwrap();
    for (format, name) in [("vmdk", "VMDK"), ("vdi", "VDI"), ("vhdx", "VHDX"), ("qed", "QED"), ("vpc", "VHD")] {
        let error = refusal(&create(&dir, format, &["-f", format])).await.to_string();
        assert!(error.contains(name), "{format}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_only_its_header_calls_sound_is_refused_by_qemu_img() {
    let dir = TempDir::new().unwrap();
    let path = create(&dir, "odd", &["-f", "qcow2"]);
    let mut bytes = fs::read(&path).unwrap();
    // An unknown compression type passes the header check, but is nothing that QEMU opens.
    bytes[104] = 9;
    bytes[79] = 8;
    fs::write(&path, bytes).unwrap();
    let error = refusal(&path).await;
    let ProbeError::Confirm(ConfirmError::Refused { message }) = &error else { panic!("{error}") };
    assert!(!message.contains(&path.display().to_string()), "names no path of the host: {message}");
}

#[tokio::test]
async fn limits_hold() {
    let dir = TempDir::new().unwrap();
    let path = create(&dir, "image", &["-f", "qcow2"]);
    let starved = Limits { address_space: 4 * MIB, ..Limits::default() };
    assert!(matches!(probe(&path, &starved).await, Err(ProbeError::Confirm(ConfirmError::Refused { .. }))));
    let hasty = Limits { deadline: Duration::ZERO, ..Limits::default() };
    assert!(matches!(probe(&path, &hasty).await, Err(ProbeError::Confirm(ConfirmError::Run(_)))));
    let small = Limits { max_virtual_size: MIB, ..Limits::default() };
    assert!(matches!(probe(&path, &small).await, Err(ProbeError::TooLarge { .. })));
    let error = probe(&dir.path().join("gone"), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, ProbeError::Read { .. }) && !error.is_refusal());
}
