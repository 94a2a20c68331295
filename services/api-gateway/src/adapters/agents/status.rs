//! What an agent's refusal means to the core.

use std::error::Error;

use cloud_core::ports::BackendError;
use cloud_service_kit::{ServiceError, error::chain};
use tonic::{Code, Status};

pub(super) fn unreachable(agent: &str, why: &str) -> BackendError {
    BackendError::Unreachable(format!("{agent} {why}"))
}

pub(super) fn backend_error(agent: &str, status: &Status) -> BackendError {
    let reason = ServiceError::from_status(status).reason.clone();
    let message = status.message().to_owned();
    // A status that was made here, of an error of the connection, says nothing about the host.
    if let Some(source) = status.source() {
        return unreachable(agent, &format!("does not answer: {message}: {}", chain(source)));
    }
    match (status.code(), reason.as_ref()) {
        (_, "STALE_CALL" | "WRONG_SESSION" | "WRONG_CLOUD") => BackendError::Stale(message),
        (_, "DATA_MISSING") => BackendError::DataMissing(message),
        (Code::NotFound, _) => BackendError::NotFound(message),
        (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled, _) => {
            unreachable(agent, &format!("does not answer: {message}"))
        }
        (Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted, _) => BackendError::Precondition(message),
        (Code::InvalidArgument | Code::Unimplemented | Code::OutOfRange, _) => BackendError::Refused(message),
        (Code::ResourceExhausted, _) => BackendError::Exhausted(message),
        _ => BackendError::Failed(format!("{agent} failed: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_told_apart() {
        let of = |error: ServiceError| backend_error("the agent", &Status::from(error));
        assert!(matches!(of(ServiceError::not_found("volume", "v")), BackendError::NotFound(_)));
        assert!(matches!(
            of(ServiceError::not_found("volume", "v").with_reason("DATA_MISSING")),
            BackendError::DataMissing(_)
        ));
        assert!(matches!(of(ServiceError::failed_precondition("STALE_CALL", "old")), BackendError::Stale(_)));
        assert!(matches!(of(ServiceError::failed_precondition("OTHER", "no")), BackendError::Precondition(_)));
        assert!(matches!(of(ServiceError::invalid("x", "y")), BackendError::Refused(_)));
        assert!(matches!(of(ServiceError::resource_exhausted("pool", "full")), BackendError::Exhausted(_)));
        let away = of(ServiceError::unavailable("BACKEND", "libvirt is away"));
        assert_eq!(away, BackendError::Unreachable("the agent does not answer: libvirt is away".into()));
    }
}
