//! A guest's life through the agent's contract, on a real libvirt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use cloud_contracts::agent::{InstanceSpec, ListInstancesRequest, PowerState, StateReason};
use cloud_domain::{CloudId, Incarnation};
use support::{Host, off, reason};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_lives_and_leaves_nothing() {
    let host = Host::start().await;
    let mut spec = host.spec("#!/bin/sh\necho \"user-data speaks on $(hostname)\"\n");
    let id = spec.id.clone();
    let domain = format!("cloud-{id}");

    let started = host.ensure(&spec).await.unwrap();
    assert_eq!(started.power(), PowerState::Running);
    assert!(started.started_at.is_some());
    let owner = started.owner.clone().unwrap();
    assert_eq!((owner.cloud_id, owner.resource_id), (host.cloud().to_string(), id.clone()));
    assert_eq!(owner.incarnation, spec.incarnation);
    let process = host.libvirt.qemu_pid(&domain);

    // Ensuring what exists is success and starts nothing.
    assert_eq!(host.ensure(&spec).await.unwrap(), started);
    assert_eq!(host.libvirt.qemu_pid(&domain), process);
    let list = host.client().list_instances(ListInstancesRequest {}).await.unwrap().into_inner().instances;
    assert_eq!(list, std::slice::from_ref(&started));

    assert_eq!(host.record(&id).await.unwrap(), spec.record);
    // What it is to be remembered as makes no other guest of it.
    let renamed = InstanceSpec { record: "launched as web-02".into(), ..spec.clone() };
    assert_eq!(host.ensure(&renamed).await.unwrap(), started);
    assert_eq!(host.record(&id).await.unwrap(), spec.record, "as it was last started");

    // Another specification, another incarnation: refused by name.
    let mut other = spec.clone();
    other.memory_mib = 256;
    let error = host.ensure(&other).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::AlreadyExists, "SPEC_DIFFERS"));
    assert!(error.message().contains("memory_mib is 128, asked for 256"), "{}", error.message());
    let mut other = spec.clone();
    other.incarnation = Incarnation::random().to_string();
    let error = host.ensure(&other).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "OTHER_INCARNATION_RUNNING"));

    host.says(&id, "tiny: ready", 1).await;
    host.says(&id, "user-data speaks on web-01", 1).await;

    // The power button; the same incarnation stays off, a new one starts.
    let asked = host.stop(&id, false).await.unwrap().unwrap();
    assert_eq!(asked.power(), PowerState::Running, "the answer does not wait");
    off(&host.is(&id, PowerState::Shutoff).await, StateReason::GuestShutdown);
    off(&host.ensure(&spec).await.unwrap(), StateReason::GuestShutdown);
    off(&host.stop(&id, false).await.unwrap().unwrap(), StateReason::GuestShutdown);
    spec.incarnation = Incarnation::random().to_string();
    spec.boot_generation = 7;
    spec.record = renamed.record;
    let again = host.ensure(&spec).await.unwrap();
    assert_eq!(host.record(&id).await.unwrap(), spec.record);
    assert_eq!((again.power(), again.boot_generation), (PowerState::Running, 7));

    // Pulling the plug.
    off(&host.stop(&id, true).await.unwrap().unwrap(), StateReason::Destroyed);
    off(&host.ensure(&spec).await.unwrap(), StateReason::Destroyed);

    // Removal, of what runs and of what is gone.
    spec.incarnation = Incarnation::random().to_string();
    assert_eq!(host.ensure(&spec).await.unwrap().power(), PowerState::Running);
    host.remove(&id).await.unwrap();
    host.remove(&id).await.unwrap();
    assert_eq!(host.get(&id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(host.stop(&id, true).await.unwrap(), None);
    assert_eq!(host.libvirt.virsh(&["list", "--all", "--name"]).trim(), "");
    let instances = host.state_dir().join("instances");
    assert_eq!(std::fs::read_dir(instances).unwrap().count(), 0);
    assert!(std::path::Path::new(&spec.disks[0].path).exists(), "disks are the storage-agent's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_not_ours_is_left_alone() {
    let host = Host::start().await;
    let spec = host.blank_spec("");
    host.ensure(&spec).await.unwrap();
    let domain = format!("cloud-{}", spec.id);
    let xml = host.libvirt.virsh(&["dumpxml", "--inactive", &domain]);
    host.remove(&spec.id).await.unwrap();

    let untagged = {
        let (before, rest) = xml.split_once("<metadata>").unwrap();
        format!("{before}{}", rest.split_once("</metadata>").unwrap().1)
    };
    let others = xml.replace(&host.cloud().to_string(), &CloudId::random().to_string());
    let renamed = xml.replace(&format!("<name>{domain}</name>"), "<name>a-guest-of-somebody</name>");
    for (xml, name) in [(untagged, domain.as_str()), (others, &domain), (renamed, "a-guest-of-somebody")] {
        let file = host.dir.path().join("foreign.xml");
        std::fs::write(&file, xml).unwrap();
        host.libvirt.virsh(&["define", file.to_str().unwrap()]);
        let before = host.libvirt.virsh(&["dumpxml", name]);
        let list = host.client().list_instances(ListInstancesRequest {}).await.unwrap().into_inner().instances;
        assert_eq!(list, []);
        let errors = [
            host.ensure(&spec).await.unwrap_err(),
            host.get(&spec.id).await.unwrap_err(),
            host.stop(&spec.id, true).await.unwrap_err(),
            host.remove(&spec.id).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "FOREIGN_DOMAIN"));
        }
        assert_eq!(host.guests(&["remove", "--cloud-id", &host.cloud().to_string()]), "");
        assert_eq!(host.libvirt.virsh(&["dumpxml", name]), before);
        host.libvirt.virsh(&["undefine", name]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_name_their_cause() {
    let host = Host::start().await;
    let mut spec = host.blank_spec("");
    std::fs::remove_file(&spec.disks[0].path).unwrap();
    let error = host.ensure(&spec).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "MISSING_FILE"), "{error}");
    assert!(error.message().contains(&spec.disks[0].path), "{}", error.message());
    // The same incarnation can be tried again when the cause is gone.
    off(&host.get(&spec.id).await.unwrap(), StateReason::Failed);
    support::run("qemu-img", &["create", "-q", "-f", "qcow2", &spec.disks[0].path, "16M"]);
    assert_eq!(host.ensure(&spec).await.unwrap().power(), PowerState::Running);
    host.remove(&spec.id).await.unwrap();

    spec.nics.push(cloud_contracts::agent::NicSpec {
        port_id: cloud_domain::PortId::random().to_string(),
        mac: "52:54:00:00:00:01".into(),
        device: "tapnotthere0".into(),
        mtu: 1442,
    });
    let error = host.ensure(&spec).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "NETWORK_DEVICE"), "{error}");
    assert!(error.message().contains("tapnotthere0"), "{}", error.message());

    spec.nics.clear();
    spec.memory_mib = 64 << 20;
    spec.incarnation = Incarnation::random().to_string();
    let error = host.ensure(&spec).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::ResourceExhausted, "NO_MEMORY"), "{error}");

    spec.memory_mib = 0;
    let error = host.ensure(&spec).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("spec.memory_mib"), "{}", error.message());
    host.remove(&spec.id).await.unwrap();
}

/// A tap device that goes with its test.
struct Tap(String);

impl Tap {
    fn new() -> Self {
        let name = cloud_domain::PortId::random().tap_device();
        support::run("ip", &["tuntap", "add", &name, "mode", "tap", "vnet_hdr"]);
        Self(name)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["link", "del", &self.0]).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_sees_its_devices_and_its_tap_stays() {
    let tap = Tap::new();
    let host = Host::start().await;
    let mut spec = host.spec(
        "#!/bin/sh\necho \"nic $(cat /sys/class/net/eth0/address) $(cat /sys/class/net/eth0/mtu)\"\n\
         echo \"disk $(cat /sys/block/vda/serial) seed $(cat /sys/block/vdb/serial) $(cat /sys/block/vdb/ro)\"\n",
    );
    spec.vcpus = 2;
    spec.nics.push(cloud_contracts::agent::NicSpec {
        port_id: cloud_domain::PortId::random().to_string(),
        mac: "52:54:00:12:34:56".into(),
        device: tap.0.clone(),
        mtu: 1442,
    });
    host.ensure(&spec).await.unwrap();
    host.says(&spec.id, "nic 52:54:00:12:34:56 1442", 1).await;
    let serial = &spec.disks[0].volume_id[..20];
    host.says(&spec.id, &format!("disk {serial} seed cidata 1"), 1).await;
    let capacity = host.gateway.capacity().unwrap();
    assert_eq!((capacity.architecture.as_str(), capacity.accelerator.is_empty()), ("x86_64", false));
    assert!(capacity.vcpus > 0 && capacity.memory_mib > 0);
    assert!(capacity.hypervisor.starts_with("QEMU "), "{}", capacity.hypervisor);
    host.remove(&spec.id).await.unwrap();
    assert!(std::path::Path::new("/sys/class/net").join(&tap.0).exists(), "the network-agent's");
}
