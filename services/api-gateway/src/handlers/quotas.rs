//! `cloud.v1.QuotaService`.

use cloud_contracts::v1::{self, quota_service_server::QuotaService};
use cloud_core::{
    model::Amounts,
    ports::Store,
    services::{QuotaView, Services},
};
use tonic::{Request, Response, Status};

use super::{error, wire::caller};

/// Quotas over the core's service.
pub struct Quotas<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> QuotaService for Quotas<S> {
    async fn get_quota(&self, request: Request<v1::GetQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        let caller = caller(&request)?;
        let found = self.0.quotas.get(&caller, &request.get_ref().project).await;
        found.map(|view| Response::new(wire(view))).map_err(error::status)
    }

    async fn update_quota(&self, request: Request<v1::UpdateQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let updated = self.0.quotas.update(&caller, &request.project, request.limits).await;
        updated.map(|view| Response::new(wire(view))).map_err(error::status)
    }
}

fn wire(view: QuotaView) -> v1::Quota {
    let named = |amounts: Amounts| amounts.into_iter().map(|(of, amount)| (of.as_str().to_owned(), amount)).collect();
    v1::Quota { project: view.project, limits: named(view.limits), used: named(view.used) }
}
