//! `GET /metrics`: the kit's metrics, and what the database and the registry say at the moment of the scrape.
//!
//! It names hosts, so it is not for everybody: processes of this machine may read it, others need an operator's key. A request that a
//! proxy of this machine forwarded (it has `Forwarded` or `X-Forwarded-For`) counts as another's.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use cloud_core::{
    CoreError,
    model::{Caller, Host, Role},
    ports::{Query, Store},
    services::{HostRegistry, IdentityService, WatchService},
};
use cloud_service_kit::{
    ServiceError,
    metrics::Metrics,
    server::{Connection, Peer},
    service::error_response,
};
use http::header;
use prometheus::{GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use tonic::Status;

use super::{auth, certificates::Certificates, rest_response, truth::Truth};
use crate::handlers;

/// The gauges that are set at a scrape.
#[derive(Clone)]
pub struct Gauges {
    work_due: IntGauge,
    work_age: prometheus::Gauge,
    instances: IntGaugeVec,
    host_up: IntGaugeVec,
    hosts: IntGaugeVec,
    capacity: GaugeVec,
    used: GaugeVec,
    watches: IntGaugeVec,
    too_slow: IntCounter,
    truth: Truth,
    certificates: Certificates,
}

#[derive(Clone)]
struct Scrape<S> {
    identity: IdentityService<S>,
    registry: Arc<HostRegistry>,
    store: S,
    watch: WatchService<S>,
    metrics: Metrics,
    gauges: Gauges,
    one_at_a_time: Arc<tokio::sync::Mutex<()>>,
}

pub(super) fn router<S: Store>(
    identity: IdentityService<S>,
    registry: Arc<HostRegistry>,
    store: S,
    watch: WatchService<S>,
    metrics: &Metrics,
) -> Result<Router, prometheus::Error> {
    let gauges = Gauges::register(metrics.registry())?;
    let scrape =
        Scrape { identity, registry, store, watch, metrics: metrics.clone(), gauges, one_at_a_time: Arc::default() };
    Ok(Router::new().route("/metrics", get(answer::<S>)).with_state(scrape))
}

impl Gauges {
    /// Registers the gateway's gauges.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of_host = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["host", "resource"]);
        let this = Self {
            work_due: IntGauge::new("work_queue_due", "Pieces of work that are due now.")?,
            work_age: prometheus::Gauge::new(
                "work_queue_oldest_seconds",
                "How long the oldest due work has been due.",
            )?,
            instances: IntGaugeVec::new(Opts::new("instances", "Live instances, by status."), &["status"])?,
            host_up: IntGaugeVec::new(Opts::new("host_up", "Whether all agents of a host answer."), &["host"])?,
            hosts: IntGaugeVec::new(Opts::new("hosts", "Hosts, by state."), &["state"])?,
            capacity: of_host("host_capacity", "What a host has: vcpus (threads), memory_bytes, pool_bytes.")?,
            used: of_host(
                "host_used",
                "What is promised of a host: vcpus, memory_bytes; what its pools hold: pool_bytes.",
            )?,
            watches: IntGaugeVec::new(Opts::new("watches", "Watches that are open, by what they watch."), &["kind"])?,
            too_slow: IntCounter::new("watches_too_slow_total", "Watches that ended because changes came too fast.")?,
            truth: Truth::register(registry)?,
            certificates: Certificates::register(registry)?,
        };
        registry.register(Box::new(this.work_due.clone()))?;
        registry.register(Box::new(this.work_age.clone()))?;
        registry.register(Box::new(this.instances.clone()))?;
        registry.register(Box::new(this.host_up.clone()))?;
        registry.register(Box::new(this.hosts.clone()))?;
        registry.register(Box::new(this.capacity.clone()))?;
        registry.register(Box::new(this.used.clone()))?;
        registry.register(Box::new(this.watches.clone()))?;
        registry.register(Box::new(this.too_slow.clone()))?;
        Ok(this)
    }
}

async fn answer<S: Store>(State(scrape): State<Scrape<S>>, request: Request) -> Response {
    if !local(&request) {
        match auth::caller(&scrape.identity, request.headers(), request.extensions()).await {
            Ok(Caller { role: Role::Operator, .. }) => {}
            Ok(_) => {
                let denied = ServiceError::permission_denied("only operators may read metrics");
                return error_response(false, denied);
            }
            Err(status) => return rest_response(&status),
        }
    }
    // Gauges are shared, so one scrape must not read what another is just setting.
    let _alone = scrape.one_at_a_time.lock().await;
    if let Err(error) = scrape.collect().await {
        return rest_response(&handlers::status(error));
    }
    match scrape.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => rest_response(&Status::from(ServiceError::internal(error))),
    }
}

fn local(request: &Request) -> bool {
    let forwarded = ["forwarded", "x-forwarded-for"].iter().any(|name| request.headers().contains_key(*name));
    let near = match request.extensions().get::<Arc<Connection>>().map(|c| &c.peer) {
        Some(Peer::Unix { .. }) => true,
        Some(Peer::Tcp(Some(address))) => address.ip().to_canonical().is_loopback(),
        Some(Peer::Tcp(None)) | None => false,
    };
    near && !forwarded
}

impl<S: Store> Scrape<S> {
    async fn collect(&self) -> Result<(), CoreError> {
        let gauges = &self.gauges;
        let (_, due, age) = self.store.work_status().await?;
        gauges.work_due.set(i64::try_from(due).unwrap_or(i64::MAX));
        gauges.work_age.set(age.as_secs_f64());
        gauges.instances.reset();
        for (status, count) in self.store.instances_by_status().await? {
            gauges.instances.with_label_values(&[&status]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for (kind, count) in self.watch.open() {
            gauges.watches.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        gauges.too_slow.inc_by(self.watch.too_slow().saturating_sub(gauges.too_slow.get()));
        for (state, count) in self.registry.count_states() {
            gauges.hosts.with_label_values(&[state.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        gauges.host_up.reset();
        gauges.capacity.reset();
        gauges.used.reset();
        let hosts: Vec<Host> = self.store.list(&Query::default()).await?;
        for host in &hosts {
            self.host(host).await?;
        }
        gauges.certificates.collect(&self.store, &hosts).await?;
        gauges.truth.collect(&self.store, &self.registry, &hosts).await
    }

    #[allow(clippy::cast_precision_loss)] // Prometheus has floats only.
    async fn host(&self, host: &Host) -> Result<(), CoreError> {
        let name = host.meta.name.as_str();
        let up = self.registry.is_up(host.id());
        self.gauges.host_up.with_label_values(&[name]).set(i64::from(up));
        let (vcpus, memory) = self.store.capacity_used(host.id()).await?;
        let total: u64 = host.capacity.pools.iter().map(|p| p.total_bytes).sum();
        let free: u64 = host.capacity.pools.iter().map(|p| p.free_bytes).sum();
        let set = |resource: &str, has: f64, used: f64| {
            self.gauges.capacity.with_label_values(&[name, resource]).set(has);
            self.gauges.used.with_label_values(&[name, resource]).set(used);
        };
        set("vcpus", f64::from(host.capacity.vcpus), vcpus as f64);
        set("memory_bytes", (host.capacity.memory_mib << 20) as f64, (memory << 20) as f64);
        set("pool_bytes", total as f64, total.saturating_sub(free) as f64);
        Ok(())
    }
}
