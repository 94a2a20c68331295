use super::*;

fn metadata(header: Option<&str>) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    if let Some(value) = header {
        metadata.insert(IDEMPOTENCY_KEY, value.parse().unwrap());
    }
    metadata
}

#[test]
fn an_id_comes_from_its_field_or_its_header() {
    let of = |field: &str, header: Option<&str>| id(field, &metadata(header)).unwrap();
    assert_eq!(of("", None), None);
    assert_eq!(of("a b~", None).as_deref(), Some("a b~"));
    assert_eq!(of("", Some("x")).as_deref(), Some("x"));
    assert_eq!(of("x", Some("x")).as_deref(), Some("x"));
    assert_eq!(of(&"x".repeat(64), None).map(|id| id.len()), Some(64));
}

#[test]
fn what_is_no_id_is_refused_by_name() {
    let long = "x".repeat(65);
    for (field, header, named) in [
        ("a", Some("b"), "request_id"),
        (long.as_str(), None, "request_id"),
        ("a\n", None, "request_id"),
        ("ä", None, "request_id"),
        ("", Some(""), "Idempotency-Key"),
        ("", Some(long.as_str()), "Idempotency-Key"),
    ] {
        let status = id(field, &metadata(header)).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_details_bad_request().unwrap();
        assert_eq!(details.field_violations[0].field, named, "{field:?} {header:?}");
    }
}

#[test]
fn a_secret_is_not_shown_again_and_that_is_said() {
    let status = not_replayed("x.Y/Z", "ci");
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains("`ci`") && status.message().contains("not shown a second time"), "{status}");
}
