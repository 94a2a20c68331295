//! The one place where the core's errors become errors on the wire.

use std::time::Duration;

use cloud_core::{CoreError, Kind, ports::BackendError};
use cloud_service_kit::{ServiceError, context, error::Code};
use tonic::Status;

/// The status of an error. Internal ones are logged here with their causes, and say nothing of them to the caller.
pub(crate) fn status(error: CoreError) -> Status {
    Status::from(service_error(error))
}

/// What a user sees of an error.
pub(crate) fn service_error(error: CoreError) -> ServiceError {
    let message = error.to_string();
    let plain = |code, reason: &'static str| ServiceError::new(code, reason, message.clone());
    match error {
        CoreError::NotFound { kind, name } => {
            plain(Code::NotFound, "NOT_FOUND").with_resource(kind.as_str(), short(&name))
        }
        CoreError::AlreadyExists { kind, name } => {
            plain(Code::AlreadyExists, "ALREADY_EXISTS").with_resource(kind.as_str(), name)
        }
        CoreError::RequestReused { id } => plain(Code::AlreadyExists, "REQUEST_ID_REUSED").with_resource("request", id),
        CoreError::Invalid { field, message } => ServiceError::invalid(field, message),
        CoreError::Precondition { reason, .. } => plain(Code::FailedPrecondition, reason),
        CoreError::StaleEtag { kind, name } => ServiceError::etag_mismatch(kind.as_str(), name),
        CoreError::Exhausted { reason, message } => {
            let subject = if reason == "NO_HOST" { Kind::Host.as_str() } else { reason };
            ServiceError::new(Code::ResourceExhausted, reason, message.clone()).with_quota_violation(subject, message)
        }
        CoreError::QuotaExceeded { project, shortages } => {
            let exceeded = plain(Code::ResourceExhausted, "QUOTA_EXCEEDED").with_metadata("project", &project);
            shortages.iter().fold(exceeded, |error, short| {
                error.with_quota_violation(format!("project:{project}/{}", short.of.as_str()), short.to_string())
            })
        }
        CoreError::Denied(_) => plain(Code::PermissionDenied, "PERMISSION_DENIED"),
        CoreError::Unauthenticated(_) => plain(Code::Unauthenticated, "UNAUTHENTICATED"),
        CoreError::Deadline(_) => plain(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        CoreError::CannotResume(message) => ServiceError::out_of_range("CANNOT_RESUME", message),
        CoreError::TooSlow => plain(Code::Aborted, "TOO_SLOW"),
        CoreError::Unavailable { message } => ServiceError::unavailable("UNAVAILABLE", message),
        CoreError::Internal(source) => ServiceError::internal(source),
    }
}

/// What a user sees when an agent did not do what a call needed at once (a console).
#[allow(clippy::needless_pass_by_value)] // it is what map_err gives
pub(crate) fn backend(error: BackendError) -> Status {
    let message = error.to_string();
    Status::from(match error {
        // What was bounded by the caller's own deadline says nothing of the host.
        BackendError::Unreachable(_) if hurried() => ServiceError::deadline_exceeded(message),
        BackendError::Unreachable(_) => ServiceError::unavailable("HOST_UNREACHABLE", message),
        BackendError::Stale(_) => {
            ServiceError::unavailable("HOST_RESTARTED", message).with_retry_after(Duration::from_secs(1))
        }
        BackendError::NotFound(_) | BackendError::Precondition(_) => {
            ServiceError::failed_precondition("NO_CONSOLE", message)
        }
        BackendError::Exhausted(_) => ServiceError::resource_exhausted("host", message),
        BackendError::DataMissing(_) | BackendError::Refused(_) | BackendError::Failed(_) => {
            ServiceError::internal(message)
        }
    })
}

/// The request being served has no time left: less than what a timeout loses when it is written for the next call.
fn hurried() -> bool {
    context::current().and_then(|c| c.remaining()).is_some_and(|left| left <= Duration::from_millis(1))
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
