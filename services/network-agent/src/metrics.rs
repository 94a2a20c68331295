//! What the agent counts for Prometheus.

use prometheus::{
    Gauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::core::service::Service;

/// Reads the backend's status whenever metrics are asked for.
pub struct StatusCollector {
    service: Service,
    up: Gauge,
    vpcs: Gauge,
    flows: Gauge,
    repairs: Gauge,
}

impl StatusCollector {
    /// Gauges of a service.
    ///
    /// # Errors
    /// None in practice: the names are constant.
    pub fn new(service: Service) -> Result<Self, prometheus::Error> {
        Ok(Self {
            service,
            up: Gauge::new(
                "cloud_network_backend_up",
                "Whether the switch is as the gateway wants it (1) or not (0).",
            )?,
            vpcs: Gauge::new("cloud_network_vpcs", "VPCs applied since the agent started.")?,
            flows: Gauge::new("cloud_network_flows", "Flows installed on the integration bridge.")?,
            repairs: Gauge::new("cloud_network_repaired_flows", "Flows found missing, wrong or too many, and mended.")?,
        })
    }

    fn all(&self) -> [&Gauge; 4] {
        [&self.up, &self.vpcs, &self.flows, &self.repairs]
    }
}

impl Collector for StatusCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    #[allow(clippy::cast_precision_loss)] // counts stay far below 2^52
    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.service.status();
        self.up.set(if status.error.is_none() { 1.0 } else { 0.0 });
        self.vpcs.set(status.vpcs as f64);
        self.flows.set(status.flows as f64);
        self.repairs.set(status.repairs as f64);
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
