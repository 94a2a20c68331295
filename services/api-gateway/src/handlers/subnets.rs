//! `cloud.v1.SubnetService`.

use cloud_contracts::v1::{self, subnet_service_server::SubnetService};
use cloud_core::{
    model::Subnet,
    ports::Store,
    services::{NewSubnet, Services},
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, page_of, time},
};

/// Subnets over the core's service.
pub struct Subnets<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> SubnetService for Subnets<S> {
    async fn create_subnet(&self, request: Request<v1::CreateSubnetRequest>) -> Result<Response<v1::Subnet>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let new = NewSubnet {
            vpc: request.vpc,
            name: request.name,
            cidr: request.cidr,
            dns_servers: request.dns_servers,
            labels: request.labels,
        };
        let made = self.0.vpcs.create_subnet(&caller, new).await;
        made.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn get_subnet(&self, request: Request<v1::GetSubnetRequest>) -> Result<Response<v1::Subnet>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let found = self.0.vpcs.get_subnet(&caller, &request.vpc, &request.id).await;
        found.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn list_subnets(
        &self,
        request: Request<v1::ListSubnetsRequest>,
    ) -> Result<Response<v1::ListSubnetsResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let vpc = request.vpc.clone();
        let page = self.0.vpcs.list_subnets(&caller, &vpc, &page_of!(request)).await.map_err(error::status)?;
        let subnets = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListSubnetsResponse { subnets, next_page_token: page.next }))
    }

    async fn watch_subnets(
        &self,
        request: Request<v1::WatchSubnetsRequest>,
    ) -> Result<Response<BoxStream<v1::WatchSubnetsResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.0.watch.subnets(&caller, &request.get_ref().vpc, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchSubnetsResponse, subnet, wire))
    }

    async fn delete_subnet(&self, request: Request<v1::DeleteSubnetRequest>) -> Result<Response<v1::Subnet>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let deleted = self.0.vpcs.delete_subnet(&caller, &request.vpc, &request.id, &request.etag).await;
        deleted.map(|row| Response::new(wire(row))).map_err(error::status)
    }
}

fn wire(row: Subnet) -> v1::Subnet {
    v1::Subnet {
        id: row.meta.id.to_string(),
        etag: row.meta.etag(),
        name: row.meta.name,
        project: row.meta.project_name,
        vpc: row.vpc_name,
        cidr: row.cidr.to_string(),
        gateway: row.cidr.gateway().to_string(),
        dns_servers: row.dns_servers.iter().map(ToString::to_string).collect(),
        labels: row.meta.labels,
        created_at: time(row.meta.created_at),
        updated_at: time(row.meta.updated_at),
        deleted_at: row.meta.deleted_at.and_then(time),
    }
}
