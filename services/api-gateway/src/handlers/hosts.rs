//! `cloud.v1.HostService`: hosts as operators see them.

use std::time::Duration;

use cloud_contracts::v1::{self, host_service_server::HostService};
use cloud_core::{
    CoreError,
    model::{JoinToken, Orphan},
    ports::Store,
    services::{Adoption, AgentHealth, HostChange, HostState, HostView, NewJoinToken, Services},
};
use cloud_domain::join;
use cloud_service_kit::tls::fingerprint;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, count, page_of, time},
};

/// Hosts over the core's service.
pub struct Hosts<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> HostService for Hosts<S> {
    async fn get_host(&self, request: Request<v1::GetHostRequest>) -> Result<Response<v1::Host>, Status> {
        let caller = caller(&request)?;
        let found = self.0.hosts.get(&caller, &request.get_ref().id).await;
        found.map(|view| Response::new(wire(view))).map_err(error::status)
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.0.hosts.list(&caller, &page_of!(request, live)).await.map_err(error::status)?;
        let hosts = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListHostsResponse { hosts, next_page_token: page.next }))
    }

    async fn watch_hosts(
        &self,
        request: Request<v1::WatchHostsRequest>,
    ) -> Result<Response<BoxStream<v1::WatchHostsResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.0.watch.hosts(&caller, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchHostsResponse, host, wire))
    }

    async fn cordon_host(&self, request: Request<v1::CordonHostRequest>) -> Result<Response<v1::Host>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let changed = self.0.hosts.cordon(&caller, &request.id, &request.etag).await;
        changed.map(|view| Response::new(wire(view))).map_err(error::status)
    }

    async fn uncordon_host(&self, request: Request<v1::UncordonHostRequest>) -> Result<Response<v1::Host>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let changed = self.0.hosts.uncordon(&caller, &request.id, &request.etag).await;
        changed.map(|view| Response::new(wire(view))).map_err(error::status)
    }

    async fn drain_host(&self, request: Request<v1::DrainHostRequest>) -> Result<Response<v1::Host>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let changed = self.0.hosts.drain(&caller, &request.id, &request.etag).await;
        changed.map(|view| Response::new(wire(view))).map_err(error::status)
    }

    async fn fence_host(&self, request: Request<v1::FenceHostRequest>) -> Result<Response<v1::Host>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let changed = self.0.hosts.fence(&caller, &request.id, &request.etag).await;
        changed.map(|view| Response::new(wire(view))).map_err(error::status)
    }

    async fn remove_host(&self, request: Request<v1::RemoveHostRequest>) -> Result<Response<v1::Host>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let changed = self.0.hosts.remove(&caller, &request.id, &request.etag).await;
        changed.map(|view| Response::new(wire(view))).map_err(error::status)
    }

    async fn update_host(&self, request: Request<v1::UpdateHostRequest>) -> Result<Response<v1::Host>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let change = change(&request.host.unwrap_or_default(), request.update_mask.unwrap_or_default())
            .map_err(error::status)?;
        let updated = self.0.hosts.update(&caller, &request.id, &request.etag, change).await;
        updated.map(|view| Response::new(wire(view))).map_err(error::status)
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::JoinToken>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let ttl = Duration::from_secs(request.ttl_seconds.into());
        let new = NewJoinToken { ttl, uses: request.uses, host: request.host };
        let (row, token) = self.0.joins.create(&caller, new).await.map_err(error::status)?;
        Ok(Response::new(v1::JoinToken { token, ..join_token(row) }))
    }

    async fn list_join_tokens(
        &self,
        request: Request<v1::ListJoinTokensRequest>,
    ) -> Result<Response<v1::ListJoinTokensResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.0.joins.list(&caller, &page_of!(request, live)).await.map_err(error::status)?;
        let join_tokens = page.rows.into_iter().map(join_token).collect();
        Ok(Response::new(v1::ListJoinTokensResponse { join_tokens, next_page_token: page.next }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<v1::RevokeJoinTokenRequest>,
    ) -> Result<Response<v1::JoinToken>, Status> {
        let caller = caller(&request)?;
        let revoked = self.0.joins.revoke(&caller, &request.get_ref().id).await;
        revoked.map(|row| Response::new(join_token(row))).map_err(error::status)
    }

    async fn list_authorities(
        &self,
        request: Request<v1::ListAuthoritiesRequest>,
    ) -> Result<Response<v1::ListAuthoritiesResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let size = usize::try_from(request.page_size).unwrap_or(0);
        let page = self.0.joins.authorities(&caller, size, &request.page_token).map_err(error::status)?;
        let authorities = page.rows.into_iter().map(|known| v1::Authority {
            id: known.name,
            fingerprint: join::hex(&known.fingerprint),
            active_at: time(known.active_at),
            expires_at: time(known.expires_at),
            issues: known.issues,
        });
        Ok(Response::new(v1::ListAuthoritiesResponse {
            authorities: authorities.collect(),
            next_page_token: page.next,
        }))
    }

    async fn rotate_authority(
        &self,
        request: Request<v1::RotateAuthorityRequest>,
    ) -> Result<Response<v1::Authority>, Status> {
        let caller = caller(&request)?;
        let row = self.0.joins.rotate_authority(&caller).await.map_err(error::status)?;
        Ok(Response::new(v1::Authority {
            fingerprint: fingerprint_of(&row.certificate),
            id: row.meta.name,
            active_at: time(row.active_at),
            expires_at: time(row.expires_at),
            issues: true,
        }))
    }

    async fn list_orphans(
        &self,
        request: Request<v1::ListOrphansRequest>,
    ) -> Result<Response<v1::ListOrphansResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let asked = page_of!(request, live);
        let page = self.0.orphans.list(&caller, &request.id, &asked).await.map_err(error::status)?;
        let orphans = page.rows.into_iter().map(orphan).collect();
        Ok(Response::new(v1::ListOrphansResponse { orphans, next_page_token: page.next }))
    }

    async fn adopt_orphan(&self, request: Request<v1::AdoptOrphanRequest>) -> Result<Response<v1::Orphan>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let adoption =
            Adoption { host: request.id, orphan: request.orphan, project: request.project, name: request.name };
        let adopted = self.0.orphans.adopt(&caller, adoption).await;
        adopted.map(|row| Response::new(orphan(row))).map_err(error::status)
    }

    async fn remove_orphan(&self, request: Request<v1::RemoveOrphanRequest>) -> Result<Response<v1::Orphan>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let removing = self.0.orphans.remove(&caller, &request.id, &request.orphan).await;
        removing.map(|row| Response::new(orphan(row))).map_err(error::status)
    }
}

/// What a mask names of a host's new values.
fn change(host: &v1::Host, mask: prost_types::FieldMask) -> Result<HostChange, CoreError> {
    const KNOWN: &str =
        "labels, vcpu_overcommit_percent, memory_overcommit_percent, vcpus_reserved, memory_reserved_mib";
    let mut change = HostChange::default();
    if mask.paths.is_empty() {
        return Err(CoreError::invalid("update_mask", format!("must name what to change: {KNOWN}")));
    }
    for path in mask.paths {
        match path.as_str() {
            "labels" => change.labels = Some(host.labels.clone()),
            "vcpu_overcommit_percent" => change.vcpu_percent = Some(host.vcpu_overcommit_percent),
            "memory_overcommit_percent" => change.memory_percent = Some(host.memory_overcommit_percent),
            "vcpus_reserved" => change.vcpus_reserved = Some(host.vcpus_reserved),
            "memory_reserved_mib" => change.memory_reserved_mib = Some(host.memory_reserved_mib),
            other => {
                let other: String = other.chars().take(80).collect();
                return Err(CoreError::invalid("update_mask", format!("`{other}` cannot be changed: {KNOWN}")));
            }
        }
    }
    Ok(change)
}

fn fingerprint_of(pem: &str) -> String {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_or_else(|_| String::new(), |der| join::hex(&fingerprint(&der)))
}

/// Without its text, which is not kept.
fn join_token(row: JoinToken) -> v1::JoinToken {
    v1::JoinToken {
        token: String::new(),
        expires_at: time(row.expires_at),
        id: row.meta.id.to_string(),
        uses: row.uses,
        used: row.used,
        host: row.host_name,
        created_at: time(row.meta.created_at),
        revoked_at: row.revoked_at.and_then(time),
    }
}

fn orphan(row: Orphan) -> v1::Orphan {
    v1::Orphan {
        id: row.object.to_string(),
        kind: row.kind.kind().as_str().to_owned(),
        host: row.host_name,
        detail: row.detail,
        size_bytes: row.size_bytes,
        found_at: time(row.meta.created_at),
        removing: row.removing,
        name: row.kept.map(|kept| kept.meta.name).unwrap_or_default(),
    }
}

fn agent(health: AgentHealth) -> v1::Agent {
    v1::Agent {
        role: health.role.as_str().to_owned(),
        reachable: health.reachable,
        version: health.version,
        last_heartbeat_at: health.last_heartbeat_at.and_then(time),
        backend_error: health.backend_error,
    }
}

fn wire(view: HostView) -> v1::Host {
    let (meta, capacity) = (view.row.meta, view.row.capacity);
    let state = match view.state {
        HostState::Up => v1::host::State::Up,
        HostState::Unreachable => v1::host::State::Unreachable,
        HostState::Cordoned => v1::host::State::Cordoned,
        HostState::Draining => v1::host::State::Draining,
        HostState::Fenced => v1::host::State::Fenced,
        HostState::Removed => v1::host::State::Removed,
    };
    let pools = capacity.pools.into_iter().map(|pool| v1::HostPool {
        name: pool.name,
        backend: pool.backend,
        total_bytes: pool.total_bytes,
        free_bytes: pool.free_bytes,
    });
    v1::Host {
        id: meta.id.to_string(),
        etag: meta.etag(),
        name: meta.name,
        state: state.into(),
        state_reason: view.reason,
        agents: view.agents.into_iter().map(agent).collect(),
        vcpus: capacity.vcpus,
        vcpus_used: count(view.vcpus_used),
        memory_mib: capacity.memory_mib,
        memory_used_mib: view.memory_used_mib,
        pools: pools.collect(),
        accelerator: capacity.accelerator,
        hypervisor: capacity.hypervisor,
        architecture: capacity.architecture,
        datapath: capacity.datapath,
        tunnel_address: capacity.tunnel_address,
        instances: count(view.instances),
        labels: meta.labels,
        created_at: time(meta.created_at),
        updated_at: time(meta.updated_at),
        deleted_at: meta.deleted_at.and_then(time),
        inventoried_at: view.inventoried_at.and_then(time),
        orphans: count(view.orphans),
        vcpu_overcommit_percent: view.limits.vcpu_percent.unwrap_or_default(),
        memory_overcommit_percent: view.limits.memory_percent.unwrap_or_default(),
        vcpus_reserved: view.limits.vcpus_reserved.unwrap_or_default(),
        memory_reserved_mib: view.limits.memory_reserved_mib.unwrap_or_default(),
        vcpus_promisable: view.promisable.0,
        memory_promisable_mib: view.promisable.1,
        answers: view.answers,
        load1_hundredths: view.load[0],
        load5_hundredths: view.load[1],
        load15_hundredths: view.load[2],
        switch_version: capacity.switch_version,
    }
}
