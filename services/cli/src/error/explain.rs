//! The words for a refusal of the gateway: its message, what its google.rpc details add, and what to do.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::output::human;

/// The gateway's message, with what it is about where the message does not say so itself.
pub fn headline(subject: &str, status: &Status) -> String {
    let message = match status.message() {
        _ if is_own_deadline(status) => "the gateway did not answer in time",
        "" => words(status.code()),
        message => message,
    };
    let name = subject.rsplit(' ').next().unwrap_or(subject);
    if name.is_empty() || message.contains(name) { message.to_owned() } else { format!("{subject}: {message}") }
}

/// One line for each thing that the details and the code add to the message.
pub fn details(subject: &str, status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let mut lines = from_details(status.message(), &details);
    lines.extend(advice(subject, status, &details));
    if matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable) {
        let id = status.metadata().get("x-request-id").and_then(|value| value.to_str().ok());
        lines.extend(id.map(|id| format!("request id: {id} (the gateway's log says more)")));
    }
    lines
}

/// tonic ends a call whose deadline has passed with CANCELLED and these words.
pub fn is_own_deadline(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == "Timeout expired"
}

fn from_details(message: &str, details: &ErrorDetails) -> Vec<String> {
    let mut lines = Vec::new();
    for violation in details.bad_request().iter().flat_map(|request| &request.field_violations) {
        if !message.contains(&violation.description) {
            lines.push(format!("{}: {}", option(&violation.field), violation.description));
        } else if !message.contains(&violation.field) {
            lines.push(format!("in {}", option(&violation.field)));
        }
    }
    for violation in details.precondition_failure().iter().flat_map(|failure| &failure.violations) {
        if !message.contains(&violation.description) {
            lines.push(format!("{}: {}", violation.subject, violation.description));
        }
    }
    for violation in details.quota_failure().iter().flat_map(|failure| &failure.violations) {
        if !message.contains(&violation.description) {
            lines.push(format!("{}: {}", violation.subject, violation.description));
        }
    }
    if let Some(resource) = details.resource_info()
        && !message.contains(&resource.resource_name)
    {
        lines.push(format!("{}: {}", kind(&resource.resource_type), resource.resource_name));
    }
    for link in details.help().iter().flat_map(|help| &help.links) {
        lines.push(format!("{}: {}", link.description, link.url));
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        lines.push(format!("try again in {}", human::span(delay)));
    }
    lines
}

fn advice(subject: &str, status: &Status, details: &ErrorDetails) -> Option<String> {
    let text = match status.code() {
        Code::NotFound => {
            let kind = details.resource_info().map(|info| kind(&info.resource_type));
            let noun = noun(kind.as_deref().or_else(|| subject.split_once(' ').map(|(kind, _)| kind))?)?;
            format!("`cloud {noun} ls` shows what there is; --project names another project")
        }
        Code::AlreadyExists => "choose another name, or remove the one that has it".to_owned(),
        Code::Aborted => "it changed meanwhile: look at it again, then repeat".to_owned(),
        Code::Unauthenticated => {
            "the gateway does not know this API key: check --api-key-file (CLOUD_API_KEY_FILE, CLOUD_API_KEY)"
                .to_owned()
        }
        Code::PermissionDenied => "this API key may not do that: use another, or ask an operator".to_owned(),
        Code::Unavailable => "the gateway or what it needs is down for the moment: try again".to_owned(),
        Code::DeadlineExceeded => "the work goes on; --wait waits for its end".to_owned(),
        Code::Unimplemented => "this gateway does not offer it (yet)".to_owned(),
        _ => return None,
    };
    Some(text)
}

/// The option of this command that sets a field of a request.
fn option(field: &str) -> String {
    let first = field.split(['.', '[']).next().unwrap_or(field);
    let name = match first {
        "id" => return "NAME".to_owned(),
        "instance_type" => "type",
        "volumes" => "volume",
        "snapshots" => "snapshot",
        "ssh_keys" => "ssh-key",
        "user_data" => "user-data",
        "labels" => "label",
        "root_disk_gib" => "root-disk",
        "size_gib" => "size",
        "dns_servers" => "dns",
        "page_size" => "limit",
        "page_token" => "page-token",
        "resource_id" => "resource",
        "show_deleted" => "show-deleted",
        "expires_at" => "expires",
        "overlap_seconds" => "overlap",
        "limits" => return "RESOURCE=LIMIT".to_owned(),
        "name" | "image" | "vpc" | "subnet" | "cidr" | "url" | "sha256" | "format" | "visibility" | "kind" | "role" => {
            first
        }
        _ => return field.to_owned(),
    };
    format!("--{name}")
}

/// `instance` for `instance`, `cloud.v1.Instance` and `cloud/Instance`.
fn kind(resource_type: &str) -> String {
    let last = resource_type.rsplit(['.', '/']).next().unwrap_or(resource_type);
    last.to_ascii_lowercase()
}

/// The noun on this command line for a kind of resource.
fn noun(kind: &str) -> Option<&str> {
    match kind {
        "instance_type" | "instancetype" | "instance-type" => Some("type"),
        "api key" | "api-key" => Some("api-key"),
        "instance" | "volume" | "snapshot" | "image" | "vpc" | "subnet" | "port" | "host" | "project" | "type" => {
            Some(kind)
        }
        _ => None,
    }
}

fn words(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "not authenticated",
        Code::PermissionDenied => "not allowed",
        Code::NotFound => "not found",
        Code::Unimplemented => "not offered by this gateway",
        Code::Unavailable => "not available",
        _ => code.description(),
    }
}
