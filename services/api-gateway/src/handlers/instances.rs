//! `cloud.v1.InstanceService`.

use std::sync::Arc;

use cloud_contracts::v1::{self, instance_service_server::InstanceService};
use cloud_core::{
    CoreError,
    model::{Desired, DiskChange, Instance, RestartPolicy},
    ports::Store,
    services::{Explanation, Launch, Placement, Services},
};
use cloud_domain::InstanceStatus;
use cloud_rest::Repeat;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{
    Consoles, console, error,
    watch::{answer, watch_request},
    wire::{caller, instance_status, page_of, time},
};

/// Instances over the core's service.
pub struct Instances<S> {
    services: Services<S>,
    consoles: Arc<dyn Consoles>,
    /// What console URLs begin with, without a slash at its end.
    public_url: String,
}

impl<S: Store> Instances<S> {
    /// The handler over the services, and the consoles of the hosts.
    pub fn new(services: Services<S>, consoles: Arc<dyn Consoles>, public_url: &str) -> Self {
        Self { services, consoles, public_url: public_url.trim_end_matches('/').to_owned() }
    }

    fn wire(&self, row: Instance) -> v1::Instance {
        let reachable = self.services.instances.host_reachable(&row);
        wire(row, reachable)
    }

    fn answer(&self, row: Instance) -> Response<v1::Instance> {
        Response::new(self.wire(row))
    }
}

#[tonic::async_trait]
impl<S: Store> InstanceService for Instances<S> {
    async fn launch_instance(
        &self,
        request: Request<v1::LaunchInstanceRequest>,
    ) -> Result<Response<v1::Instance>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let policy = restart_policy(request.restart_policy)?;
        let launch = Launch {
            name: request.name,
            image: request.image,
            instance_type: request.instance_type,
            vpc: request.vpc,
            subnet: request.subnet,
            volumes: request.volumes.into_iter().map(|v| v.volume).collect(),
            labels: request.labels,
            ssh_keys: request.ssh_keys,
            user_data: request.user_data,
            root_disk_gib: request.root_disk_gib,
            restart_policy: policy,
            placement: placement(request.placement.unwrap_or_default()),
        };
        self.services.instances.launch(&caller, launch).await.map(|row| self.answer(row)).map_err(error::status)
    }

    async fn get_instance(&self, request: Request<v1::GetInstanceRequest>) -> Result<Response<v1::Instance>, Status> {
        let caller = caller(&request)?;
        let found = self.services.instances.get(&caller, &request.get_ref().id).await;
        found.map(|row| self.answer(row)).map_err(error::status)
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.services.instances.list(&caller, &page_of!(request)).await.map_err(error::status)?;
        let instances = page.rows.into_iter().map(|row| self.wire(row)).collect();
        Ok(Response::new(v1::ListInstancesResponse { instances, next_page_token: page.next }))
    }

    async fn watch_instances(
        &self,
        request: Request<v1::WatchInstancesRequest>,
    ) -> Result<Response<BoxStream<v1::WatchInstancesResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.services.watch.instances(&caller, &watch).await.map_err(error::status)?;
        let instances = self.services.instances.clone();
        Ok(answer!(watch, WatchInstancesResponse, instance, move |row| {
            let reachable = instances.host_reachable(&row);
            wire(row, reachable)
        }))
    }

    async fn start_instance(
        &self,
        request: Request<v1::StartInstanceRequest>,
    ) -> Result<Response<v1::Instance>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let started = self.services.instances.start(&caller, &request.id, &request.etag).await;
        started.map(|row| self.answer(row)).map_err(error::status)
    }

    async fn stop_instance(&self, request: Request<v1::StopInstanceRequest>) -> Result<Response<v1::Instance>, Status> {
        let caller = caller(&request)?;
        let stopped = match request.extensions().get::<Repeat>() {
            Some(Repeat(id)) => self.services.instances.stop_again(&caller, id).await,
            None => {
                let request = request.into_inner();
                self.services.instances.stop(&caller, &request.id, &request.etag).await
            }
        };
        stopped.map(|row| self.answer(row)).map_err(error::status)
    }

    async fn reboot_instance(
        &self,
        request: Request<v1::RebootInstanceRequest>,
    ) -> Result<Response<v1::Instance>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let rebooted = self.services.instances.reboot(&caller, &request.id, &request.etag).await;
        rebooted.map(|row| self.answer(row)).map_err(error::status)
    }

    async fn delete_instance(
        &self,
        request: Request<v1::DeleteInstanceRequest>,
    ) -> Result<Response<v1::Instance>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let deleted = self.services.instances.delete(&caller, &request.id, &request.etag).await;
        deleted.map(|row| self.answer(row)).map_err(error::status)
    }

    async fn attach_volume(&self, request: Request<v1::AttachVolumeRequest>) -> Result<Response<v1::Instance>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let attached =
            self.services.instances.attach_volume(&caller, &request.id, &request.etag, &request.volume).await;
        attached.map(|row| self.answer(row)).map_err(error::status)
    }

    async fn detach_volume(&self, request: Request<v1::DetachVolumeRequest>) -> Result<Response<v1::Instance>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let detached =
            self.services.instances.detach_volume(&caller, &request.id, &request.etag, &request.volume).await;
        detached.map(|row| self.answer(row)).map_err(error::status)
    }

    async fn get_console_url(
        &self,
        request: Request<v1::GetConsoleUrlRequest>,
    ) -> Result<Response<v1::GetConsoleUrlResponse>, Status> {
        let caller = caller(&request)?;
        let ticket = self.services.console.issue(&caller, &request.get_ref().id).await.map_err(error::status)?;
        let url = format!("{}/console/{}", self.public_url, ticket.token);
        Ok(Response::new(v1::GetConsoleUrlResponse { url, expires_at: time(ticket.expires_at) }))
    }

    async fn get_console_log(
        &self,
        request: Request<v1::GetConsoleLogRequest>,
    ) -> Result<Response<v1::GetConsoleLogResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let row = self.services.console.logged(&caller, &request.id).await.map_err(error::status)?;
        let log = self.consoles.log(row.host, row.id(), request.max_bytes).await.map_err(error::backend)?;
        let log = String::from_utf8_lossy(&log).into_owned();
        Ok(Response::new(v1::GetConsoleLogResponse { log }))
    }

    async fn explain_instance(
        &self,
        request: Request<v1::ExplainInstanceRequest>,
    ) -> Result<Response<v1::ExplainInstanceResponse>, Status> {
        let caller = caller(&request)?;
        let explained = self.services.instances.explain(&caller, &request.get_ref().id).await;
        explained.map(|e| Response::new(explanation(e))).map_err(error::status)
    }

    async fn stream_console(
        &self,
        request: Request<Streaming<v1::StreamConsoleRequest>>,
    ) -> Result<Response<BoxStream<v1::StreamConsoleResponse>>, Status> {
        let caller = caller(&request)?;
        console::stream(&self.services, self.consoles.as_ref(), &caller, request.into_inner()).await
    }
}

fn placement(wanted: v1::Placement) -> Placement {
    Placement {
        host_labels: wanted.host_labels,
        group: wanted.anti_affinity_group,
        group_required: wanted.anti_affinity_required,
        host: wanted.host,
        accelerator: wanted.accelerator,
    }
}

fn explanation(explained: Explanation) -> v1::ExplainInstanceResponse {
    let placed = explained.row.placed.unwrap_or_default();
    let could = placed.candidates.into_iter().map(|candidate| v1::PlacementCandidate {
        host: candidate.host,
        chosen: candidate.chosen,
        score: candidate.score,
        refused: String::new(),
    });
    let could_not = placed.refused.into_iter().map(|(host, refused)| v1::PlacementCandidate {
        host,
        refused,
        ..v1::PlacementCandidate::default()
    });
    v1::ExplainInstanceResponse {
        placement: explained.placement,
        parts: explained.parts,
        last_error: explained.last_error,
        next_attempt_at: explained.next_attempt_at.and_then(time),
        attempts: explained.attempts,
        candidates: could.chain(could_not).collect(),
    }
}

#[allow(clippy::result_large_err)] // tonic's own convention
fn restart_policy(number: i32) -> Result<RestartPolicy, Status> {
    use v1::instance::RestartPolicy as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Unspecified | Wire::Never) => Ok(RestartPolicy::Never),
        Ok(Wire::OnFailure) => Ok(RestartPolicy::OnFailure),
        Ok(Wire::Always) => Ok(RestartPolicy::Always),
        Err(_) => {
            let problem = format!("{number} is no policy: NEVER (1), ON_FAILURE (2) or ALWAYS (3)");
            Err(error::status(CoreError::invalid("restart_policy", problem)))
        }
    }
}

/// What an instance shall be, as a status.
fn desired(row: &Instance) -> v1::instance::Status {
    match row.desired {
        Desired::Running => v1::instance::Status::Running,
        Desired::Stopped => v1::instance::Status::Stopped,
        Desired::Deleted => v1::instance::Status::Deleted,
        // It could not be provisioned: it shall stay what it is.
        Desired::Cleaned => v1::instance::Status::Error,
    }
}

fn wire(row: Instance, host_reachable: bool) -> v1::Instance {
    let running = matches!(row.status, InstanceStatus::Running | InstanceStatus::Stopping | InstanceStatus::Paused);
    let etag = row.meta.etag();
    let ports = row.nics.iter().map(|nic| v1::InstancePort {
        id: nic.port.to_string(),
        vpc: nic.vpc_name.clone(),
        subnet: nic.subnet_name.clone(),
        mac: nic.mac.to_string(),
        ip: nic.ip.to_string(),
        security_groups: Vec::new(),
        floating_ip: String::new(),
    });
    let volumes = row.disks.iter().map(|disk| v1::InstanceVolume {
        id: disk.volume.to_string(),
        name: disk.name.clone(),
        root: disk.root,
        size_gib: disk.size.get(),
        state: match disk.change {
            None | Some(DiskChange::Limiting) => v1::instance_volume::State::Attached,
            Some(DiskChange::Attaching) => v1::instance_volume::State::Attaching,
            Some(DiskChange::Detaching) => v1::instance_volume::State::Detaching,
        }
        .into(),
    });
    v1::Instance {
        id: row.meta.id.to_string(),
        project: row.meta.project_name.clone(),
        status: instance_status(row.status).into(),
        desired_status: desired(&row).into(),
        ports: ports.collect(),
        volumes: volumes.collect(),
        console_available: running && host_reachable,
        started_at: row.started_at.and_then(time),
        created_at: time(row.meta.created_at),
        updated_at: time(row.meta.updated_at),
        deleted_at: row.meta.deleted_at.and_then(time),
        etag,
        name: row.meta.name,
        image: row.image_name,
        instance_type: row.instance_type,
        vcpus: row.vcpus,
        memory_mib: row.memory_mib,
        status_reason: row.status_reason,
        host: row.host_name,
        host_reachable,
        published_ports: Vec::new(),
        ssh_keys: row.ssh_keys,
        user_data: row.user_data,
        labels: row.meta.labels,
        anti_affinity_group: row.anti_affinity_group,
        restart_policy: match row.restart_policy {
            RestartPolicy::Never => v1::instance::RestartPolicy::Never,
            RestartPolicy::OnFailure => v1::instance::RestartPolicy::OnFailure,
            RestartPolicy::Always => v1::instance::RestartPolicy::Always,
        }
        .into(),
    }
}
