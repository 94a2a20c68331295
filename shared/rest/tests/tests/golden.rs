//! The generated documents, as files to read in a review.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[test]
fn the_openapi_document() {
    let document: serde_json::Value = serde_json::from_str(cloud_rest_tests::OPENAPI).unwrap();
    insta::assert_yaml_snapshot!(document);
}

#[test]
fn the_list_of_routes() {
    insta::assert_debug_snapshot!(cloud_rest_tests::rest::ROUTES);
}
