//! compute-agents.

use async_trait::async_trait;
use cloud_contracts::agent::{self as wire, compute_service_client::ComputeServiceClient};
use cloud_core::{
    model::{AgentRole, Timestamp},
    ports::{BackendError, ComputeBackend, DiskSpec, Guest, GuestPower, GuestReason, GuestSpec, GuestTarget},
};
use cloud_domain::{DiskLimits, HostId, InstanceId, VolumeId};
use cloud_service_kit::{channel::AgentChannel, layers::NoDeadline};
use futures::{StreamExt, stream::BoxStream};
use tonic::Request;

use super::{
    Agents,
    clients::{Found, odd, request},
};

pub(super) fn client(found: &Found) -> ComputeServiceClient<AgentChannel> {
    ComputeServiceClient::new(found.channel.clone())
}

fn guest(state: &wire::InstanceState) -> Result<Guest, BackendError> {
    let owner = state.owner.as_ref().ok_or_else(|| odd("a guest without an owner"))?;
    let power = match state.power() {
        wire::PowerState::Running => GuestPower::Running,
        wire::PowerState::Shutoff => GuestPower::Shutoff,
        wire::PowerState::Paused => GuestPower::Paused,
        wire::PowerState::Crashed => GuestPower::Crashed,
        wire::PowerState::Unspecified => return Err(odd("an unknown power state")),
    };
    let reason = match state.reason() {
        wire::StateReason::Unspecified => GuestReason::Unknown,
        wire::StateReason::GuestShutdown => GuestReason::GuestShutdown,
        wire::StateReason::Destroyed => GuestReason::Destroyed,
        wire::StateReason::Crashed => GuestReason::Crashed,
        wire::StateReason::Failed => GuestReason::Failed,
        wire::StateReason::IoError => GuestReason::IoError,
        wire::StateReason::NeverStarted => GuestReason::NeverStarted,
    };
    let at = |t: &prost_types::Timestamp| Timestamp(t.seconds * 1_000_000 + i64::from(t.nanos) / 1_000);
    Ok(Guest {
        id: owner.resource_id.parse().map_err(|_| odd("a guest whose id is not a UUID"))?,
        incarnation: owner.incarnation.parse().map_err(|_| odd("a guest whose incarnation is not a UUID"))?,
        power,
        reason,
        boot_generation: state.boot_generation,
        started_at: state.started_at.as_ref().map(at),
        volumes: state
            .volume_ids
            .iter()
            .map(|id| id.parse())
            .collect::<Result<_, _>>()
            .map_err(|_| odd("a disk whose id is not a UUID"))?,
        limits: state
            .disks
            .iter()
            .map(|disk| disk.volume_id.parse().map(|id| (id, limits(disk))))
            .collect::<Result<_, _>>()
            .map_err(|_| odd("a disk whose id is not a UUID"))?,
    })
}

fn limits(disk: &wire::DiskState) -> DiskLimits {
    DiskLimits { total_iops_sec: disk.total_iops_sec, total_bytes_sec: disk.total_bytes_sec }
}

fn disk(disk: DiskSpec) -> wire::DiskSpec {
    wire::DiskSpec {
        volume_id: disk.volume.to_string(),
        path: disk.path,
        format: disk.format,
        read_only: false,
        total_iops_sec: disk.limits.total_iops_sec,
        total_bytes_sec: disk.limits.total_bytes_sec,
    }
}

fn spec(target: GuestTarget, spec: GuestSpec) -> wire::InstanceSpec {
    let nic = |n: cloud_core::ports::NicSpec| wire::NicSpec {
        port_id: n.port.to_string(),
        mac: n.mac.to_string(),
        device: n.device,
        mtu: n.mtu,
    };
    wire::InstanceSpec {
        id: target.id.to_string(),
        name: spec.name.clone(),
        incarnation: target.incarnation.to_string(),
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib.into(),
        disks: spec.disks.into_iter().map(disk).collect(),
        nics: spec.nics.into_iter().map(nic).collect(),
        seed: Some(wire::SeedSpec { hostname: spec.name, ssh_keys: spec.ssh_keys, user_data: spec.user_data }),
        boot_generation: spec.boot_generation,
        record: spec.record,
    }
}

#[async_trait]
impl ComputeBackend for Agents {
    async fn ensure(&self, target: GuestTarget, guest_spec: GuestSpec) -> Result<Guest, BackendError> {
        let found = self.find(target.host, AgentRole::Compute)?;
        let context = Some(self.context(&found, target.version, target.incarnation.to_string()));
        let message = wire::EnsureInstanceRequest { context, spec: Some(spec(target, guest_spec)) };
        let answer = self.call(target.host, &found, client(&found).ensure_instance(request(message))).await?;
        guest(&answer.state.ok_or_else(|| odd("no state"))?)
    }

    async fn stop(&self, target: GuestTarget, force: bool) -> Result<Option<Guest>, BackendError> {
        let found = self.find(target.host, AgentRole::Compute)?;
        let context = Some(self.context(&found, target.version, target.incarnation.to_string()));
        let message = wire::StopInstanceRequest { context, id: target.id.to_string(), force };
        let answer = self.call(target.host, &found, client(&found).stop_instance(request(message))).await?;
        answer.state.as_ref().map(guest).transpose()
    }

    async fn remove(&self, target: GuestTarget) -> Result<(), BackendError> {
        let found = self.find(target.host, AgentRole::Compute)?;
        let context = Some(self.context(&found, target.version, target.incarnation.to_string()));
        let message = wire::RemoveInstanceRequest { context, id: target.id.to_string() };
        self.call(target.host, &found, client(&found).remove_instance(request(message))).await?;
        Ok(())
    }

    async fn resize_disk(&self, target: GuestTarget, volume: VolumeId, size_bytes: u64) -> Result<(), BackendError> {
        let found = self.find(target.host, AgentRole::Compute)?;
        let context = Some(self.context(&found, target.version, target.incarnation.to_string()));
        let (id, volume_id) = (target.id.to_string(), volume.to_string());
        let message = wire::ResizeDiskRequest { context, id, volume_id, size_bytes };
        self.call(target.host, &found, client(&found).resize_disk(request(message))).await?;
        Ok(())
    }

    async fn attach_disk(
        &self,
        target: GuestTarget,
        disk_spec: DiskSpec,
        record: String,
    ) -> Result<Guest, BackendError> {
        let found = self.find(target.host, AgentRole::Compute)?;
        let context = Some(self.context(&found, target.version, target.incarnation.to_string()));
        let (id, disk) = (target.id.to_string(), Some(disk(disk_spec)));
        let message = wire::AttachDiskRequest { context, id, disk, record };
        let answer = self.call(target.host, &found, client(&found).attach_disk(request(message))).await?;
        guest(&answer.state.ok_or_else(|| odd("no state"))?)
    }

    async fn detach_disk(
        &self,
        target: GuestTarget,
        volume: VolumeId,
        record: String,
    ) -> Result<Option<Guest>, BackendError> {
        let found = self.find(target.host, AgentRole::Compute)?;
        let context = Some(self.context(&found, target.version, target.incarnation.to_string()));
        let (id, volume_id) = (target.id.to_string(), volume.to_string());
        let message = wire::DetachDiskRequest { context, id, volume_id, record };
        let answer = self.call(target.host, &found, client(&found).detach_disk(request(message))).await?;
        answer.state.as_ref().map(guest).transpose()
    }

    async fn get(&self, host: HostId, id: InstanceId) -> Result<Option<Guest>, BackendError> {
        let found = self.find(host, AgentRole::Compute)?;
        let message = wire::GetInstanceRequest { id: id.to_string(), with_record: false };
        match self.call(host, &found, client(&found).get_instance(request(message))).await {
            Ok(answer) => answer.state.as_ref().map(guest).transpose(),
            Err(BackendError::NotFound(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn record(&self, host: HostId, id: InstanceId) -> Result<Option<String>, BackendError> {
        let found = self.find(host, AgentRole::Compute)?;
        let message = wire::GetInstanceRequest { id: id.to_string(), with_record: true };
        match self.call(host, &found, client(&found).get_instance(request(message))).await {
            Ok(answer) => Ok(Some(answer.record)),
            Err(BackendError::NotFound(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn list(&self, host: HostId) -> Result<Vec<Guest>, BackendError> {
        let found = self.find(host, AgentRole::Compute)?;
        let call = async { client(&found).list_instances(request(wire::ListInstancesRequest {})).await };
        self.call(host, &found, call).await?.instances.iter().map(guest).collect()
    }

    async fn watch(&self, host: HostId) -> Result<BoxStream<'static, InstanceId>, BackendError> {
        let found = self.find(host, AgentRole::Compute)?;
        let mut message = Request::new(wire::WatchInstancesRequest {});
        message.extensions_mut().insert(NoDeadline);
        let stream = client(&found).watch_instances(message).await.map_err(|s| found.error(&s))?.into_inner();
        // The first error ends the stream; whoever watches begins anew.
        let ids = stream.take_while(|m| std::future::ready(m.is_ok()));
        let ids = ids.filter_map(|m| std::future::ready(m.ok().and_then(|m| m.id.parse().ok())));
        Ok(ids.boxed())
    }

    async fn console_log(&self, host: HostId, id: InstanceId, max_bytes: u32) -> Result<Vec<u8>, BackendError> {
        let found = self.find(host, AgentRole::Compute)?;
        let message = wire::GetConsoleLogRequest { id: id.to_string(), max_bytes };
        let answer = self.call(host, &found, client(&found).get_console_log(request(message))).await?;
        Ok(answer.data.into())
    }
}

impl Agents {
    /// The client of a host's compute-agent, for streams that are handed through.
    ///
    /// # Errors
    /// Unreachable where it has not registered.
    pub fn compute(&self, host: HostId) -> Result<ComputeServiceClient<AgentChannel>, BackendError> {
        self.find(host, AgentRole::Compute).map(|found| client(&found))
    }
}
