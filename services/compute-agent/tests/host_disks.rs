//! Disks that come to a guest and leave it while it runs, and their limits, on a real libvirt and seen by the guest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use cloud_contracts::agent::{
    AttachDiskRequest, DetachDiskRequest, DiskSpec, InstanceSpec, InstanceState, PowerState, ResizeDiskRequest,
};
use cloud_domain::{Incarnation, VolumeId};
use support::{Host, LONG, reason, run, until};
use tonic::{Code, Status};

/// Says which disks there are, by their serial numbers, whenever that changes, and how large the last one is.
const WATCHER: &str = "#!/bin/sh
while true; do
    now=$(for disk in /sys/block/vd*; do echo \"$(cat $disk/serial)\"; done | sort | tr '\\n' ' ')
    [ \"$now\" = \"$seen\" ] || echo \"disks: $now.\"
    seen=$now
    for disk in /sys/block/vd*; do
        [ \"$(cat $disk/size)\" != 65536 ] || [ -n \"$grown\" ] || { grown=yes; echo \"$(cat $disk/serial) grew\"; }
    done
    sleep 1
done &
";

/// A new disk of 16 MiB.
fn disk(host: &Host) -> DiskSpec {
    let volume = VolumeId::random();
    let path = host.dir.path().join(format!("{volume}.qcow2"));
    run("qemu-img", &["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "16M"]);
    DiskSpec {
        volume_id: volume.to_string(),
        path: path.to_str().unwrap().into(),
        format: "qcow2".into(),
        ..DiskSpec::default()
    }
}

async fn attach(host: &Host, id: &str, disk: &DiskSpec) -> Result<InstanceState, Status> {
    let record = format!("with {}", disk.volume_id);
    let request = AttachDiskRequest { context: host.context(), id: id.into(), disk: Some(disk.clone()), record };
    Ok(host.client().attach_disk(request).await?.into_inner().state.unwrap())
}

async fn detach(host: &Host, id: &str, disk: &DiskSpec) -> Result<Option<InstanceState>, Status> {
    let (volume_id, record) = (disk.volume_id.clone(), format!("without {}", disk.volume_id));
    let request = DetachDiskRequest { context: host.context(), id: id.into(), volume_id, record };
    Ok(host.client().detach_disk(request).await?.into_inner().state)
}

/// Asks until the guest has released it.
async fn detached(host: &Host, id: &str, disk: &DiskSpec) {
    until("the guest releases the disk", LONG, async || {
        let state = detach(host, id, disk).await.unwrap().unwrap();
        (!state.volume_ids.contains(&disk.volume_id)).then_some(())
    })
    .await;
}

/// What the guest says of its disks.
fn told(spec: &InstanceSpec, more: &[&DiskSpec]) -> String {
    let mut serials: Vec<&str> = spec.disks.iter().chain(more.iter().copied()).map(|d| &d.volume_id[..20]).collect();
    serials.push("cidata");
    serials.sort_unstable();
    format!("disks: {} .", serials.join(" "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_sees_a_disk_come_and_go() {
    let mut host = Host::start().await;
    let mut spec = host.spec(WATCHER);
    let id = spec.id.clone();
    host.ensure(&spec).await.unwrap();
    host.says(&id, &told(&spec, &[]), 1).await;

    let (one, two) = (disk(&host), disk(&host));
    let root = spec.disks[0].volume_id.clone();
    let state = attach(&host, &id, &one).await.unwrap();
    assert_eq!(state.volume_ids, [root.clone(), one.volume_id.clone()]);
    host.says(&id, &told(&spec, &[&one]), 1).await;
    assert_eq!(host.record(&id).await.unwrap(), format!("with {}", one.volume_id));
    // Once more is once, and what the guest has is no difference to what it was started with.
    assert_eq!(attach(&host, &id, &one).await.unwrap(), state);
    assert_eq!(host.ensure(&spec).await.unwrap(), state);
    attach(&host, &id, &two).await.unwrap();
    host.says(&id, &told(&spec, &[&one, &two]), 1).await;

    // It is known by its volume, not by its place.
    detached(&host, &id, &one).await;
    host.says(&id, &told(&spec, &[&two]), 1).await;
    let context = host.context();
    let resize = ResizeDiskRequest { context, id: id.clone(), volume_id: two.volume_id.clone(), size_bytes: 32 << 20 };
    host.client().resize_disk(resize).await.unwrap();
    host.says(&id, &format!("{} grew", &two.volume_id[..20]), 1).await;

    // An agent that is killed after its hypervisor has done it, and before that is written down: as if it had never been asked.
    let domain = format!("cloud-{id}");
    host.kill_agent();
    let xml = host.libvirt.virsh(&["dumpxml", &domain]);
    let target = xml.split("<disk ").skip(1).find(|part| part.contains(&two.volume_id[..20])).unwrap();
    let target = target.split_once("<target dev='").unwrap().1.split_once('\'').unwrap().0;
    host.libvirt.virsh(&["detach-disk", &domain, target, "--live"]);
    host.start_agent().await;
    host.says(&id, &told(&spec, &[]), 2).await;
    assert!(host.get(&id).await.unwrap().volume_ids.contains(&two.volume_id), "nobody has said otherwise");
    detached(&host, &id, &two).await;
    let inactive = host.libvirt.virsh(&["dumpxml", "--inactive", &domain]);
    assert!(!inactive.contains(&two.volume_id[..20]), "{inactive}");

    // Back where it was before, and there after a restart, as asked for then.
    attach(&host, &id, &one).await.unwrap();
    host.says(&id, &told(&spec, &[&one]), 2).await;
    host.stop(&id, true).await.unwrap();
    let error = attach(&host, &id, &two).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "NOT_RUNNING"));
    detached(&host, &id, &one).await;
    spec.incarnation = Incarnation::random().to_string();
    spec.disks.push(two.clone());
    assert_eq!(host.ensure(&spec).await.unwrap().volume_ids, [root, two.volume_id.clone()]);
    host.says(&id, &told(&spec, &[]), 2).await;
    host.remove(&id).await.unwrap();
    assert_eq!(detach(&host, &id, &two).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_listen_keeps_its_disk_until_it_is_off() {
    let host = Host::start().await;
    // It stays in the firmware.
    let spec = host.blank_spec("");
    host.ensure(&spec).await.unwrap();
    let (disk, missing) = (disk(&host), disk(&host));
    std::fs::remove_file(&missing.path).unwrap();
    let error = attach(&host, &spec.id, &missing).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "MISSING_FILE"), "{error}");
    detached(&host, &spec.id, &missing).await;

    attach(&host, &spec.id, &disk).await.unwrap();
    for _ in 0..2 {
        let state = detach(&host, &spec.id, &disk).await.unwrap().unwrap();
        assert!(state.volume_ids.contains(&disk.volume_id), "it was not released");
        assert_eq!(host.record(&spec.id).await.unwrap(), format!("with {}", disk.volume_id));
    }
    host.stop(&spec.id, true).await.unwrap();
    host.is(&spec.id, PowerState::Shutoff).await;
    detached(&host, &spec.id, &disk).await;
    host.remove(&spec.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_room_for_sixteen_disks() {
    let host = Host::start().await;
    let spec = host.blank_spec("");
    host.ensure(&spec).await.unwrap();
    for count in 2..=16 {
        assert_eq!(attach(&host, &spec.id, &disk(&host)).await.unwrap().volume_ids.len(), count);
    }
    let error = attach(&host, &spec.id, &disk(&host)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    host.remove(&spec.id).await.unwrap();
}

/// Operations and bytes a second that a disk of a guest may do, by what QEMU says (`--live`), or by what its next start will give it (`--config`).
fn iotune(host: &Host, id: &str, place: &str, disk: &DiskSpec) -> (u64, u64) {
    let domain = format!("cloud-{id}");
    let xml = host.libvirt.virsh(&["dumpxml", &domain]);
    let said = host.libvirt.virsh(&["blkdeviotune", &domain, &target(&xml, disk), place]);
    let limit = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches([' ', ':']).parse().unwrap()
    };
    (limit("total_iops_sec"), limit("total_bytes_sec"))
}

/// What a disk is called in a domain.
fn target(xml: &str, disk: &DiskSpec) -> String {
    let part = xml.split("<disk ").skip(1).find(|part| part.contains(&disk.volume_id[..20])).unwrap();
    part.split_once("<target dev='").unwrap().1.split_once('\'').unwrap().0.to_owned()
}

fn with(disk: &DiskSpec, (total_iops_sec, total_bytes_sec): (u64, u64)) -> DiskSpec {
    DiskSpec { total_iops_sec, total_bytes_sec, ..disk.clone() }
}

/// What the agent says of it.
fn said(state: &InstanceState, disk: &DiskSpec) -> Option<(u64, u64)> {
    let disk = state.disks.iter().find(|has| has.volume_id == disk.volume_id)?;
    Some((disk.total_iops_sec, disk.total_bytes_sec))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_has_its_limits_in_the_guest_that_runs_and_in_its_next_start() {
    let mut host = Host::start().await;
    // It stays in the firmware.
    let mut spec = host.blank_spec("");
    let (id, none) = (spec.id.clone(), (0, 0));
    spec.disks[0] = with(&spec.disks[0], (500, 3_000_000));
    let root = spec.disks[0].clone();
    let both = |host: &Host, disk: &DiskSpec| [iotune(host, &id, "--live", disk), iotune(host, &id, "--config", disk)];
    let state = host.ensure(&spec).await.unwrap();
    assert_eq!(said(&state, &root), Some((500, 3_000_000)));
    assert_eq!(both(&host, &root), [(500, 3_000_000); 2], "from its first start");
    let process = host.libvirt.qemu_pid(&format!("cloud-{id}"));

    // Of a disk that comes, of one that is there, of the root disk; more, less, none.
    let new = disk(&host);
    for limits in [(100, 1_000_000), (200, 0), (0, 5_000_000), none, (50, 2_000_000)] {
        for disk in [&new, &root] {
            let state = attach(&host, &id, &with(disk, limits)).await.unwrap();
            assert_eq!(said(&state, disk), Some(limits));
            assert_eq!(both(&host, disk), [limits; 2]);
        }
    }
    assert_eq!(host.ensure(&spec).await.unwrap().disks.len(), 2, "limits are no difference");
    assert_eq!(both(&host, &root), [(50, 2_000_000); 2]);

    // What somebody sets is told, also a limit of another kind, and goes when the disk is given its own. So does half of what is set.
    let domain = format!("cloud-{id}");
    let vdb = target(&host.libvirt.virsh(&["dumpxml", &domain]), &new);
    for (args, told) in [
        (&["--live", "--total-bytes-sec", "7000000"][..], (50, 7_000_000)),
        (&["--live", "--read-bytes-sec", "600000", "--write-bytes-sec", "400000"][..], (50, 1_000_000)),
        (&["--live", "--total-iops-sec", "0", "--total-bytes-sec", "0"][..], none),
        (&["--config", "--total-iops-sec", "9"][..], (50, 2_000_000)),
    ] {
        host.libvirt.virsh(&[&["blkdeviotune", &domain, &vdb], args].concat());
        assert_eq!(said(&host.get(&id).await.unwrap(), &new), Some(told), "{args:?}");
        attach(&host, &id, &with(&new, (50, 2_000_000))).await.unwrap();
        assert_eq!(both(&host, &new), [(50, 2_000_000); 2], "{args:?}");
    }

    // Another agent, and another libvirt.
    host.kill_agent();
    host.libvirt.kill_daemon();
    host.libvirt.start_daemon().await;
    host.start_agent().await;
    for disk in [&new, &root] {
        assert_eq!(said(&host.get(&id).await.unwrap(), disk), Some((50, 2_000_000)));
        assert_eq!(both(&host, disk), [(50, 2_000_000); 2]);
    }
    assert_eq!(host.libvirt.qemu_pid(&domain), process, "it is the same guest");

    // Off, it has none to tell; the next start gives it those of then.
    host.stop(&id, true).await.unwrap();
    assert_eq!(said(&host.get(&id).await.unwrap(), &root), None);
    spec.incarnation = Incarnation::random().to_string();
    spec.disks = vec![with(&root, (70, 0)), with(&new, (0, 4_000_000))];
    host.ensure(&spec).await.unwrap();
    for disk in &spec.disks {
        assert_eq!(both(&host, disk), [(disk.total_iops_sec, disk.total_bytes_sec); 2]);
    }
    host.remove(&id).await.unwrap();
}
