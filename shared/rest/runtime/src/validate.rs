//! The validation of requests by what the contract says of their fields.
use std::{collections::HashMap, fmt, sync::LazyLock};

use regex::Regex;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    bounds::{self, short},
    failure::ERROR_DOMAIN,
};

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its path, such as `spec.nics[1].name`.
    pub field: String,
    /// Why, with the value and what to do.
    pub description: String,
}

/// A message whose contract says what its fields take; implemented by generated code.
pub trait Validate {
    /// Adds what is wrong in the message, which is at `at`.
    fn check(&self, at: &At<'_>, to: &mut Checker);

    /// What is wrong in a request.
    ///
    /// # Errors
    /// Every field that is wrong.
    fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut checker = Checker::default();
        self.check(&At::Root, &mut checker);
        if checker.violations.is_empty() { Ok(()) } else { Err(checker.violations) }
    }
}

impl<T: Validate> Validate for Box<T> {
    fn check(&self, at: &At<'_>, to: &mut Checker) {
        T::check(self, at, to);
    }
}

/// Validates a request.
///
/// # Errors
/// INVALID_ARGUMENT with every field that is wrong.
#[allow(clippy::result_large_err)] // tonic's own convention
pub fn check<M: Validate>(message: &M) -> Result<(), Status> {
    message.validate().map_err(invalid)
}

/// The error of wrong fields: INVALID_ARGUMENT with a `google.rpc.BadRequest` and an `ErrorInfo`.
#[must_use]
pub fn invalid(violations: Vec<Violation>) -> Status {
    let count = violations.len();
    let violations: Vec<_> = violations
        .into_iter()
        .take(bounds::VIOLATIONS)
        .map(|v| Violation {
            field: short(v.field, bounds::FACT),
            description: short(v.description, bounds::DESCRIPTION),
        })
        .collect();
    let shown = violations.iter().take(3).map(|v| format!("{}: {}", v.field, v.description));
    let mut message = shown.collect::<Vec<_>>().join("; ");
    if count > 3 {
        message += &format!("; and {} more", count - 3);
    }
    let violations = violations.into_iter().map(|v| FieldViolation::new(v.field, v.description)).collect::<Vec<_>>();
    let mut details = ErrorDetails::with_bad_request(violations);
    details.set_error_info("INVALID_ARGUMENT", ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Where a message is within its request. Kept on the stack, written only when something is wrong.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// The request itself.
    Root,
    /// A field.
    Field(&'a At<'a>, &'static str),
    /// An element of a repeated field.
    Item(&'a At<'a>, &'static str, usize),
    /// A value of a map.
    Key(&'a At<'a>, &'static str, &'a str),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (At::Field(up, _) | At::Item(up, _, _) | At::Key(up, _, _)) = self else { return Ok(()) };
        up.fmt(f)?;
        if !matches!(up, At::Root) {
            f.write_str(".")?;
        }
        match self {
            At::Root => Ok(()),
            At::Field(_, name) => f.write_str(name),
            At::Item(_, name, i) => write!(f, "{name}[{i}]"),
            At::Key(_, name, key) => write!(f, "{name}.{key}"),
        }
    }
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub struct Checker {
    violations: Vec<Violation>,
    partial: usize,
}

impl Checker {
    /// Adds a field that is wrong.
    pub fn add(&mut self, at: At<'_>, description: impl Into<String>) {
        self.violations.push(Violation { field: at.to_string(), description: description.into() });
    }

    /// A field that must be set.
    pub fn required(&mut self, at: At<'_>, set: bool) {
        if !set && self.partial == 0 {
            self.add(at, "must be set");
        }
    }

    /// A field that nothing enforces yet.
    pub fn not_built(&mut self, at: At<'_>, set: bool) {
        if set {
            self.add(at, "not supported yet: leave it out");
        }
    }

    /// A string: databases do not keep NUL, and nothing that is meant has it.
    pub fn text(&mut self, at: At<'_>, value: &str) {
        if value.contains('\0') {
            self.add(at, "has a NUL character");
        }
    }

    /// A number.
    pub fn number(&mut self, at: At<'_>, value: i128, min: Option<i64>, max: Option<i64>) {
        match (min, max) {
            (Some(min), _) if value < i128::from(min) => self.add(at, format!("{value} is less than {min}")),
            (_, Some(max)) if value > i128::from(max) => self.add(at, format!("{value} is more than {max}")),
            _ => {}
        }
    }

    /// The length of a string in characters, of bytes, or of a list.
    pub fn length(&mut self, at: At<'_>, unit: &str, length: usize, min: Option<u64>, max: Option<u64>) {
        let length = length as u64;
        match (min, max) {
            (Some(min), _) if length < min => self.add(at, format!("has {length} {unit}; at least {min} are needed")),
            (_, Some(max)) if length > max => self.add(at, format!("has {length} {unit}; at most {max} are allowed")),
            _ => {}
        }
    }

    /// A string that matches a pattern. A pattern that is not a regular expression (which a lint of the contracts rules
    /// out) matches nothing.
    pub fn pattern(&mut self, at: At<'_>, value: &str, regex: &LazyLock<Option<Regex>>, pattern: &str) {
        if !regex.as_ref().is_some_and(|regex| regex.is_match(value)) {
            let shown: String = value.chars().take(100).collect();
            self.add(at, format!("`{shown}` does not match {pattern}"));
        }
    }

    /// Checks a message of which a field mask names some fields: what is required may be missing.
    pub fn partial<M: Validate>(&mut self, message: &M, at: &At<'_>) {
        self.partial += 1;
        message.check(at, self);
        self.partial -= 1;
    }
}
