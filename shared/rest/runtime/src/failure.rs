//! Requests that cannot be read.
use std::collections::HashMap;

use http::StatusCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::validate::{Violation, invalid};

/// The domain of every reason in a `google.rpc.ErrorInfo` of this cloud.
pub const ERROR_DOMAIN: &str = "thecloud";

/// An error with a stable reason.
pub(crate) fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

/// The error of a method that is not built.
#[must_use]
pub fn not_built(method: &str) -> Status {
    status(Code::Unimplemented, "NOT_BUILT", format!("{method} is not built yet"))
}

/// Why a request could not be read: the error, and the HTTP status where it is not the error's own.
pub(crate) struct Failure {
    pub status: Box<Status>,
    pub code: Option<StatusCode>,
}

impl Failure {
    /// An error whose HTTP status gRPC has no code for.
    pub fn http(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Failure { status: Box::new(status(Code::InvalidArgument, reason, message)), code: Some(code) }
    }

    /// A request that is wrong as a whole.
    pub fn bad(message: impl Into<String>) -> Self {
        Failure { status: Box::new(status(Code::InvalidArgument, "INVALID_ARGUMENT", message)), code: None }
    }

    /// A field that is wrong.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        let violation = Violation { field: field.into(), description: description.into() };
        Failure { status: Box::new(invalid(vec![violation])), code: None }
    }
}
