use std::time::{Duration, SystemTime};

use super::*;
use crate::core::{DiskFormat, Ended, PendingReboot, Seed};

const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

fn spec() -> GuestSpec {
    GuestSpec {
        id: ID.parse().unwrap(),
        incarnation: "550e8400-e29b-41d4-a716-446655440001".parse().unwrap(),
        boot_generation: 3,
        name: "web-01".parse().unwrap(),
        vcpus: 2,
        memory: 512.try_into().unwrap(),
        disks: vec![
            Disk {
                volume: "550e8400-e29b-41d4-a716-446655440002".parse().unwrap(),
                path: "/var/lib/thecloud/pool/<&\"'>.qcow2".into(),
                format: DiskFormat::Qcow2,
                read_only: false,
                limits: DiskLimits::default(),
            },
            Disk {
                volume: "550e8400-e29b-41d4-a716-446655440003".parse().unwrap(),
                path: "/dev/vg0/data".into(),
                format: DiskFormat::Raw,
                read_only: true,
                limits: DiskLimits { total_iops_sec: 500, total_bytes_sec: 20_000_000 },
            },
        ],
        nics: vec![Nic {
            port: "550e8400-e29b-41d4-a716-446655440004".parse().unwrap(),
            mac: "52:54:00:aa:bb:cc".parse().unwrap(),
            device: "tap550e8400e29".parse().unwrap(),
            mtu: 1442,
        }],
        seed: Seed {
            hostname: "web-01".parse().unwrap(),
            ssh_keys: vec!["ssh-ed25519 AAAA".into()],
            user_data: "a secret".into(),
        },
        record: "another secret".into(),
    }
}

fn tag(spec: &GuestSpec) -> Tag {
    Tag::new("550e8400-e29b-41d4-a716-446655440005".parse().unwrap(), spec)
}

fn around(accelerator: Accelerator) -> Surroundings {
    let directory = Path::new("/var/lib/thecloud/instances").join(ID);
    Surroundings {
        accelerator,
        emulator: None,
        seed: directory.join("seed.img"),
        serial_socket: directory.join("serial.sock"),
        console_log: directory.join("console.log"),
        nic_offload: false,
    }
}

#[test]
fn a_guest_under_emulation() {
    let spec = spec();
    let xml = domain(&spec, &tag(&spec), &around(Accelerator::Tcg)).unwrap();
    assert!(!xml.contains("a secret"));
    insta::assert_snapshot!(xml);
}

#[test]
fn a_guest_under_kvm_on_a_kernel_switch() {
    let spec = GuestSpec { disks: spec().disks[..1].to_vec(), ..spec() };
    let around =
        Surroundings { nic_offload: true, emulator: Some("/usr/libexec/qemu-kvm".into()), ..around(Accelerator::Kvm) };
    insta::assert_snapshot!(domain(&spec, &tag(&spec), &around).unwrap());
}

#[test]
fn a_path_that_xml_cannot_hold_is_refused() {
    let mut spec = spec();
    spec.disks[0].path = "/pool/a\u{1}b".into();
    assert!(domain(&spec, &tag(&spec), &around(Accelerator::Tcg)).is_err());
}

#[test]
fn a_tag_is_read_as_it_was_written() {
    let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let tags = [
        tag(&spec()),
        Tag {
            started_at: Some(at(1_795_471_679_003)),
            ended: Some(Ended::Crashed),
            host_stop: true,
            reboot: Some(PendingReboot { to: 4, force_at: at(1_795_471_680_000) }),
            ..tag(&spec())
        },
    ];
    for tag in tags {
        // As libvirt gives it back: with its prefix.
        let element = tag_xml::element(&tag).unwrap();
        assert_eq!(tag_xml::parse(&element).unwrap(), tag);
        let mut writer = Writer::new(Vec::new());
        tag_xml::write(&mut writer, &tag, "cloud:").unwrap();
        assert_eq!(tag_xml::parse(&String::from_utf8(writer.into_inner()).unwrap()).unwrap(), tag);
    }
}

#[test]
fn a_tag_that_lacks_something_is_an_error_that_names_it() {
    let element = tag_xml::element(&tag(&spec())).unwrap();
    for (part, named) in
        [("incarnation=", "incarnation"), ("cloud-id=", "cloud-id"), ("boot-generation=", "boot-generation")]
    {
        let error = tag_xml::parse(&element.replace(part, "x=")).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    assert!(tag_xml::parse("<instance/>").is_err());
    assert!(tag_xml::parse("no xml <").is_err());
}
