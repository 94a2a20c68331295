//! A gRPC status as a REST answer.

use http::StatusCode;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetail, StatusExt};

use super::{ETAG_MISMATCH, status::code_name};

/// The HTTP status of a gRPC code, as google.rpc.Code says. A stale etag is 412 instead of 409; see [`rest_error_body`].
#[must_use]
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The REST form of a status: the HTTP status and `{"error":{"code","status","message","details"}}`, each detail an object with
/// `@type`.
#[must_use]
pub fn rest_error_body(status: &Status) -> (StatusCode, Value) {
    let details = status.get_error_details_vec();
    let stale = details.iter().any(|d| matches!(d, ErrorDetail::ErrorInfo(info) if info.reason == ETAG_MISMATCH));
    let http = match status.code() {
        Code::Aborted if stale => StatusCode::PRECONDITION_FAILED,
        code => http_status(code),
    };
    let details: Vec<_> = details.iter().filter_map(detail).collect();
    let body = json!({"error": {
        "code": http.as_u16(),
        "status": code_name(status.code()),
        "message": status.message(),
        "details": details,
    }});
    (http, body)
}

/// One of the google.rpc messages that this API uses; others have no JSON form here.
fn detail(detail: &ErrorDetail) -> Option<Value> {
    Some(match detail {
        ErrorDetail::ErrorInfo(info) => json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": info.reason, "domain": info.domain, "metadata": info.metadata,
        }),
        ErrorDetail::BadRequest(bad) => {
            let violations: Vec<_> =
                bad.field_violations.iter().map(|v| json!({"field": v.field, "description": v.description})).collect();
            json!({"@type": "type.googleapis.com/google.rpc.BadRequest", "field_violations": violations})
        }
        ErrorDetail::ResourceInfo(info) => json!({
            "@type": "type.googleapis.com/google.rpc.ResourceInfo",
            "resource_type": info.resource_type, "resource_name": info.resource_name,
        }),
        ErrorDetail::RetryInfo(info) => json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retry_delay": info.retry_delay.map(|d| format!("{}s", d.as_secs_f64())),
        }),
        ErrorDetail::QuotaFailure(quota) => {
            let violations: Vec<_> =
                quota.violations.iter().map(|v| json!({"subject": v.subject, "description": v.description})).collect();
            json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations})
        }
        _ => return None,
    })
}
