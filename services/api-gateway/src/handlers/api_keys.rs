//! `cloud.v1.ApiKeyService`.

use std::time::Duration;

use cloud_contracts::v1::{self, api_key::Role as Wire, api_key_service_server::ApiKeyService};
use cloud_core::{
    CoreError,
    model::{ApiKey, Role},
    ports::Store,
    services::{NewApiKey, Services},
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, moment, page_of, time},
};

/// API keys over the core's service.
pub struct ApiKeys<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> ApiKeyService for ApiKeys<S> {
    async fn create_api_key(
        &self,
        request: Request<v1::CreateApiKeyRequest>,
    ) -> Result<Response<v1::CreateApiKeyResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let new = new(request).map_err(error::status)?;
        let (row, secret) = self.0.api_keys.create(&caller, new).await.map_err(error::status)?;
        Ok(Response::new(v1::CreateApiKeyResponse { api_key: Some(wire(row)), secret }))
    }

    async fn get_api_key(&self, request: Request<v1::GetApiKeyRequest>) -> Result<Response<v1::ApiKey>, Status> {
        let caller = caller(&request)?;
        let found = self.0.api_keys.get(&caller, &request.get_ref().id).await;
        found.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn list_api_keys(
        &self,
        request: Request<v1::ListApiKeysRequest>,
    ) -> Result<Response<v1::ListApiKeysResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.0.api_keys.list(&caller, &page_of!(request, live)).await.map_err(error::status)?;
        let api_keys = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListApiKeysResponse { api_keys, next_page_token: page.next }))
    }

    async fn watch_api_keys(
        &self,
        request: Request<v1::WatchApiKeysRequest>,
    ) -> Result<Response<BoxStream<v1::WatchApiKeysResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.0.watch.api_keys(&caller, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchApiKeysResponse, api_key, wire))
    }

    async fn revoke_api_key(&self, request: Request<v1::RevokeApiKeyRequest>) -> Result<Response<v1::ApiKey>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let revoked = self.0.api_keys.revoke(&caller, &request.id, &request.etag).await;
        revoked.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn rotate_api_key(
        &self,
        request: Request<v1::RotateApiKeyRequest>,
    ) -> Result<Response<v1::RotateApiKeyResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let overlap = Duration::from_secs(request.overlap_seconds.into());
        let rotated = self.0.api_keys.rotate(&caller, &request.id, &request.etag, overlap).await;
        let (row, secret) = rotated.map_err(error::status)?;
        Ok(Response::new(v1::RotateApiKeyResponse { api_key: Some(wire(row)), secret }))
    }
}

fn new(request: v1::CreateApiKeyRequest) -> Result<NewApiKey, CoreError> {
    let role = match Wire::try_from(request.role) {
        Ok(Wire::Viewer) => Role::Viewer,
        Ok(Wire::Member) => Role::Member,
        Ok(Wire::Admin) => Role::Admin,
        Ok(Wire::Operator) => Role::Operator,
        Ok(Wire::Unspecified) | Err(_) => {
            let message = format!("{} is no role: use VIEWER, MEMBER, ADMIN or OPERATOR", request.role);
            return Err(CoreError::invalid("role", message));
        }
    };
    let expires_at = request.expires_at.map(|at| moment(at, "expires_at")).transpose()?;
    Ok(NewApiKey { name: request.name, role, expires_at })
}

fn wire(row: ApiKey) -> v1::ApiKey {
    let role = match row.role {
        Role::Viewer => Wire::Viewer,
        Role::Member => Wire::Member,
        Role::Admin => Wire::Admin,
        Role::Operator => Wire::Operator,
    };
    v1::ApiKey {
        id: row.meta.id.to_string(),
        etag: row.meta.etag(),
        name: row.meta.name,
        project: row.meta.project_name,
        prefix: row.prefix,
        role: role.into(),
        expires_at: row.expires_at.and_then(time),
        revoked_at: row.revoked_at.and_then(time),
        created_at: time(row.meta.created_at),
    }
}
