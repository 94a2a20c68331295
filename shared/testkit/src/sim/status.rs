//! The errors that agents answer with, as the contract names them.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of this cloud's error reasons.
const DOMAIN: &str = "thecloud";

/// An error with a reason that a program can act on.
pub(crate) fn with_reason(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let message = short(&message.into());
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new()))
}

/// The reason that an error carries; empty where it carries none.
#[must_use]
pub fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// What fits into headers, as all of an error must over gRPC.
fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

pub(crate) fn precondition(reason: &str, message: impl Into<String>) -> Status {
    with_reason(Code::FailedPrecondition, reason, message)
}

/// Another spec under the same id.
pub(crate) fn differs(what: &str, id: &str, field: &str, is: &impl ToString, wanted: &impl ToString) -> Status {
    let (is, wanted) = (is.to_string(), wanted.to_string());
    with_reason(
        Code::AlreadyExists,
        "SPEC_DIFFERS",
        format!("{what} {id} exists with another {field}: it is `{is}`, asked for is `{wanted}`"),
    )
}

pub(crate) fn missing(what: &str, id: &str) -> Status {
    Status::not_found(format!("there is no {what} {} on this host", short(id)))
}

pub(crate) fn invalid(field: &str, problem: impl std::fmt::Display) -> Status {
    let problem = short(&problem.to_string());
    let message = format!("{field} {problem}");
    Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request_violation(field, problem))
}
