//! `cloud.v1.PortService`.

use cloud_contracts::v1::{self, port_service_server::PortService};
use cloud_core::{model::Port, ports::Store, services::Services};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, page_of, time},
};

/// Ports over the core's service.
pub struct Ports<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> PortService for Ports<S> {
    async fn get_port(&self, request: Request<v1::GetPortRequest>) -> Result<Response<v1::Port>, Status> {
        let caller = caller(&request)?;
        let found = self.0.vpcs.get_port(&caller, &request.get_ref().id).await;
        found.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn list_ports(
        &self,
        request: Request<v1::ListPortsRequest>,
    ) -> Result<Response<v1::ListPortsResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.0.vpcs.list_ports(&caller, &page_of!(request, live)).await.map_err(error::status)?;
        let ports = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListPortsResponse { ports, next_page_token: page.next }))
    }

    async fn watch_ports(
        &self,
        request: Request<v1::WatchPortsRequest>,
    ) -> Result<Response<BoxStream<v1::WatchPortsResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.0.watch.ports(&caller, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchPortsResponse, port, wire))
    }
}

fn wire(row: Port) -> v1::Port {
    v1::Port {
        id: row.meta.id.to_string(),
        etag: row.meta.etag(),
        project: row.meta.project_name,
        vpc: row.vpc_name,
        subnet: row.subnet_name,
        mac: row.mac.to_string(),
        ip: row.ip.to_string(),
        instance: row.instance_name,
        host: row.host_name,
        security_groups: Vec::new(),
        created_at: time(row.meta.created_at),
        updated_at: time(row.meta.updated_at),
        deleted_at: row.meta.deleted_at.and_then(time),
    }
}
