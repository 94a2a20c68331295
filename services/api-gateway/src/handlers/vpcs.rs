//! `cloud.v1.VpcService`.

use cloud_contracts::v1::{self, vpc_service_server::VpcService};
use cloud_core::{
    model::Vpc,
    ports::Store,
    services::{NewVpc, Services},
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, page_of, time},
};

/// VPCs over the core's service.
pub struct Vpcs<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> VpcService for Vpcs<S> {
    async fn create_vpc(&self, request: Request<v1::CreateVpcRequest>) -> Result<Response<v1::Vpc>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let new = NewVpc { name: request.name, cidr: request.cidr, labels: request.labels };
        let made = self.0.vpcs.create(&caller, new).await;
        made.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn get_vpc(&self, request: Request<v1::GetVpcRequest>) -> Result<Response<v1::Vpc>, Status> {
        let caller = caller(&request)?;
        let found = self.0.vpcs.get(&caller, &request.get_ref().id).await;
        found.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn list_vpcs(&self, request: Request<v1::ListVpcsRequest>) -> Result<Response<v1::ListVpcsResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.0.vpcs.list(&caller, &page_of!(request)).await.map_err(error::status)?;
        let vpcs = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListVpcsResponse { vpcs, next_page_token: page.next }))
    }

    async fn watch_vpcs(
        &self,
        request: Request<v1::WatchVpcsRequest>,
    ) -> Result<Response<BoxStream<v1::WatchVpcsResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.0.watch.vpcs(&caller, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchVpcsResponse, vpc, wire))
    }

    async fn delete_vpc(&self, request: Request<v1::DeleteVpcRequest>) -> Result<Response<v1::Vpc>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let deleted = self.0.vpcs.delete(&caller, &request.id, &request.etag).await;
        deleted.map(|row| Response::new(wire(row))).map_err(error::status)
    }
}

fn wire(row: Vpc) -> v1::Vpc {
    v1::Vpc {
        id: row.meta.id.to_string(),
        etag: row.meta.etag(),
        name: row.meta.name,
        project: row.meta.project_name,
        cidr: row.cidr.to_string(),
        vni: row.vni.get(),
        is_default: row.is_default,
        labels: row.meta.labels,
        created_at: time(row.meta.created_at),
        updated_at: time(row.meta.updated_at),
        deleted_at: row.meta.deleted_at.and_then(time),
    }
}
