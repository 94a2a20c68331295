//! Golden files of each resource as table, details, JSON and YAML.

use std::time::{Duration, SystemTime};

use cloud_contracts::v1::{
    Agent, ApiKey, Event, Host, HostPool, Image, Instance, InstancePort, InstanceType, InstanceVolume, Port, Project,
    PublishedPort, Quota, Subnet, Volume, Vpc, api_key, host, image, instance, instance_volume, volume,
};
use prost_types::Timestamp;

use super::*;

const NOW: u64 = 1_800_000_000;

fn ago(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_800_000_000 - seconds, nanos: 250_000_000 })
}

fn output(format: Format) -> Output {
    Output { format, view: View { now: SystemTime::UNIX_EPOCH + Duration::from_secs(NOW) }, colours: false }
}

fn id(n: u8) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

/// All that is ever printed of a resource.
fn golden<R: Resource>(items: &[R]) -> String {
    let table = output(Format::Table);
    let list = |format| output(format).list_text(items, "").unwrap();
    [
        list(Format::Table),
        table::details(items, table.view, false),
        list(Format::Json),
        output(Format::Yaml).documents(items).unwrap(),
    ]
    .join("\n=====\n\n")
}

fn instances() -> Vec<Instance> {
    let port = InstancePort {
        id: id(7),
        vpc: "default".into(),
        subnet: "default".into(),
        mac: "52:54:00:12:34:56".into(),
        ip: "10.0.0.2".into(),
        ..Default::default()
    };
    let running = Instance {
        id: id(1),
        name: "web-01".into(),
        project: "default".into(),
        image: "tiny".into(),
        instance_type: "small".into(),
        vcpus: 1,
        memory_mib: 1536,
        status: instance::Status::Running.into(),
        desired_status: instance::Status::Running.into(),
        host: "h1".into(),
        host_reachable: true,
        ports: vec![
            port.clone(),
            InstancePort { id: id(8), ip: "10.1.0.2".into(), floating_ip: "192.0.2.1".into(), ..port },
        ],
        published_ports: vec![PublishedPort { host_port: 8080, guest_port: 80, protocol: "tcp".into() }],
        volumes: vec![InstanceVolume {
            id: id(9),
            name: "web-01-root".into(),
            root: true,
            size_gib: 10,
            state: instance_volume::State::Attached.into(),
        }],
        ssh_keys: vec!["ssh-ed25519 AAAA me".into()],
        user_data: "#!/bin/sh\n".into(),
        labels: [("tier".to_owned(), "web".to_owned()), ("a".to_owned(), "b".to_owned())].into(),
        console_available: true,
        started_at: ago(50),
        created_at: ago(60),
        updated_at: ago(50),
        etag: "7".into(),
        ..Default::default()
    };
    let failed = Instance {
        id: id(2),
        name: "db-01-with-a-longer-name".into(),
        image: "tiny".into(),
        instance_type: "large".into(),
        status: instance::Status::Error.into(),
        status_reason: "no host has 64 GiB of memory free:\u{1b}[31m\nadd one".into(),
        desired_status: instance::Status::Running.into(),
        host: "h2".into(),
        created_at: ago(200_000),
        ..Default::default()
    };
    vec![running, failed]
}

#[test]
fn instances_are_printed() {
    insta::assert_snapshot!(golden(&instances()));
}

#[test]
fn volumes_are_printed() {
    let volume = Volume {
        id: id(1),
        name: "data".into(),
        project: "default".into(),
        size_gib: 20,
        status: volume::Status::InUse.into(),
        host: "h1".into(),
        pool: "main".into(),
        instance: "web-01".into(),
        created_at: ago(7_000),
        updated_at: ago(10),
        etag: "2".into(),
        iops: 500,
        mb_per_second: 20,
        limits_pending: true,
        ..Default::default()
    };
    let blank =
        Volume { name: "blank".into(), status: volume::Status::Available.into(), size_gib: 1, ..Default::default() };
    insta::assert_snapshot!(golden(&[volume, blank]));
}

#[test]
fn images_are_printed() {
    let image = Image {
        id: id(1),
        name: "tiny".into(),
        project: "default".into(),
        visibility: image::Visibility::Public.into(),
        status: image::Status::Ready.into(),
        format: image::Format::Qcow2.into(),
        size_bytes: 12_345_678,
        virtual_size_bytes: 1 << 30,
        sha256: "ab".repeat(32),
        source: "upload".into(),
        architecture: "x86_64".into(),
        created_at: ago(500_000),
        updated_at: ago(500_000),
        etag: "1".into(),
        ..Default::default()
    };
    let importing = Image { name: "debian".into(), status: image::Status::Importing.into(), ..Default::default() };
    insta::assert_snapshot!(golden(&[image, importing]));
}

#[test]
fn networks_are_printed() {
    let vpc = Vpc {
        id: id(1),
        name: "default".into(),
        project: "default".into(),
        cidr: "10.0.0.0/16".into(),
        vni: 4097,
        is_default: true,
        created_at: ago(3),
        updated_at: ago(3),
        etag: "1".into(),
        ..Default::default()
    };
    let subnet = Subnet {
        id: id(2),
        name: "default".into(),
        project: "default".into(),
        vpc: "default".into(),
        cidr: "10.0.0.0/24".into(),
        gateway: "10.0.0.1".into(),
        dns_servers: vec!["1.1.1.1".into(), "9.9.9.9".into()],
        created_at: ago(3),
        ..Default::default()
    };
    let port = Port {
        id: id(3),
        project: "default".into(),
        vpc: "default".into(),
        subnet: "default".into(),
        mac: "52:54:00:12:34:56".into(),
        ip: "10.0.0.2".into(),
        instance: "web-01".into(),
        host: "h1".into(),
        created_at: ago(3),
        ..Default::default()
    };
    insta::assert_snapshot!("vpcs", golden(&[vpc]));
    insta::assert_snapshot!("subnets", golden(&[subnet]));
    insta::assert_snapshot!("ports", golden(&[port]));
}

#[test]
fn hosts_are_printed() {
    let agent = |role: &str, reachable, backend_error: &str| Agent {
        role: role.into(),
        reachable,
        version: "0.1.0".into(),
        last_heartbeat_at: ago(2),
        backend_error: backend_error.into(),
    };
    let host = Host {
        id: id(1),
        name: "h1".into(),
        state: host::State::Unreachable.into(),
        state_reason: "the network agent does not answer".into(),
        agents: vec![agent("compute", true, ""), agent("storage", true, "disk full"), agent("network", false, "")],
        vcpus: 8,
        vcpus_used: 3,
        memory_mib: 32_768,
        memory_used_mib: 1_536,
        pools: vec![HostPool {
            name: "main".into(),
            backend: "directory".into(),
            total_bytes: 1 << 40,
            free_bytes: 3 << 38,
        }],
        accelerator: "tcg".into(),
        hypervisor: "QEMU 10.0.2".into(),
        architecture: "x86_64".into(),
        datapath: "netdev".into(),
        switch_version: "Open vSwitch 3.1.0".into(),
        vcpus_promisable: 56,
        vcpus_reserved: 1,
        vcpu_overcommit_percent: 800,
        memory_promisable_mib: 32_256,
        memory_reserved_mib: 512,
        memory_overcommit_percent: 100,
        load1_hundredths: 151,
        load5_hundredths: 9,
        instances: 2,
        created_at: ago(90_000),
        etag: "5".into(),
        ..Default::default()
    };
    insta::assert_snapshot!(golden(&[host]));
}

#[test]
fn events_types_and_projects_are_printed() {
    let event = Event {
        id: id(1),
        revision: 42,
        created_at: ago(4),
        project: "default".into(),
        kind: "instance".into(),
        resource_id: id(2),
        resource_name: "web-01".into(),
        action: "instance.launch".into(),
        actor: "admin".into(),
        source: "127.0.0.1".into(),
        outcome: "OK".into(),
        request_id: id(9),
        ..Default::default()
    };
    let size = InstanceType { name: "small".into(), vcpus: 1, memory_mib: 512, disk_gib: 10, is_default: true };
    let project =
        Project { id: id(1), name: "default".into(), created_at: ago(1), etag: "1".into(), ..Default::default() };
    let key = ApiKey {
        id: id(3),
        name: "ci".into(),
        project: "blue".into(),
        prefix: "tck_0a1b2c".into(),
        role: api_key::Role::Member.into(),
        expires_at: ago(-86_400),
        created_at: ago(60),
        etag: "1".into(),
        ..Default::default()
    };
    let quota = Quota {
        project: "blue".into(),
        limits: [("instances".to_owned(), 10), ("vcpus".to_owned(), 40)].into(),
        used: [("instances".to_owned(), 3), ("vcpus".to_owned(), 5), ("vpcs".to_owned(), 1)].into(),
    };
    insta::assert_snapshot!("api_keys", golden(&[key]));
    insta::assert_snapshot!("quotas", golden(&[quota]));
    insta::assert_snapshot!("events", golden(&[event]));
    insta::assert_snapshot!("types", golden(&[size]));
    insta::assert_snapshot!("projects", golden(&[project]));
}

#[test]
fn an_empty_list_has_its_columns() {
    let nothing: [Instance; 0] = [];
    insta::assert_snapshot!(golden(&nothing));
}

#[test]
fn colours_are_for_terminals() {
    let view = output(Format::Table).view;
    let plain = table::rows(&instances(), view, false);
    let coloured = table::rows(&instances(), view, true);
    assert!(!plain.contains('\u{1b}'));
    assert!(coloured.contains("\u{1b}[38;5;10m"), "{coloured:?}");
    let bare: String = strip_colours(&coloured);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&bare), words(&plain));
}

fn strip_colours(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |bare, part| bare + part.split_once('m').map_or("", |(_, rest)| rest))
}
