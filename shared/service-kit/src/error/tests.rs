use std::time::Duration;

use tonic::{Code, Status};

use super::*;

fn full() -> ServiceError {
    ServiceError::invalid("name", "`Web` has upper-case letters: use a-z")
        .with_violation("vcpus", "0 is too few: at least 1")
        .with_resource("instance", "Web")
        .with_retry_after(Duration::from_millis(1500))
        .with_quota_violation("project:default/vcpus", "8 of 8 used, 2 asked for")
        .with_metadata("limit", 8)
        .with_reason("BAD_NAME")
}

#[test]
fn a_status_carries_every_detail_and_gives_it_back() {
    let error = ServiceError::from_status(&Status::from(full()));
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(error.reason, "BAD_NAME");
    assert_eq!(error.message, full().message);
    assert_eq!(error.violations, full().violations);
    assert_eq!(error.resource, full().resource);
    assert_eq!(error.retry_after, full().retry_after);
    assert_eq!(error.quota, full().quota);
    assert_eq!(error.metadata, full().metadata);
}

#[test]
fn a_plain_status_gets_its_codes_name_as_reason() {
    let error = ServiceError::from_status(&Status::unavailable("away"));
    assert_eq!((error.code, error.reason.as_ref(), error.message.as_str()), (Code::Unavailable, "UNAVAILABLE", "away"));
}

#[test]
fn the_cause_is_never_shown() {
    let status = Status::from(ServiceError::internal(std::io::Error::other("secret path")));
    assert_eq!(status.code(), Code::Internal);
    let (_, body) = rest_error_body(&status);
    assert!(!format!("{status:?}{body}").contains("secret"));
    let error = ServiceError::internal(std::io::Error::other("disk"));
    assert_eq!(chain(&error), format!("{error}: disk"));
}

#[test]
fn codes_become_the_http_statuses_of_google_rpc() {
    for (code, http) in [
        (Code::InvalidArgument, 400),
        (Code::FailedPrecondition, 400),
        (Code::OutOfRange, 400),
        (Code::Unauthenticated, 401),
        (Code::PermissionDenied, 403),
        (Code::NotFound, 404),
        (Code::Aborted, 409),
        (Code::AlreadyExists, 409),
        (Code::ResourceExhausted, 429),
        (Code::Cancelled, 499),
        (Code::Internal, 500),
        (Code::Unimplemented, 501),
        (Code::Unavailable, 503),
        (Code::DeadlineExceeded, 504),
    ] {
        assert_eq!(http_status(code).as_u16(), http, "{code:?}");
        assert_eq!(rest_error_body(&Status::new(code, "x")).0.as_u16(), http, "{code:?}");
    }
}

#[test]
fn a_stale_etag_is_412_and_another_conflict_is_409() {
    let stale = Status::from(ServiceError::etag_mismatch("volume", "data"));
    assert_eq!(rest_error_body(&stale).0.as_u16(), 412);
    let other = Status::from(ServiceError::aborted("CONFLICT", "again"));
    assert_eq!(rest_error_body(&other).0.as_u16(), 409);
}

#[test]
fn the_rest_body_is_as_documented() {
    let (_, body) = rest_error_body(&Status::from(full()));
    insta::assert_json_snapshot!(body);
}

#[test]
fn rest_answers_carry_the_headers_that_clients_act_on() {
    let response = crate::service::error_response(false, full());
    assert_eq!(response.headers()["retry-after"], "2");
    let response = crate::service::error_response(false, ServiceError::unauthenticated("no key"));
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
}

#[test]
fn an_error_that_quotes_a_book_fits_into_headers() {
    let book = "é".repeat(40_000);
    let mut error = ServiceError::invalid(&*book, &*book).with_resource(&*book, &book).with_metadata("k", &book);
    for _ in 0..500 {
        error = error.with_violation(&*book, &*book).with_quota_violation(&*book, &*book);
    }
    let status = Status::from(error);
    let headers = status.into_http::<()>().headers().clone();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(bytes < 12 << 10, "{bytes} bytes of headers");
    // Far from everything was cut.
    assert!(bytes > 4 << 10, "{bytes} bytes of headers");
}
