//! Requests that cannot be read.
use http::StatusCode;
use tonic::Status;

use crate::validate::{Violation, invalid};

/// Why a request could not be read: the error, and the HTTP status where it is not the error's own.
pub(crate) struct Failure {
    pub status: Box<Status>,
    pub code: Option<StatusCode>,
}

impl Failure {
    /// An error whose HTTP status gRPC has no code for.
    pub fn http(code: StatusCode, status: Status) -> Self {
        Failure { status: Box::new(status), code: Some(code) }
    }

    /// A request that is wrong as a whole.
    pub fn bad(message: impl Into<String>) -> Self {
        Failure { status: Box::new(Status::invalid_argument(message)), code: None }
    }

    /// A field that is wrong.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        let violation = Violation { field: field.into(), description: description.into() };
        Failure { status: Box::new(invalid(vec![violation])), code: None }
    }
}
