//! What the tests say often.

use cloud_testkit::rest::Answer;
use serde_json::Value;

/// The fields that a refusal names.
pub fn named_fields(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let details = body.pointer("/error/details").and_then(Value::as_array).cloned().unwrap_or_default();
    let violations = details.iter().filter_map(|d| d["field_violations"].as_array()).flatten();
    violations.filter_map(|v| v["field"].as_str().map(str::to_owned)).collect()
}

/// Sees that a call was refused with this status, HTTP and google.rpc, in the shape of every error.
#[track_caller]
pub fn refused(answer: &Answer, http: u16, status: &str) {
    let text = answer.text();
    assert_eq!(answer.status.as_u16(), http, "{text}");
    assert_eq!(answer.at("/error/status"), status, "{text}");
    assert_eq!(answer.json()["error"]["code"], http, "{text}");
    assert!(!answer.at("/error/message").is_empty(), "{text}");
}

/// [`refused`] as INVALID_ARGUMENT that names this field.
#[track_caller]
pub fn refused_field(answer: &Answer, field: &str) {
    refused(answer, 400, "INVALID_ARGUMENT");
    let fields = named_fields(answer);
    assert!(fields.iter().any(|f| f == field), "`{field}` is not among {fields:?}: {}", answer.text());
}

/// The names in a list such as `instances`.
pub fn names(list: &Value, key: &str) -> Vec<String> {
    let rows = list[key].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|r| r["name"].as_str().map(str::to_owned)).collect()
}

/// A string field; empty where there is none.
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
