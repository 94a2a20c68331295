//! Whether an authenticated call is let through, for both protocols: the rate of its key, and the rule of its method. And what became of it:
//! a call that would have changed something and was refused is written down.
//!
//! This is the one place where `cloud_core::authorization` is applied. What has no rule is not let through.

use std::{collections::HashMap, sync::Arc, sync::LazyLock, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use cloud_core::{
    authorization::{Rule, authorize, rule},
    model::Caller,
    ports::Store,
    services::{AuditService, Refusal},
};
use cloud_rest::Subject;
use cloud_service_kit::{
    ServiceError,
    error::status_name,
    service::{error_response, is_grpc},
};
use http::Method;
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::limits::Limits;
use crate::handlers;

/// The method behind `POST /images:upload`, which is not in the generated list of routes.
const UPLOAD: (&str, &str, &str) = ("POST", super::upload::PATH, "cloud.v1.ImageService/UploadImage");
/// How long writing a refusal down may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What admission needs.
#[derive(Clone)]
pub(super) struct Admission<S> {
    pub(super) limits: Arc<Limits>,
    pub(super) audit: AuditService<S>,
}

/// Lets a request through to its handler, or refuses it.
pub(super) async fn admit<S: Store>(
    State(admission): State<Admission<S>>,
    mut request: Request,
    next: Next,
) -> Response {
    let grpc = is_grpc(request.headers());
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return error_response(grpc, ServiceError::unauthenticated("send an API key: `Authorization: Bearer <key>`"));
    };
    let rule = match find(&request, grpc) {
        Found::Rule(rule) => rule,
        Found::OtherVerb => return next.run(request).await,
        Found::Nothing => {
            let path = request.uri().path().to_owned();
            return error_response(grpc, ServiceError::unimplemented(format!("there is no method {path}")));
        }
    };
    let subject = Subject::default();
    let in_path = if grpc { String::new() } else { in_path(&request) };
    request.extensions_mut().insert(subject.clone());
    let response = match allowed(&admission.limits, rule, &caller) {
        Ok(()) => next.run(request).await,
        Err(refused) => error_response(grpc, refused),
    };
    if let Some((kind, action)) = rule.changes
        && let Some(status) = refusal(&response)
        && is_recorded(status.code())
    {
        if admission.limits.may_record(caller.key) {
            let named = if subject.get().is_empty() { &in_path } else { subject.get() };
            let (outcome, message) = (status_name(status.code()), status.message().to_owned());
            let refusal = Refusal { kind, action, subject: named.to_owned(), outcome, message };
            record(admission.audit, caller, refusal).await;
        } else {
            tracing::debug!(action, key = caller.key_name, "too many refusals to write this one down");
        }
    }
    response
}

fn allowed(limits: &Limits, rule: &Rule, caller: &Caller) -> Result<(), ServiceError> {
    if let Err(wait) = limits.call(caller.key) {
        let message = format!(
            "the API key `{}` calls too often: at most {} times a second",
            caller.key_name,
            limits.per_second()
        );
        return Err(ServiceError::new(Code::ResourceExhausted, "RATE_LIMITED", message).with_retry_after(wait));
    }
    authorize(rule, caller).map_err(handlers::service_error)
}

/// Written down also where the caller goes away meanwhile. A call is never failed by it.
async fn record<S: Store>(audit: AuditService<S>, caller: Caller, refusal: Refusal) {
    let writing = async move {
        match tokio::time::timeout(PATIENCE, audit.refused(&caller, refusal.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, ?refusal, "a refusal could not be written down"),
            Err(_) => tracing::warn!(?refusal, "a refusal could not be written down in time"),
        }
    };
    if let Err(error) = tokio::spawn(writing.in_current_span()).await {
        tracing::error!(%error, "writing a refusal down ended");
    }
}

/// What a request asks for.
enum Found {
    /// A method that has a rule.
    Rule(&'static Rule),
    /// A path that there is, with a verb that it does not have: 405.
    OtherVerb,
    /// Nothing that there is a rule for.
    Nothing,
}

/// Rules by verb and path.
static ROUTES: LazyLock<HashMap<(&str, &str), &'static Rule>> = LazyLock::new(|| {
    let routes = cloud_contracts::rest::ROUTES.iter().copied().chain([UPLOAD]);
    routes.filter_map(|(verb, path, method)| Some(((verb, path), rule(method)?))).collect()
});
/// Rules by gRPC method.
static METHODS: LazyLock<HashMap<&str, &'static Rule>> =
    LazyLock::new(|| cloud_core::authorization::RULES.iter().map(|rule| (rule.method, rule)).collect());

fn find(request: &Request, grpc: bool) -> Found {
    if grpc {
        let method = request.uri().path().trim_start_matches('/');
        return METHODS.get(method).map_or(Found::Nothing, |rule| Found::Rule(rule));
    }
    let Some(path) = request.extensions().get::<MatchedPath>() else { return Found::Nothing };
    let path = path.as_str();
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let verb = if *request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
    match ROUTES.get(&(verb, path)) {
        Some(rule) => Found::Rule(rule),
        None if ROUTES.keys().any(|(_, known)| *known == path) => Found::OtherVerb,
        None => Found::Nothing,
    }
}

/// The id or name of what a call is about: what stands in its path for `{id}`, or for the last parameter.
fn in_path(request: &Request) -> String {
    let Some(matched) = request.extensions().get::<MatchedPath>() else { return String::new() };
    let parts = matched.as_str().split('/').zip(request.uri().path().split('/'));
    let parameters: Vec<_> = parts.filter(|(template, _)| template.starts_with('{')).collect();
    let id = parameters.iter().find(|(template, _)| template.starts_with("{id")).or(parameters.last());
    id.map_or(String::new(), |(_, part)| (*part).to_owned())
}

/// The status that a call was refused with.
fn refusal(response: &Response) -> Option<Status> {
    let rest = response.extensions().get::<Status>().cloned();
    rest.or_else(|| Status::from_header_map(response.headers())).filter(|status| status.code() != Code::Ok)
}

/// Whether a status means that a call was refused, or failed. What is not built could not have changed anything; what ended before its answer
/// may have done what it should, and then has its event.
fn is_recorded(code: Code) -> bool {
    !matches!(code, Code::Ok | Code::Unimplemented | Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable)
}
