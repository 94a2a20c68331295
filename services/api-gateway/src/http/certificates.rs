//! What metrics say of joining: until when certificates count, and how many tokens are out.

use std::collections::HashMap;

use cloud_core::{
    CoreError,
    model::{Authority, Host, HostCertificate, JoinToken, Timestamp, Value},
    ports::{Query, Store},
};
use prometheus::{GaugeVec, IntGauge, Opts, Registry};

#[derive(Clone)]
pub(super) struct Certificates {
    hosts: GaugeVec,
    authorities: GaugeVec,
    tokens: IntGauge,
}

impl Certificates {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let this = Self {
            hosts: GaugeVec::new(
                Opts::new(
                    "host_certificate_expiry_timestamp_seconds",
                    "When the newest certificate of an agent ends, which it renews before.",
                ),
                &["host", "role"],
            )?,
            authorities: GaugeVec::new(
                Opts::new("authority_expiry_timestamp_seconds", "When an authority of the cloud's own ends."),
                &["authority"],
            )?,
            tokens: IntGauge::new("join_tokens", "Tokens that hosts can still join with.")?,
        };
        registry.register(Box::new(this.hosts.clone()))?;
        registry.register(Box::new(this.authorities.clone()))?;
        registry.register(Box::new(this.tokens.clone()))?;
        Ok(this)
    }

    pub(super) async fn collect<S: Store>(&self, store: &S, hosts: &[Host]) -> Result<(), CoreError> {
        let names: HashMap<_, _> = hosts.iter().map(|host| (host.id(), host.meta.name.as_str())).collect();
        let mut ends: HashMap<_, Timestamp> = HashMap::new();
        let valid = Query { columns: vec![("revoked", Value::Int(0))], ..Query::default() };
        for row in store.list::<HostCertificate>(&valid).await? {
            let end = ends.entry((row.host, row.role)).or_default();
            *end = row.expires_at.max(*end);
        }
        self.hosts.reset();
        for ((host, role), end) in ends {
            if let Some(name) = names.get(&host) {
                self.hosts.with_label_values(&[*name, role.as_str()]).set(seconds(end));
            }
        }
        self.authorities.reset();
        for row in store.list::<Authority>(&Query::default()).await? {
            self.authorities.with_label_values(&[&row.meta.name]).set(seconds(row.expires_at));
        }
        let now = Timestamp::now();
        let usable =
            |token: &&JoinToken| token.revoked_at.is_none() && token.used < token.uses && token.expires_at > now;
        let tokens = store.list::<JoinToken>(&Query::default()).await?;
        self.tokens.set(i64::try_from(tokens.iter().filter(usable).count()).unwrap_or(i64::MAX));
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss)] // Prometheus has floats only.
fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1e6
}
