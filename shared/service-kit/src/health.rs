//! Health: `grpc.health.v1`, `GET /health/live` and `GET /health/ready`, all from one [`Readiness`].

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use futures::Stream;
use http::StatusCode;
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::{StreamExt, wrappers::WatchStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::ServiceError;

/// The components of a daemon.
type Components = BTreeMap<&'static str, Component>;

#[derive(Debug, Clone)]
struct Component {
    /// Why it is not ready; none: it is.
    missing: Option<String>,
    /// Whether the daemon cannot serve without it.
    needed: bool,
}

fn all_ready(components: &Components) -> bool {
    components.values().all(|component| component.missing.is_none() || !component.needed)
}

/// What a daemon needs in order to serve, by component; it is ready when every component that it needs is. Clones share their state.
#[derive(Debug, Clone)]
pub struct Readiness {
    components: Arc<watch::Sender<Components>>,
}

/// Waits for a daemon to be ready, or not to be any more.
#[derive(Debug)]
pub struct ReadyWatch(watch::Receiver<Components>);

impl ReadyWatch {
    /// Waits until readiness is as `wanted`.
    ///
    /// # Errors
    /// Every [`Readiness`] is gone.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(bool) -> bool) -> Result<(), watch::error::RecvError> {
        self.0.wait_for(|all| wanted(all_ready(all))).await.map(|_| ())
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Readiness {
    /// Not ready until each of `components` was reported ready.
    #[must_use]
    pub fn new(components: &[&'static str]) -> Self {
        let starting = |needed| Component { missing: Some("starting".to_owned()), needed };
        let components = components.iter().map(|name| (*name, starting(true))).collect();
        Self { components: Arc::new(watch::Sender::new(components)) }
    }

    /// Shows a component, and why it is not ready, without which the daemon serves all the same.
    pub fn show(&self, component: &'static str) {
        let starting = Component { missing: Some("starting".to_owned()), needed: false };
        self.components.send_modify(|all| _ = all.insert(component, starting));
    }

    /// Reports that a component works.
    pub fn set_ready(&self, component: &'static str) {
        self.set(component, None);
    }

    /// Reports that a component does not work, and why, for an operator.
    pub fn set_not_ready(&self, component: &'static str, reason: impl Into<String>) {
        self.set(component, Some(reason.into()));
    }

    fn set(&self, name: &'static str, missing: Option<String>) {
        self.components.send_if_modified(|all| {
            let component = all.entry(name).or_insert(Component { missing: None, needed: true });
            if component.missing == missing {
                return false;
            }
            match &missing {
                None => tracing::info!(component = name, "ready"),
                Some(reason) => tracing::warn!(component = name, reason, "not ready"),
            }
            component.missing = missing;
            true
        });
    }

    /// Whether every component that is needed is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        all_ready(&self.components.borrow())
    }

    /// Whether every component that is needed is ready, as it changes.
    #[must_use]
    pub fn watch(&self) -> ReadyWatch {
        ReadyWatch(self.components.subscribe())
    }

    /// `GET /health/live` (200 while the process serves) and `GET /health/ready` (503, naming what is missing, while it is not).
    pub fn router(&self) -> Router {
        Router::new()
            .route("/health/live", get(|| async { Json(json!({"status": "live"})) }))
            .route("/health/ready", get(ready))
            .with_state(self.clone())
    }

    /// The `grpc.health.v1` service, for the whole server (`""`) and each of `services`, all of which serve when this is ready.
    #[must_use]
    pub fn grpc(&self, services: Vec<String>) -> HealthServer<HealthService> {
        HealthServer::new(HealthService { readiness: self.clone(), services })
    }

    fn serving(&self) -> HealthCheckResponse {
        let status = if self.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        HealthCheckResponse { status: status.into() }
    }
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let components: BTreeMap<_, _> = readiness
        .components
        .borrow()
        .iter()
        .map(|(name, component)| (*name, component.missing.clone().unwrap_or_else(|| "ready".to_owned())))
        .collect();
    let (http, status) = match readiness.is_ready() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (http, Json(json!({"status": status, "components": components})))
}

/// `grpc.health.v1.Health` over a [`Readiness`].
#[derive(Debug)]
pub struct HealthService {
    readiness: Readiness,
    services: Vec<String>,
}

impl HealthService {
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.iter().any(|s| s == service)
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !self.knows(service) {
            return Err(ServiceError::not_found("service", service).into());
        }
        Ok(Response::new(self.readiness.serving()))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !self.knows(&request.get_ref().service) {
            // The protocol: unknown services are reported, and the call goes on.
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            let stream = futures::stream::iter([Ok(unknown)]).chain(futures::stream::pending());
            return Ok(Response::new(Box::pin(stream)));
        }
        let readiness = self.readiness.clone();
        let mut last = None;
        let changes = WatchStream::new(self.readiness.components.subscribe());
        let stream = changes.filter_map(move |_| {
            let now = readiness.serving();
            (last.replace(now.status) != Some(now.status)).then_some(Ok(now))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.into() })
    }

    #[tokio::test]
    async fn ready_when_every_component_is_and_watchers_see_each_change_once() {
        let readiness = Readiness::new(&["database", "hosts"]);
        let service = HealthService { readiness: readiness.clone(), services: vec!["a.B".into()] };
        let mut watch = service.watch(request("a.B")).await.unwrap().into_inner();
        let not_serving = i32::from(ServingStatus::NotServing);
        assert_eq!(watch.next().await.unwrap().unwrap().status, not_serving);
        readiness.set_ready("database");
        assert!(!readiness.is_ready());
        readiness.set_ready("hosts");
        assert_eq!(watch.next().await.unwrap().unwrap().status, i32::from(ServingStatus::Serving));
        readiness.set_not_ready("database", "gone");
        assert_eq!(watch.next().await.unwrap().unwrap().status, not_serving);
        assert_eq!(service.check(request("")).await.unwrap().into_inner().status, not_serving);
    }

    #[tokio::test]
    async fn what_is_only_shown_does_not_count() {
        let readiness = Readiness::new(&["database"]);
        readiness.show("images");
        readiness.set_ready("database");
        assert!(readiness.is_ready());
        readiness.set_not_ready("images", "the bucket is gone");
        assert!(readiness.is_ready());
        readiness.set_not_ready("database", "gone");
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn unknown_services_are_not_found_and_reported_to_watchers() {
        let service = HealthService { readiness: Readiness::default(), services: vec![] };
        assert_eq!(service.check(request("x")).await.unwrap_err().code(), tonic::Code::NotFound);
        let mut watch = service.watch(request("x")).await.unwrap().into_inner();
        assert_eq!(watch.next().await.unwrap().unwrap().status, i32::from(ServingStatus::ServiceUnknown));
    }

    #[tokio::test]
    async fn the_ready_answer_names_what_is_missing() {
        let readiness = Readiness::new(&["database"]);
        let response = ready(State(readiness.clone())).await.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(&body[..], br#"{"components":{"database":"starting"},"status":"not ready"}"#);
        readiness.set_ready("database");
        assert_eq!(ready(State(readiness)).await.into_response().status(), StatusCode::OK);
    }
}
