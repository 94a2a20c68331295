//! The simulator, called as the gateway calls it.

use std::time::Duration;

use cloud_contracts::agent::{
    ApplyVpcRequest, CallContext, DiskSpec, EnsureInstanceRequest, EnsureVolumeRequest, ImageHeader, InstanceSpec,
    NicSpec, PortSlice, PutImageRequest, RemoveInstanceRequest, RemoveVolumeRequest, RemoveVpcRequest,
    StopInstanceRequest, SubnetSlice, VolumeSpec, VpcHeader, VpcPart, WatchInstancesRequest, apply_vpc_request,
    compute_service_client::ComputeServiceClient, network_service_client::NetworkServiceClient, put_image_request,
    storage_service_client::StorageServiceClient, volume_spec::Source,
};
use cloud_domain::PortId;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use super::*;
use crate::wait::{PATIENCE, until_true};

mod registration;

const CLOUD: &str = "6f0e2c55-1c1c-4a4e-8d5b-0a2f6c0f1e11";

/// A host with the one cloud it knows, and a guest's parts.
struct Bench {
    host: SimHost,
    _dir: TempDir,
    version: u64,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = SimHost::start(SimHostConfig::new("h1", dir.path(), None)).unwrap();
        let bench = Self { host, _dir: dir, version: 1 };
        bench.know_cloud();
        bench
    }

    fn know_cloud(&self) {
        for role in Role::ALL {
            self.host.shared.model().fences.of(role).cloud = Some(CLOUD.into());
        }
    }

    fn channel(&self, role: Role) -> Channel {
        Endpoint::try_from(self.host.endpoint(role)).unwrap().connect_lazy()
    }

    fn compute(&self) -> ComputeServiceClient<Channel> {
        ComputeServiceClient::new(self.channel(Role::Compute))
    }

    fn storage(&self) -> StorageServiceClient<Channel> {
        StorageServiceClient::new(self.channel(Role::Storage))
    }

    fn network(&self) -> NetworkServiceClient<Channel> {
        NetworkServiceClient::new(self.channel(Role::Network))
    }

    fn context(&self, role: Role) -> Option<CallContext> {
        Some(CallContext {
            cloud_id: CLOUD.into(),
            session_id: self.host.session(role),
            epoch: 1,
            version: self.version,
            incarnation: String::new(),
        })
    }

    async fn volume(&self, id: &str, may_create: bool) -> Result<String, Status> {
        let spec = VolumeSpec { id: id.into(), size_bytes: 1 << 30, source: None, pool: String::new() };
        let request = EnsureVolumeRequest { context: self.context(Role::Storage), spec: Some(spec), may_create };
        let answer = self.storage().ensure_volume(request).await?;
        Ok(answer.into_inner().volume.unwrap().path)
    }

    async fn apply(&self, vpc: &str, generation: u64, ports: &[PortId]) -> Result<(), Status> {
        let header =
            VpcHeader { context: self.context(Role::Network), vpc_id: vpc.into(), vni: 7, generation, mtu: 1450 };
        let subnet = SubnetSlice { id: "s1".into(), cidr: "10.0.0.0/24".into(), ..SubnetSlice::default() };
        let slice = |(i, id): (usize, &PortId)| PortSlice {
            id: id.to_string(),
            subnet_id: "s1".into(),
            ip: format!("10.0.0.{}", i + 2),
            local: true,
            ..PortSlice::default()
        };
        let part = VpcPart { subnets: vec![subnet], ports: ports.iter().enumerate().map(slice).collect() };
        let messages = [apply_vpc_request::Message::Header(header), apply_vpc_request::Message::Part(part)]
            .map(|m| ApplyVpcRequest { message: Some(m) });
        self.network().apply_vpc(futures::stream::iter(messages)).await.map(|_| ())
    }

    /// A guest with a disk and a port that exist.
    async fn spec(&self) -> InstanceSpec {
        let (volume, port) = (Uuid::new_v4().to_string(), PortId::random());
        let path = self.volume(&volume, true).await.unwrap();
        self.apply(&Uuid::new_v4().to_string(), 1, &[port]).await.unwrap();
        InstanceSpec {
            id: Uuid::new_v4().to_string(),
            name: "web-01".into(),
            incarnation: "one".into(),
            vcpus: 1,
            memory_mib: 128,
            disks: vec![DiskSpec { volume_id: volume, path, format: "qcow2".into(), ..DiskSpec::default() }],
            nics: vec![NicSpec { port_id: port.to_string(), mac: String::new(), device: port.tap_device(), mtu: 1450 }],
            seed: None,
            boot_generation: 1,
            record: String::new(),
        }
    }

    async fn ensure(&self, spec: &InstanceSpec) -> Result<(), Status> {
        let request = EnsureInstanceRequest { context: self.context(Role::Compute), spec: Some(spec.clone()) };
        self.compute().ensure_instance(request).await.map(|_| ())
    }

    async fn stop(&self, id: &str, force: bool) -> Result<(), Status> {
        let request = StopInstanceRequest { context: self.context(Role::Compute), id: id.into(), force };
        self.compute().stop_instance(request).await.map(|_| ())
    }

    fn power(&self, id: &str) -> Option<(PowerState, StateReason)> {
        self.host.snapshot().domains.get(id).map(|d| (d.power, d.reason))
    }
}

fn refused(answer: Result<impl std::fmt::Debug, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), reason(&status))
}

#[tokio::test]
async fn a_guest_lives_and_dies_and_nothing_is_left() {
    let b = Bench::new();
    let spec = b.spec().await;
    b.ensure(&spec).await.unwrap();
    b.ensure(&spec).await.unwrap();
    let domain = b.host.snapshot().domains[&spec.id].clone();
    assert_eq!((domain.starts, domain.reboots, domain.power), (1, 0, PowerState::Running));

    b.ensure(&InstanceSpec { boot_generation: 2, ..spec.clone() }).await.unwrap();
    assert_eq!(b.host.snapshot().domains[&spec.id].reboots, 1);

    b.stop(&spec.id, false).await.unwrap();
    let shut_down = Some((PowerState::Shutoff, StateReason::GuestShutdown));
    until_true("the guest to shut down", PATIENCE, || b.power(&spec.id) == shut_down).await.unwrap();

    let remove = RemoveInstanceRequest { context: b.context(Role::Compute), id: spec.id.clone() };
    b.compute().remove_instance(remove.clone()).await.unwrap();
    b.compute().remove_instance(remove).await.unwrap();
    let remove = RemoveVolumeRequest {
        context: b.context(Role::Storage),
        id: spec.disks[0].volume_id.clone(),
        pool: String::new(),
    };
    b.storage().remove_volume(remove).await.unwrap();
    let vpc = b.host.snapshot().vpcs.keys().next().unwrap().clone();
    let remove = RemoveVpcRequest { context: b.context(Role::Network), vpc_id: vpc, generation: 1 };
    b.network().remove_vpc(remove).await.unwrap();
    assert!(b.host.leftovers().is_empty(), "{}", b.host.leftovers());
    assert_eq!(b.host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_deaf_guest_is_powered_off_by_force_only() {
    let b = Bench::new();
    b.host.set_guest_shutdown(None);
    let spec = b.spec().await;
    b.ensure(&spec).await.unwrap();
    b.stop(&spec.id, false).await.unwrap();
    assert!(b.host.snapshot().domains[&spec.id].shutting_down);
    b.stop(&spec.id, true).await.unwrap();
    assert_eq!(b.power(&spec.id), Some((PowerState::Shutoff, StateReason::Destroyed)));
}

#[tokio::test]
async fn another_spec_is_refused_and_another_incarnation_starts_what_is_off() {
    let b = Bench::new();
    let spec = b.spec().await;
    b.ensure(&spec).await.unwrap();
    let other = InstanceSpec { memory_mib: 256, ..spec.clone() };
    let error = b.ensure(&other).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.message().contains("memory") && error.message().contains("256"), "{}", error.message());

    let next = InstanceSpec { incarnation: "two".into(), ..other };
    assert_eq!(refused(b.ensure(&next).await).0, Code::AlreadyExists);
    b.stop(&spec.id, true).await.unwrap();
    b.ensure(&spec).await.unwrap();
    assert_eq!(b.host.snapshot().running(), 0, "what ended is not started again under the same incarnation");
    b.ensure(&next).await.unwrap();
    assert_eq!(b.host.snapshot().domains[&spec.id].owner.incarnation, "two");
}

#[tokio::test]
async fn old_calls_and_calls_to_others_are_refused() {
    let mut b = Bench::new();
    let spec = b.spec().await;
    b.version = 5;
    b.ensure(&spec).await.unwrap();
    let remove = RemoveInstanceRequest { context: b.context(Role::Compute), id: spec.id.clone() };
    b.compute().remove_instance(remove).await.unwrap();
    b.version = 4;
    let stale = (Code::FailedPrecondition, "STALE_CALL".to_owned());
    assert_eq!(refused(b.ensure(&spec).await), stale, "removed ids are remembered");

    let mut context = b.context(Role::Compute).unwrap();
    context.session_id = "another".into();
    let request = EnsureInstanceRequest { context: Some(context), spec: Some(spec.clone()) };
    assert_eq!(refused(b.compute().ensure_instance(request).await).1, "WRONG_SESSION");

    let mut context = b.context(Role::Compute).unwrap();
    context.cloud_id = "another".into();
    let request = EnsureInstanceRequest { context: Some(context), spec: Some(spec.clone()) };
    assert_eq!(refused(b.compute().ensure_instance(request).await).1, "WRONG_CLOUD");
    assert!(b.host.snapshot().domains.is_empty());
}

#[tokio::test]
async fn a_missing_volume_is_made_only_where_it_may_be() {
    let b = Bench::new();
    let id = Uuid::new_v4().to_string();
    let missing = (Code::NotFound, "DATA_MISSING".to_owned());
    assert_eq!(refused(b.volume(&id, false).await), missing);
    b.volume(&id, true).await.unwrap();
    b.volume(&id, false).await.unwrap();
    assert!(b.host.remove_volume(&id));
    assert_eq!(refused(b.volume(&id, false).await), missing);
}

#[tokio::test]
async fn an_image_is_cached_whole_or_not_at_all() {
    let b = Bench::new();
    let bytes = bytes::Bytes::from(vec![7_u8; 3 << 20]);
    let header = ImageHeader {
        context: b.context(Role::Storage),
        id: Uuid::new_v4().to_string(),
        format: "raw".into(),
        size_bytes: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(&bytes)),
        pool: String::new(),
    };
    let put = |header: &ImageHeader, bytes: bytes::Bytes| {
        let messages = [put_image_request::Message::Header(header.clone()), put_image_request::Message::Data(bytes)]
            .map(|m| PutImageRequest { message: Some(m) });
        let mut storage = b.storage();
        async move { storage.put_image(futures::stream::iter(messages)).await }
    };
    assert_eq!(refused(put(&header, bytes.slice(1..)).await).1, "IMAGE_DIFFERS");
    assert!(b.host.snapshot().images.is_empty());
    let cached = put(&header, bytes.clone()).await.unwrap().into_inner().image.unwrap();
    assert_eq!(cached.virtual_size_bytes, bytes.len() as u64);

    let spec = VolumeSpec {
        id: Uuid::new_v4().to_string(),
        size_bytes: 2 << 20,
        source: Some(Source::ImageId(header.id.clone())),
        pool: String::new(),
    };
    let request = |spec| EnsureVolumeRequest { context: b.context(Role::Storage), spec: Some(spec), may_create: true };
    let small = b.storage().ensure_volume(request(spec.clone())).await;
    assert_eq!(refused(small).0, Code::InvalidArgument);
    b.storage().ensure_volume(request(VolumeSpec { size_bytes: 4 << 20, ..spec })).await.unwrap();
}

#[tokio::test]
async fn slices_are_ordered_and_a_removed_vpc_stays_removed() {
    let b = Bench::new();
    let (vpc, ports) = (Uuid::new_v4().to_string(), [PortId::random(), PortId::random()]);
    b.apply(&vpc, 2, &ports).await.unwrap();
    assert_eq!(refused(b.apply(&vpc, 1, &ports[..1]).await).1, "STALE_CALL");
    b.apply(&vpc, 2, &ports[..1]).await.unwrap();
    assert_eq!(b.host.snapshot().ports(), 2, "an equal generation is a no-op");
    b.apply(&vpc, 3, &ports[1..]).await.unwrap();
    let plugged = b.host.snapshot().vpcs[&vpc].plugged.clone();
    assert_eq!(plugged[&ports[1].to_string()].0, ports[1].tap_device());
    assert_eq!(plugged.len(), 1);

    let remove = RemoveVpcRequest { context: b.context(Role::Network), vpc_id: vpc.clone(), generation: 4 };
    b.network().remove_vpc(remove).await.unwrap();
    assert_eq!(refused(b.apply(&vpc, 4, &ports).await).1, "STALE_CALL");
    assert!(b.host.leftovers().is_empty());
}

#[tokio::test]
async fn what_a_correct_gateway_never_does_is_seen() {
    let b = Bench::new();
    let spec = b.spec().await;
    b.ensure(&spec).await.unwrap();
    let twin = InstanceSpec { id: Uuid::new_v4().to_string(), memory_mib: 1 << 40, ..spec.clone() };
    b.ensure(&twin).await.unwrap();
    let remove = RemoveVolumeRequest {
        context: b.context(Role::Storage),
        id: spec.disks[0].volume_id.clone(),
        pool: String::new(),
    };
    assert_eq!(refused(b.storage().remove_volume(remove).await).1, "VOLUME_IN_USE");
    let vpc = b.host.snapshot().vpcs.keys().next().unwrap().clone();
    b.apply(&vpc, 2, &[]).await.unwrap();
    let seen = b.host.violations().join("\n");
    for part in ["is used by", "overcommitted", "was to be removed", "was unplugged"] {
        assert!(seen.contains(part), "{part} is not in:\n{seen}");
    }
}

#[tokio::test]
async fn a_lost_reply_leaves_the_work_done() {
    let b = Bench::new();
    let spec = b.spec().await;
    b.host.faults().inject(Rule::on(Method::EnsureInstance, Effect::FailAfter(Code::Unavailable)).once());
    assert_eq!(refused(b.ensure(&spec).await).0, Code::Unavailable);
    assert_eq!(b.host.snapshot().running(), 1);
    b.ensure(&spec).await.unwrap();
    assert_eq!((b.host.snapshot().domains[&spec.id].starts, b.host.calls(Method::EnsureInstance)), (1, 2));
}

#[tokio::test]
async fn a_restarted_agent_has_a_new_session_and_the_same_guests() {
    let b = Bench::new();
    let spec = b.spec().await;
    b.ensure(&spec).await.unwrap();
    let mut watch = b.compute().watch_instances(WatchInstancesRequest {}).await.unwrap().into_inner();
    let before = b.host.session(Role::Compute);
    b.host.restart_agent(Role::Compute).unwrap();
    assert_ne!(b.host.session(Role::Compute), before);
    let ended = tokio::time::timeout(PATIENCE, watch.message()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))), "the stream ends with its agent");
    b.know_cloud();
    b.ensure(&spec).await.unwrap();
    assert_eq!(b.host.snapshot().domains[&spec.id].starts, 1);
}

#[tokio::test]
async fn the_power_fails_and_guests_are_off_with_their_disks_intact() {
    let b = Bench::new();
    let spec = b.spec().await;
    b.ensure(&spec).await.unwrap();
    b.host.power_off();
    assert_eq!(refused(b.ensure(&spec).await).0, Code::Unavailable);
    b.host.power_on().unwrap();
    assert_eq!(b.power(&spec.id), Some((PowerState::Shutoff, StateReason::Unspecified)));
    assert_eq!((b.host.snapshot().volumes.len(), b.host.snapshot().ports()), (1, 0));
    b.know_cloud();
    let ports = spec.nics.iter().map(|n| n.port_id.parse().unwrap()).collect::<Vec<_>>();
    b.apply(b.host.snapshot().vpcs.keys().next().unwrap(), 1, &ports).await.unwrap();
    b.ensure(&spec).await.unwrap();
    assert_eq!(b.host.snapshot().domains[&spec.id].starts, 2);
}

#[tokio::test]
async fn a_guest_that_ends_by_itself_is_watched() {
    let b = Bench::new();
    let spec = b.spec().await;
    b.ensure(&spec).await.unwrap();
    let mut watch = b.compute().watch_instances(WatchInstancesRequest {}).await.unwrap().into_inner();
    assert!(b.host.crash_guest(&spec.id));
    let change = tokio::time::timeout(Duration::from_secs(5), watch.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(change.id, spec.id);
    assert_eq!(b.power(&spec.id), Some((PowerState::Crashed, StateReason::Crashed)));
}

#[tokio::test]
async fn a_broken_backend_knows_nothing() {
    let b = Bench::new();
    b.host.set_backend_error(Role::Compute, Some("libvirtd is gone"));
    let spec = b.spec().await;
    assert_eq!(refused(b.ensure(&spec).await), (Code::Unavailable, "BACKEND_DOWN".to_owned()));
    b.host.set_backend_error(Role::Compute, None);
    b.ensure(&spec).await.unwrap();
}
