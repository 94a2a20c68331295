//! Disks that come to a guest and leave it while it runs, on a real libvirt and seen by the guest.
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
        read_only: false,
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
