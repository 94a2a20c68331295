//! The public port: gRPC, gRPC-Web, reflection, health, REST, the OpenAPI document, metrics and consoles in one router.
//!
//! # Theory of operation
//!
//! The same service objects answer gRPC and REST: the generated REST routes call the tonic traits in process. What both need (who calls,
//! request ids, traces, metrics, deadlines, who may) is done by tower layers, since interceptors do not run for calls in process. From the outside in:
//! trace and metrics, deadline (both from the kit), gRPC-Web to gRPC, a panic's answer, authentication, admission (rate and rule), the handler.
//!
//! | part | who may |
//! | --- | --- |
//! | gRPC services and REST routes of `cloud.v1`, `/images:upload` | holders of an API key |
//! | `grpc.health.v1`, `/health/…`, reflection, `/openapi.json` | everybody: they say nothing about the cloud's contents |
//! | `/console/{token}` | holders of the token in the path |
//! | `/metrics` | this machine's processes, and operators (see [`metrics`]) |

mod admit;
mod auth;
mod certificates;
mod console;
mod limits;
mod metrics;
mod panic;
mod truth;
mod upload;

use std::sync::Arc;

use axum::{Router, middleware, response::IntoResponse, routing::get};
use cloud_contracts::{checked::Checked, rest, v1};
use cloud_core::{
    ports::Store,
    services::{HostRegistry, Services},
};
use cloud_service_kit::{health::Readiness, layers, metrics::Metrics, service};
use http::header;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;

use crate::{
    adapters::images::ImageFiles,
    handlers::{
        Admin, ApiKeys, Backups, Consoles, Events, Hosts, Images, InstanceTypes, Instances, Ports, Projects, Quotas,
        RequestLog, Snapshots, Subnets, Unbuilt, Volumes, Vpcs,
    },
};

use limits::Limits;

pub use limits::CallRate;
pub use metrics::Gauges;

/// What the public port is made of.
pub struct PublicApi<S> {
    /// The core.
    pub services: Services<S>,
    /// Which agents live.
    pub registry: Arc<HostRegistry>,
    /// The store, for metrics.
    pub store: S,
    /// The image files.
    pub images: Arc<ImageFiles>,
    /// The consoles of the hosts.
    pub consoles: Arc<dyn Consoles>,
    /// Copies of the database.
    pub backups: Arc<dyn Backups>,
    /// Cancelled where the gateway has to start itself again, on a restored database.
    pub restart: CancellationToken,
    /// What console URLs begin with.
    pub public_url: String,
    /// How often each key may call.
    pub calls: CallRate,
    /// What is ready.
    pub readiness: Readiness,
    /// What is measured.
    pub metrics: Metrics,
}

/// Every service of the public contract.
pub const SERVICES: [&str; 16] = [
    v1::admin_service_server::SERVICE_NAME,
    v1::api_key_service_server::SERVICE_NAME,
    v1::event_service_server::SERVICE_NAME,
    v1::host_service_server::SERVICE_NAME,
    v1::image_service_server::SERVICE_NAME,
    v1::instance_service_server::SERVICE_NAME,
    v1::instance_type_service_server::SERVICE_NAME,
    v1::port_service_server::SERVICE_NAME,
    v1::project_service_server::SERVICE_NAME,
    v1::quota_service_server::SERVICE_NAME,
    v1::security_group_service_server::SERVICE_NAME,
    v1::snapshot_service_server::SERVICE_NAME,
    v1::ssh_key_service_server::SERVICE_NAME,
    v1::subnet_service_server::SERVICE_NAME,
    v1::volume_service_server::SERVICE_NAME,
    v1::vpc_service_server::SERVICE_NAME,
];

/// Why the router could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The descriptors behind reflection.
    #[error("cannot set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The gateway's own metrics.
    #[error("cannot set up metrics")]
    Metrics(#[from] prometheus::Error),
}

impl<S: Store> PublicApi<S> {
    /// The router of the public port.
    ///
    /// # Errors
    /// What is compiled in does not fit together.
    pub fn router(self) -> Result<Router, RouterError> {
        let (grpc, rest) = self.api();
        let images = Images::new(self.services.clone(), Arc::clone(&self.images));
        let authenticate =
            middleware::from_fn_with_state(auth::Auth(self.services.identity.clone()), auth::authenticate::<S>);
        let limits = Arc::new(Limits::new(self.calls, self.metrics.registry())?);
        let admission = admit::Admission { limits, audit: self.services.audit.clone() };
        let admit = middleware::from_fn_with_state(admission, admit::admit::<S>);
        let grpc = grpc.layer(admit.clone()).layer(authenticate.clone());
        let grpc = grpc.layer(panic::grpc()).layer(GrpcWebLayer::new());
        let rest = rest.merge(upload::router(images)).layer(admit).layer(authenticate).layer(panic::rest());
        let open = service::add_reflection(Routes::default(), &SERVICES)?
            .add_service(self.readiness.grpc(SERVICES.map(str::to_owned).to_vec()));
        let open = open.into_axum_router().reset_fallback().layer(GrpcWebLayer::new());
        let console = console::router(self.services.clone(), self.consoles).layer(panic::rest());
        let metrics =
            metrics::router(self.services.identity, self.registry, self.store, self.services.watch, &self.metrics)?;
        let router =
            grpc.merge(rest).merge(open).merge(console).merge(metrics).merge(self.readiness.router()).merge(openapi());
        Ok(layers::apply(service::with_fallbacks(router), &self.metrics))
    }

    /// Every service of the contract, over gRPC and over REST.
    fn api(&self) -> (Router, Router) {
        let services = &self.services;
        let config = service::rest_config();
        let requests: Arc<dyn cloud_rest::Requests> = Arc::new(RequestLog(services.requests.clone()));
        let mut grpc = Routes::default();
        let mut rest = Router::new();
        // A service by its two modules and its handler.
        macro_rules! serve {
            ($($module:ident, $server:ident, $router:ident, $handler:expr;)*) => {$(
                let checked = Checked::with_requests($handler, Arc::clone(&requests));
                rest = rest.merge(rest::$router(Arc::new(checked.clone()), &config));
                grpc = grpc.add_service(v1::$module::$server::new(checked));
            )*};
        }
        let instances = Instances::new(services.clone(), Arc::clone(&self.consoles), &self.public_url);
        serve! {
            instance_service_server, InstanceServiceServer, instance_service, instances;
            instance_type_service_server, InstanceTypeServiceServer, instance_type_service, InstanceTypes(services.clone());
            volume_service_server, VolumeServiceServer, volume_service, Volumes(services.clone());
            image_service_server, ImageServiceServer, image_service,
                Images::new(services.clone(), Arc::clone(&self.images));
            vpc_service_server, VpcServiceServer, vpc_service, Vpcs(services.clone());
            subnet_service_server, SubnetServiceServer, subnet_service, Subnets(services.clone());
            port_service_server, PortServiceServer, port_service, Ports(services.clone());
            host_service_server, HostServiceServer, host_service, Hosts(services.clone());
            event_service_server, EventServiceServer, event_service, Events(services.clone());
            project_service_server, ProjectServiceServer, project_service, Projects(services.clone());
            api_key_service_server, ApiKeyServiceServer, api_key_service, ApiKeys(services.clone());
            quota_service_server, QuotaServiceServer, quota_service, Quotas(services.clone());
            admin_service_server, AdminServiceServer, admin_service,
                Admin::new(Arc::clone(&self.backups), self.restart.clone());
            security_group_service_server, SecurityGroupServiceServer, security_group_service, Unbuilt;
            snapshot_service_server, SnapshotServiceServer, snapshot_service, Snapshots(services.clone());
            ssh_key_service_server, SshKeyServiceServer, ssh_key_service, Unbuilt;
        }
        (grpc.into_axum_router().reset_fallback(), rest)
    }
}

/// A status as a REST answer.
fn rest_response(status: &tonic::Status) -> axum::response::Response {
    cloud_rest::error_response(&service::rest_config(), status)
}

/// `GET /openapi.json`.
fn openapi() -> Router {
    let mut document = cloud_contracts::openapi();
    upload::describe(&mut document);
    let text = bytes::Bytes::from(document.to_string());
    let answer = move || {
        let text = text.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], text).into_response() }
    };
    Router::new().route("/openapi.json", get(answer.clone())).route("/v1/openapi.json", get(answer))
}

#[cfg(test)]
mod tests;
