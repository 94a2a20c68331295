//! Serves a tonic service over REST, in process: the runtime of the code that `cloud-rest-build` generates.
//!
//! # Theory of operation
//!
//! A generated router holds one [`Binding`] per route, which says in data where a request's fields come from: the path,
//! the query, the body, headers. [`unary`] and [`server_stream`] read a request by it, call the same tonic trait that
//! gRPC calls, and write the answer. The request's extensions and headers become the tonic request's
//! extensions and metadata, so what tower layers put there (an authenticated principal, a deadline) is seen by a
//! handler alike over REST and gRPC; the response's metadata become headers.
//!
//! Input that is right costs one pass of serde. Only when it is wrong is it read again to name the field.
//!
//! Every failure is a [`tonic::Status`] that [`Config::render`] turns into a response, so that a wrong body, an unknown
//! route and a handler's own error look the same. The one exception is the HTTP status where gRPC has no code for it
//! (405, 408, 413, 415).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod binding;
mod body;
pub mod bounds;
mod call;
mod config;
mod decode;
mod failure;
mod fallback;
mod once;
mod query;
mod respond;
mod sse;
mod subject;
mod validate;

pub use binding::{Binding, Body, HeaderField, Param, QueryField, QueryKind};
pub use call::{server_stream, unary};
pub use config::{Config, Render};
pub use failure::{ERROR_DOMAIN, not_built};
pub use fallback::with_fallbacks;
pub use once::{Begun, Call, IDEMPOTENCY_KEY, Pending, REPLAYED, Repeat, Requests, not_replayed, once};
pub use respond::{RpcMethod, error_response};
pub use sse::EventFields;
pub use subject::Subject;
pub use validate::{At, Checker, Validate, Violation, check, invalid};
