//! [`ServiceError`] to and from a gRPC status with google.rpc details.

use std::collections::HashMap;

use cloud_rest::bounds::{self, short};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{ERROR_DOMAIN, FieldViolation, QuotaViolation, ResourceInfo, ServiceError, chain};

impl From<ServiceError> for Status {
    /// Also logs the cause, where there is one: this is the one place that does. What is too long for headers is cut (see [`bounds`]).
    fn from(error: ServiceError) -> Self {
        if let Some(source) = &error.source {
            let cause = chain(source.as_ref());
            match error.code {
                Code::Internal | Code::Unknown | Code::DataLoss => {
                    tracing::error!(code = ?error.code, reason = %error.reason, cause, "{}", error.message);
                }
                _ => tracing::warn!(code = ?error.code, reason = %error.reason, cause, "{}", error.message),
            }
        }
        let parts = *error.0;
        let metadata: HashMap<_, _> =
            parts.metadata.into_iter().map(|(key, value)| (key, short(value, bounds::FACT))).collect();
        let mut details = ErrorDetails::with_error_info(parts.reason, ERROR_DOMAIN, metadata);
        for violation in parts.violations.into_iter().take(bounds::VIOLATIONS) {
            details.add_bad_request_violation(
                short(violation.field, bounds::FACT),
                short(violation.description, bounds::DESCRIPTION),
            );
        }
        if let Some(resource) = parts.resource {
            let (kind, name) = (short(resource.kind, bounds::FACT), short(resource.name, bounds::FACT));
            details.set_resource_info(kind, name, "", "");
        }
        for violation in parts.quota.into_iter().take(bounds::VIOLATIONS) {
            details.add_quota_failure_violation(
                short(violation.subject, bounds::FACT),
                short(violation.description, bounds::DESCRIPTION),
            );
        }
        if parts.retry_after.is_some() {
            details.set_retry_info(parts.retry_after);
        }
        Self::with_error_details(parts.code, short(parts.message, bounds::MESSAGE), details)
    }
}

impl ServiceError {
    /// Reads a status that another daemon answered. A status without an `ErrorInfo` gets its code's name as the reason.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let mut error = Self::new(status.code(), code_name(status.code()), status.message());
        if let Some(info) = details.error_info() {
            error.reason = info.reason.clone().into();
            error.metadata = info.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        }
        if let Some(bad) = details.bad_request() {
            error.violations = bad
                .field_violations
                .iter()
                .map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() })
                .collect();
        }
        if let Some(resource) = details.resource_info() {
            error.resource =
                Some(ResourceInfo { kind: resource.resource_type.clone(), name: resource.resource_name.clone() });
        }
        if let Some(quota) = details.quota_failure() {
            error.quota = quota
                .violations
                .iter()
                .map(|v| QuotaViolation { subject: v.subject.clone(), description: v.description.clone() })
                .collect();
        }
        error.retry_after = details.retry_info().and_then(|r| r.retry_delay);
        error
    }
}

/// A code as the gRPC specification writes it.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
