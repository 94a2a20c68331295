//! Who calls: an API key to a [`Caller`] in the request's extensions, for both protocols.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use cloud_core::{model::Caller, ports::Store, services::IdentityService};
use cloud_service_kit::{
    ServiceError,
    context::RequestContext,
    server::{Connection, Peer},
    service::is_grpc,
};
use http::{Extensions, HeaderMap, header};
use tonic::Status;

use super::rest_response;
use crate::handlers;

/// The project that a call is about, where it is not the key's own.
const PROJECT: &str = "x-project";

/// What authentication needs.
#[derive(Clone)]
pub(super) struct Auth<S>(pub(super) IdentityService<S>);

/// Lets a request through with its caller, or answers 401.
pub(super) async fn authenticate<S: Store>(State(auth): State<Auth<S>>, mut request: Request, next: Next) -> Response {
    let grpc = is_grpc(request.headers());
    match caller(&auth.0, request.headers(), request.extensions()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(status) if grpc => status.into_http(),
        Err(status) => rest_response(&status),
    }
}

/// The caller of a request.
pub(super) async fn caller<S: Store>(
    identity: &IdentityService<S>,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Caller, Status> {
    let secret = bearer(headers)?;
    let project = match headers.get(PROJECT) {
        None => "",
        Some(value) => value.to_str().map_err(|_| Status::from(ServiceError::invalid(PROJECT, "is not ASCII")))?,
    };
    let found = identity.authenticate(secret, project).await;
    let mut caller = found.map_err(handlers::status)?;
    caller.source = source(extensions);
    if let Some(context) = extensions.get::<RequestContext>() {
        context.request_id.as_str().clone_into(&mut caller.request_id);
    }
    Ok(caller)
}

#[allow(clippy::result_large_err)] // tonic's own convention
fn bearer(headers: &HeaderMap) -> Result<&str, Status> {
    let missing = "this needs an API key: send the header `Authorization: Bearer <key>`";
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(ServiceError::unauthenticated(missing).into());
    };
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    match parts {
        // RFC 9110: the scheme's name is case-insensitive.
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty() => Ok(key.trim()),
        _ => {
            let message = "the header Authorization is not of the form `Bearer <key>`";
            Err(ServiceError::unauthenticated(message).into())
        }
    }
}

/// Where a request comes from, for the audit log.
fn source(extensions: &Extensions) -> String {
    match extensions.get::<Arc<Connection>>().map(|c| &c.peer) {
        Some(Peer::Tcp(Some(address))) => address.ip().to_string(),
        Some(Peer::Unix { uid: Some(uid) }) => format!("unix:uid={uid}"),
        Some(Peer::Unix { uid: None }) => "unix".to_owned(),
        Some(Peer::Tcp(None)) | None => String::new(),
    }
}
