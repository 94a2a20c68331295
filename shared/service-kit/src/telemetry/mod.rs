//! Logs and traces of a daemon.

mod log;

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use log::LogLayer;

/// Whether spans go to a collector.
static EXPORTS: AtomicBool = AtomicBool::new(false);

/// How long the last spans may take to reach the collector.
const FLUSH: Duration = Duration::from_secs(3);

/// The form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The flags of logs and traces.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub struct TelemetryConfig {
    /// The form of log lines.
    #[arg(long, env = "CLOUD_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What to log: a level, or directives such as `info,cloud_core=debug`.
    #[arg(long, env = "CLOUD_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// Where to send traces, such as http://localhost:4317 (OTLP over gRPC). Without it, none are sent.
    #[arg(long, env = "CLOUD_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log_format: LogFormat::Text, log_level: "info".into(), otlp_endpoint: None }
    }
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not a level or directives.
    #[error(
        "`{level}` is not a log level: write error, warn, info, debug, trace, or directives such as `info,cloud_core=debug`"
    )]
    Level {
        /// The text given.
        level: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Not an endpoint.
    #[error("cannot send traces to `{endpoint}`")]
    Endpoint {
        /// The text given.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// This process logs already.
    #[error("telemetry was started before in this process")]
    Started(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps telemetry going; sends the last spans when it is shut down or dropped.
#[derive(Debug)]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

/// Starts logs (to standard error) and, where an endpoint is configured, the export of traces. Once per process, in a tokio
/// runtime.
///
/// # Errors
/// The level or the endpoint is malformed, or telemetry was started before.
pub fn init(service: &'static str, config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(&config.log_level)
        .map_err(|source| TelemetryError::Level { level: config.log_level.clone(), source })?;
    let provider = match config.otlp_endpoint.as_deref().filter(|e| !e.is_empty()) {
        None => None,
        Some(endpoint) => Some(provider(service, endpoint)?),
    };
    let export = provider.as_ref().map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer(service)));
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(export)
        .with(LogLayer::new(config.log_format, io::stderr))
        .try_init();
    started.map_err(TelemetryError::Started)?;
    if let Some(provider) = &provider {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        opentelemetry::global::set_tracer_provider(provider.clone());
        EXPORTS.store(true, Ordering::Relaxed);
    }
    Ok(TelemetryGuard { provider })
}

fn provider(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(FLUSH)
        .build()
        .map_err(|source| TelemetryError::Endpoint { endpoint: endpoint.to_owned(), source })?;
    Ok(SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(service).build())
        .with_batch_exporter(exporter)
        .build())
}

/// Whether spans go to a collector; without one, the code spares itself OpenTelemetry's work.
pub(crate) fn exports() -> bool {
    EXPORTS.load(Ordering::Relaxed)
}

impl TelemetryGuard {
    /// Sends the last spans, for at most a few seconds.
    pub async fn shutdown(mut self) {
        let provider = self.provider.take();
        let flushed = tokio::task::spawn_blocking(move || finish(provider)).await;
        if let Err(error) = flushed {
            tracing::warn!(%error, "cannot send the last spans");
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        finish(self.provider.take());
    }
}

fn finish(provider: Option<SdkTracerProvider>) {
    if let Some(provider) = provider {
        EXPORTS.store(false, Ordering::Relaxed);
        if let Err(error) = provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "cannot send the last spans");
        }
    }
}

#[cfg(test)]
mod tests;
