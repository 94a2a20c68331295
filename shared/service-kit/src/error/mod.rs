//! Errors on the wire: the one type that handlers answer with, and the one place where it becomes a gRPC status (`status`) or a
//! REST body (`rest`).

mod rest;
mod status;

use std::{borrow::Cow, collections::BTreeMap, error::Error, fmt, ops, time::Duration};

pub use rest::{http_status, rest_error_body};
pub use status::code_name as status_name;
pub use tonic::Code;

/// The domain of every `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "thecloud";

/// The reason of an ABORTED that a stale etag caused; REST answers 412.
pub const ETAG_MISMATCH: &str = "ETAG_MISMATCH";

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path, such as `spec.nics[1].subnet`.
    pub field: String,
    /// What is wrong, with which value, and what to do.
    pub description: String,
}

/// The resource that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceInfo {
    /// The kind, such as `instance`.
    pub kind: String,
    /// The id or name as the caller gave it.
    pub name: String,
}

/// A quota or capacity that does not suffice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaViolation {
    /// What is limited, such as `project:default/vcpus`.
    pub subject: String,
    /// The limit, what is used and what was asked for.
    pub description: String,
}

/// An error as a client sees it, plus its cause, which only the log sees. Small to move: the parts are boxed and reached by
/// dereferencing (`error.code`).
pub struct ServiceError(Box<ErrorParts>);

/// The parts of a [`ServiceError`].
pub struct ErrorParts {
    /// The gRPC code.
    pub code: Code,
    /// Stable, `UPPER_SNAKE`: what programs match on.
    pub reason: Cow<'static, str>,
    /// For people: what was wrong, with which value, and what to do.
    pub message: String,
    /// Fields that are wrong (INVALID_ARGUMENT).
    pub violations: Vec<FieldViolation>,
    /// The resource that is missing, taken or in the wrong state.
    pub resource: Option<ResourceInfo>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Limits that were hit (RESOURCE_EXHAUSTED).
    pub quota: Vec<QuotaViolation>,
    /// More facts for programs, in `ErrorInfo.metadata`.
    pub metadata: BTreeMap<String, String>,
    /// The cause. Never shown to a client; logged once, when the error becomes a status.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl ServiceError {
    /// An error without details.
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorParts {
            code,
            reason: reason.into(),
            message: message.into(),
            violations: Vec::new(),
            resource: None,
            retry_after: None,
            quota: Vec::new(),
            metadata: BTreeMap::new(),
            source: None,
        }))
    }

    /// There is no such resource, or the caller may not see it.
    pub fn not_found(kind: &str, name: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, "NOT_FOUND", format!("{kind} `{name}` does not exist")).with_resource(kind, name)
    }

    /// The name or id is taken.
    pub fn already_exists(kind: &str, name: impl fmt::Display) -> Self {
        let message = format!("{kind} `{name}` exists already: choose another name, or delete it first");
        Self::new(Code::AlreadyExists, "ALREADY_EXISTS", message).with_resource(kind, name)
    }

    /// One field of the request is wrong. More are added by [`Self::with_violation`].
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        Self::new(Code::InvalidArgument, "INVALID_ARGUMENT", format!("{field}: {description}"))
            .with_violation(field, description)
    }

    /// The resource's state does not allow it.
    pub fn failed_precondition(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, reason, message)
    }

    /// The etag is not the resource's current one (412 in REST).
    pub fn etag_mismatch(kind: &str, name: impl fmt::Display) -> Self {
        let message =
            format!("{kind} `{name}` was changed meanwhile: read it again and repeat the change with its new etag");
        Self::new(Code::Aborted, ETAG_MISMATCH, message).with_resource(kind, name)
    }

    /// A concurrent change won; the caller may repeat the whole operation.
    pub fn aborted(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::Aborted, reason, message)
    }

    /// Something this depends on is away for now; the same call may be repeated.
    pub fn unavailable(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, reason, message).with_retry_after(Duration::from_secs(1))
    }

    /// A quota or a capacity does not suffice.
    pub fn resource_exhausted(subject: impl Into<String>, description: impl Into<String>) -> Self {
        let description = description.into();
        Self::new(Code::ResourceExhausted, "QUOTA_EXCEEDED", description.clone())
            .with_quota_violation(subject, description)
    }

    /// No valid credentials came with the request.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Code::Unauthenticated, "UNAUTHENTICATED", message)
    }

    /// The caller may see the resource, and may not do this.
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, "PERMISSION_DENIED", message)
    }

    /// Not built yet.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, "UNIMPLEMENTED", message)
    }

    /// A token or revision that is too old or of another database.
    pub fn out_of_range(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::OutOfRange, reason, message)
    }

    /// The deadline passed. `message` says what goes on without the caller.
    pub fn deadline_exceeded(message: impl Into<String>) -> Self {
        Self::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message)
    }

    /// A fault of this program or its machine. The client sees nothing of `source`; the log has it with the request's id.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let message = "an internal error: the logs have the cause under this response's x-request-id";
        Self::new(Code::Internal, "INTERNAL", message).with_source(source)
    }

    /// Adds what is wrong with another field.
    #[must_use]
    pub fn with_violation(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations.push(FieldViolation { field: field.into(), description: description.into() });
        self
    }

    /// Names the resource.
    #[must_use]
    pub fn with_resource(mut self, kind: impl Into<String>, name: impl fmt::Display) -> Self {
        self.resource = Some(ResourceInfo { kind: kind.into(), name: name.to_string() });
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds a limit that was hit.
    #[must_use]
    pub fn with_quota_violation(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.quota.push(QuotaViolation { subject: subject.into(), description: description.into() });
        self
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// Replaces the reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Adds the cause, for the log only.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl ops::Deref for ServiceError {
    type Target = ErrorParts;

    fn deref(&self) -> &ErrorParts {
        &self.0
    }
}

impl ops::DerefMut for ServiceError {
    fn deref_mut(&mut self) -> &mut ErrorParts {
        &mut self.0
    }
}

impl fmt::Debug for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceError")
            .field("code", &self.code)
            .field("reason", &self.reason)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// An error and its causes on one line, outermost first, for logs.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
