//! Metrics of how true the database is: inventories, drift, orphans, audits.

use cloud_core::{
    CoreError,
    model::{Host, Orphan},
    ports::{Query, Store},
    services::HostRegistry,
};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// Set at a scrape.
#[derive(Clone)]
pub(super) struct Truth {
    inventoried: prometheus::GaugeVec,
    orphans: IntGaugeVec,
    drift: IntCounterVec,
    wrong: IntGaugeVec,
}

impl Truth {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let this = Self {
            inventoried: prometheus::GaugeVec::new(
                Opts::new(
                    "host_inventory_timestamp_seconds",
                    "As of when what a host has was last compared with what it shall have; absent: not since this gateway was started.",
                ),
                &["host"],
            )?,
            orphans: IntGaugeVec::new(
                Opts::new("host_orphans", "What a host has with this cloud's tag and no row knows there."),
                &["host", "kind"],
            )?,
            drift: IntCounterVec::new(
                Opts::new("drift_total", "What was found on hosts not to be as it should be, by kind."),
                &["kind"],
            )?,
            wrong: IntGaugeVec::new(
                Opts::new("database_contradictions", "Rows and counters that did not fit at the last audit, by check."),
                &["check"],
            )?,
        };
        registry.register(Box::new(this.inventoried.clone()))?;
        registry.register(Box::new(this.orphans.clone()))?;
        registry.register(Box::new(this.drift.clone()))?;
        registry.register(Box::new(this.wrong.clone()))?;
        Ok(this)
    }

    #[allow(clippy::cast_precision_loss)] // Prometheus has floats only.
    pub(super) async fn collect<S: Store>(
        &self,
        store: &S,
        registry: &HostRegistry,
        hosts: &[Host],
    ) -> Result<(), CoreError> {
        let inventories = registry.inventories();
        self.inventoried.reset();
        for host in hosts {
            if let Some(at) = inventories.at(host.id()) {
                self.inventoried.with_label_values(&[&host.meta.name]).set(at.0 as f64 / 1e6);
            }
        }
        self.orphans.reset();
        for orphan in store.list::<Orphan>(&Query::default()).await? {
            self.orphans.with_label_values(&[orphan.host_name.as_str(), orphan.kind.kind().as_str()]).inc();
        }
        self.drift.reset();
        for (kind, count) in inventories.drift() {
            self.drift.with_label_values(&[kind]).inc_by(count);
        }
        self.wrong.reset();
        for (check, count) in inventories.wrong() {
            self.wrong.with_label_values(&[check]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        Ok(())
    }
}
