//! Tower layers of every server and every client of this project.
//!
//! Around a router, from the outside in: [`trace_layer`] (request id, span, metrics, end of idle streams at shutdown), then
//! [`deadline_layer`] (`grpc-timeout`, `Request-Timeout`). Both see REST and gRPC alike, unlike interceptors, which do not run for
//! calls made in process. [`apply`] sets both.

mod client;
mod deadline;
mod trace;

use axum::Router;

pub use client::{ClientContext, ClientContextLayer, NoDeadline};
pub use deadline::{DeadlineLayer, DeadlineService, deadline_layer};
pub use trace::{TraceLayer, TraceService, trace_layer};

use crate::metrics::Metrics;

/// Sets the layers of every server on a router that has all its routes and fallbacks. Layers that must see the request's id and
/// context (authentication, limits) are set before, so that they are inside; a gRPC-Web layer is set after, so that it is outside.
pub fn apply(router: Router, metrics: &Metrics) -> Router {
    router.layer(deadline_layer()).layer(trace_layer(metrics))
}
