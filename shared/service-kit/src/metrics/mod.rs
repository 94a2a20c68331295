//! Prometheus metrics of a daemon.

mod process;

use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Method, header};
use prometheus::{Encoder, HistogramOpts, HistogramVec, Registry, TextEncoder};
use prost::Message as _;

/// Seconds; from a cached read to a call that waits a minute.
const BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The metrics of one daemon, with a registry of its own. Clones share it.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    rpc: HistogramVec,
    methods: Arc<HashSet<String>>,
}

/// The bounded name of a route: a gRPC method of the contract (`cloud.v1.InstanceService/GetInstance`), or an HTTP method with the
/// route's pattern (`GET /instances/{id}`). Never what a client made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteLabel(Cow<'static, str>);

impl RouteLabel {
    /// A method of the contract, such as `cloud.v1.InstanceService/GetInstance`.
    #[must_use]
    pub const fn of_contract(method: &'static str) -> Self {
        Self(Cow::Borrowed(method))
    }

    /// The label's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Metrics {
    /// The metrics of the daemon `service`, which every series names in the label `service`; process metrics and
    /// `rpc_duration_seconds{method,protocol,code}` are there already.
    ///
    /// # Errors
    /// None for a `service` that is a valid label value.
    pub fn new(service: &str) -> Result<Self, prometheus::Error> {
        let labels = [("service".to_owned(), service.to_owned())].into();
        let registry = Registry::new_custom(None, Some(labels))?;
        let opts = HistogramOpts::new("rpc_duration_seconds", "How long requests took, by method and outcome.")
            .buckets(BUCKETS.to_vec());
        let rpc = HistogramVec::new(opts, &["method", "protocol", "code"])?;
        registry.register(Box::new(rpc.clone()))?;
        registry.register(Box::new(process::ProcessCollector::new()?))?;
        Ok(Self { registry, rpc, methods: Arc::new(contract_methods()) })
    }

    /// Where a daemon registers metrics of its own.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// `GET /metrics`.
    pub fn router(&self) -> Router {
        Router::new().route("/metrics", get(render)).with_state(self.clone())
    }

    /// The name of a route; `matched` is the pattern that the router found.
    #[must_use]
    pub fn route_label(&self, method: &Method, path: &str, matched: Option<&str>) -> RouteLabel {
        RouteLabel(match matched {
            None => Cow::Borrowed("unmatched"),
            // The pattern of a tonic service.
            Some(pattern) if pattern.ends_with("/{*rest}") => {
                let path = path.trim_start_matches('/');
                let service = pattern.trim_start_matches('/').trim_end_matches("/{*rest}");
                Cow::Owned(if self.methods.contains(path) { path.to_owned() } else { service.to_owned() })
            }
            Some(pattern) => Cow::Owned(format!("{} {pattern}", known_method(method))),
        })
    }

    /// Records one request. `protocol` is `grpc` or `http`; `code` is the gRPC code of a method of the contract, whichever protocol it
    /// came by, and the HTTP status of any other route.
    pub fn observe(&self, label: &RouteLabel, protocol: &'static str, code: &str, elapsed: Duration) {
        self.rpc.with_label_values(&[label.as_str(), protocol, code]).observe(elapsed.as_secs_f64());
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A collector made something that the format cannot hold.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// A client may invent methods; a label must not.
fn known_method(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
        _ => "OTHER",
    }
}

/// Every method of the contracts, as `package.Service/Method`.
fn contract_methods() -> HashSet<String> {
    // The descriptors are compiled in; if they did not decode, calls would be counted by service.
    let set = prost_types::FileDescriptorSet::decode(cloud_contracts::DESCRIPTORS).unwrap_or_default();
    let methods = set.file.iter().flat_map(|file| {
        file.service.iter().flat_map(move |service| {
            let name = format!("{}.{}", file.package(), service.name());
            service.method.iter().map(move |method| format!("{name}/{}", method.name())).collect::<Vec<_>>()
        })
    });
    methods.collect()
}

async fn render(State(metrics): State<Metrics>) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, TextEncoder::new().format_type().to_owned())], text).into_response(),
        Err(error) => crate::service::error_response(false, crate::ServiceError::internal(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_whatever_a_client_sends() {
        let metrics = Metrics::new("test").unwrap();
        let label = |method: &str, path, matched| {
            metrics.route_label(&method.parse().unwrap(), path, matched).as_str().to_owned()
        };
        let service = Some("/cloud.agent.v1.HostService/{*rest}");
        let method = "cloud.agent.v1.HostService/Register";
        assert_eq!(label("POST", "/cloud.agent.v1.HostService/Register", service), method);
        assert_eq!(label("POST", "/cloud.agent.v1.HostService/Made/Up", service), "cloud.agent.v1.HostService");
        assert_eq!(label("GET", "/instances/x", Some("/instances/{id}")), "GET /instances/{id}");
        assert_eq!(label("BREW", "/instances/x", Some("/instances/{id}")), "OTHER /instances/{id}");
        assert_eq!(label("GET", "/nowhere", None), "unmatched");
    }

    #[test]
    fn requests_and_the_process_are_shown() {
        let metrics = Metrics::new("test").unwrap();
        metrics.observe(&RouteLabel("GET /x".into()), "http", "200", Duration::from_millis(3));
        let text = metrics.render().unwrap();
        let line =
            r#"rpc_duration_seconds_bucket{code="200",method="GET /x",protocol="http",service="test",le="0.005"} 1"#;
        assert!(text.contains(line), "{text}");
        for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
            let value = text.lines().find(|l| l.starts_with(name)).and_then(|l| l.rsplit(' ').next());
            let value: f64 = value.unwrap_or_else(|| panic!("{name} is missing in {text}")).parse().unwrap();
            assert!(value > 0.0 || name.contains("cpu"), "{name} {value}");
        }
    }
}
