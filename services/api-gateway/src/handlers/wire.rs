//! What all handlers translate alike.

use cloud_contracts::v1;
use cloud_core::{
    CoreError,
    model::{Caller, Timestamp},
};
use cloud_service_kit::ServiceError;
use tonic::{Request, Status};

/// Who calls, as the authentication layer found out.
#[allow(clippy::result_large_err)] // tonic's own convention
pub(crate) fn caller<M>(request: &Request<M>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(unknown_caller)
}

/// The error of a call by nobody.
pub(crate) fn unknown_caller() -> Status {
    ServiceError::unauthenticated("send an API key: `Authorization: Bearer <key>`").into()
}

/// A moment on the wire.
pub(crate) fn time(at: Timestamp) -> Option<prost_types::Timestamp> {
    let nanos = i32::try_from(at.0.rem_euclid(1_000_000)).unwrap_or(0) * 1000;
    Some(prost_types::Timestamp { seconds: at.0.div_euclid(1_000_000), nanos })
}

/// A moment from the wire.
pub(crate) fn moment(at: prost_types::Timestamp, field: &'static str) -> Result<Timestamp, CoreError> {
    let micros = at.seconds.checked_mul(1_000_000).and_then(|s| s.checked_add(i64::from(at.nanos / 1000)));
    micros.map(Timestamp).ok_or_else(|| CoreError::invalid(field, "is out of range"))
}

/// A list request's page: a size that validation found not to be negative, a token, a filter and an order.
macro_rules! page_of {
    ($request:expr) => {
        cloud_core::services::PageRequest {
            show_deleted: $request.show_deleted,
            ..$crate::handlers::wire::page_of!($request, live)
        }
    };
    ($request:expr, live) => {
        cloud_core::services::PageRequest {
            size: u32::try_from($request.page_size).unwrap_or(0),
            token: $request.page_token,
            show_deleted: false,
            filter: $request.filter,
            order_by: $request.order_by,
        }
    };
}
pub(crate) use page_of;

/// A byte count where the contract has a signed one.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A count where the contract has 32 bits.
pub(crate) fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A status of an instance on the wire.
pub(crate) fn instance_status(status: cloud_domain::InstanceStatus) -> v1::instance::Status {
    use cloud_domain::InstanceStatus as Domain;
    use v1::instance::Status as Wire;
    match status {
        Domain::Starting => Wire::Starting,
        Domain::Running => Wire::Running,
        Domain::Stopping => Wire::Stopping,
        Domain::Stopped => Wire::Stopped,
        Domain::Paused => Wire::Paused,
        Domain::Error => Wire::Error,
        Domain::Deleting => Wire::Deleting,
        Domain::Deleted => Wire::Deleted,
    }
}
