use std::time::Duration;

use tonic_types::{ErrorDetails, StatusExt};

use super::*;

fn refused(subject: &str, status: Status) -> Error {
    Error::refused(subject)(status)
}

#[test]
fn every_code_has_its_exit_code() {
    let codes: Vec<String> = (0..=16)
        .map(Code::from)
        .map(|code| format!("{code:?} {}", refused("", Status::new(code, "")).exit_code()))
        .collect();
    insta::assert_snapshot!(codes.join("\n"));
}

#[test]
fn field_violations_are_told_as_options() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("instance_type", "there is no type `huge`");
    details.add_bad_request_violation("volumes[1].volume", "is IN_USE");
    let status = Status::with_error_details(Code::InvalidArgument, "2 fields are wrong", details);
    insta::assert_snapshot!(refused("instance db-01", status).text());
}

#[test]
fn what_the_message_says_is_not_said_twice() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("name", "must start with a letter");
    let status = Status::with_error_details(Code::InvalidArgument, "name: must start with a letter", details);
    insta::assert_snapshot!(refused("instance 1st", status).text());
}

#[test]
fn not_found_says_where_to_look() {
    let mut details = ErrorDetails::new();
    details.set_resource_info("image", "tiny", "", "");
    let status = Status::with_error_details(Code::NotFound, "image `tiny` not found", details);
    insta::assert_snapshot!(refused("instance db-01", status).text());
}

#[test]
fn internal_errors_carry_the_request_id() {
    let mut status = Status::internal("internal error");
    status.metadata_mut().insert("x-request-id", "r-1".parse().unwrap());
    insta::assert_snapshot!(refused("volume v", status).text());
}

#[test]
fn retry_and_preconditions_are_told() {
    let mut details = ErrorDetails::new();
    details.add_precondition_failure_violation("STATE", "volume data", "is attached to db-01");
    details.set_retry_info(Some(Duration::from_secs(5)));
    let status = Status::with_error_details(Code::FailedPrecondition, "volume `data` is in use", details);
    insta::assert_snapshot!(refused("volume data", status).text());
}

#[test]
fn escape_sequences_do_not_reach_the_terminal() {
    let text = refused("instance a", Status::internal("a\u{1b}[2Jb\nc")).text();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(text.lines().count(), 1, "{text:?}");
}

#[test]
fn local_errors() {
    let texts = [
        Error::NoKey { searched: vec!["/etc/x: gone".into()] },
        Error::BadKey { source_name: "CLOUD_API_KEY".into(), problem: "is empty" },
        Error::Unreachable { endpoint: "http://127.0.0.1:8080".into(), local: true, source: "refused".into() },
        Error::Unreachable { endpoint: "https://c.example".into(), local: false, source: "no route".into() },
        Error::Failed {
            subject: "instance db-01".into(),
            status: "ERROR".into(),
            wanted: "RUNNING",
            reason: "no host has room".into(),
        },
        Error::Late {
            subject: "instance db-01".into(),
            status: "STARTING".into(),
            reason: String::new(),
            waited: Duration::from_secs(90),
        },
    ];
    let all: Vec<String> = texts.iter().map(|error| format!("{}exit {}\n", error.text(), error.exit_code())).collect();
    insta::assert_snapshot!(all.join("\n"));
}
