//! What all handlers translate alike.

use cloud_contracts::v1;
use cloud_core::{
    CoreError,
    model::{Caller, Timestamp},
    services::PageRequest,
};
use cloud_service_kit::ServiceError;
use tonic::{Request, Status};

/// Who calls, as the authentication layer found out.
#[allow(clippy::result_large_err)] // tonic's own convention
pub(crate) fn caller<M>(request: &Request<M>) -> Result<Caller, Status> {
    let found = request.extensions().get::<Caller>().cloned();
    found.ok_or_else(|| ServiceError::unauthenticated("send an API key: `Authorization: Bearer <key>`").into())
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

/// Which page.
pub(crate) fn page(size: i32, token: String, show_deleted: bool) -> PageRequest {
    // Validated before: not negative.
    PageRequest { size: u32::try_from(size).unwrap_or(0), token, show_deleted }
}

/// A list request's page.
macro_rules! page_of {
    ($request:expr) => {
        $crate::handlers::wire::page($request.page_size, $request.page_token, $request.show_deleted)
    };
    ($request:expr, live) => {
        $crate::handlers::wire::page($request.page_size, $request.page_token, false)
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
