//! `cloud.v1.InstanceTypeService`.

use cloud_contracts::v1::{self, instance_type_service_server::InstanceTypeService};
use cloud_core::{model::InstanceType, ports::Store, services::Services};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, page_of},
};

/// Instance types over the core's service.
pub struct InstanceTypes<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> InstanceTypeService for InstanceTypes<S> {
    async fn get_instance_type(
        &self,
        request: Request<v1::GetInstanceTypeRequest>,
    ) -> Result<Response<v1::InstanceType>, Status> {
        caller(&request)?;
        let found = self.0.instances.instance_type(&request.get_ref().id).await;
        found.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn list_instance_types(
        &self,
        request: Request<v1::ListInstanceTypesRequest>,
    ) -> Result<Response<v1::ListInstanceTypesResponse>, Status> {
        caller(&request)?;
        let request = request.into_inner();
        let page = self.0.instances.instance_types(&page_of!(request, live)).await.map_err(error::status)?;
        let instance_types = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListInstanceTypesResponse { instance_types, next_page_token: page.next }))
    }

    async fn watch_instance_types(
        &self,
        request: Request<v1::WatchInstanceTypesRequest>,
    ) -> Result<Response<BoxStream<v1::WatchInstanceTypesResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.0.watch.instance_types(&caller, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchInstanceTypesResponse, instance_type, wire))
    }
}

fn wire(row: InstanceType) -> v1::InstanceType {
    v1::InstanceType {
        name: row.meta.name,
        vcpus: row.vcpus,
        memory_mib: row.memory_mib,
        disk_gib: row.disk.get(),
        is_default: row.is_default,
    }
}
