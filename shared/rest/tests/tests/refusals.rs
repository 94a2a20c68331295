//! What is refused, and with which answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod fixture;

use axum::body::Body;
use fixture::Server;
use http::Request;

/// Posts a thing and describes the refusal.
async fn create(server: &Server, thing: &str) -> String {
    let body = format!(r#"{{"count": 1, "thing": {thing}}}"#);
    let answer = server.json("POST", "/things", body).await;
    assert!(server.fake.created.lock().unwrap().is_empty(), "the service sees nothing of it");
    answer.error()
}

#[tokio::test]
async fn wrong_fields_are_named_by_their_path() {
    let server = Server::new();
    let wrong = [
        r#"{"name":"a","nope":1}"#,
        r#"{"name":5}"#,
        r#"{"name":null}"#,
        r#"{"name":"a","name":"b"}"#,
        r#"{"name":"a","color":"GREEN"}"#,
        r#"{"name":"a","color":1}"#,
        r#"{"name":"a","colors":["RED","GREEN"]}"#,
        r#"{"name":"a","colors":null}"#,
        r#"{"name":"a","small":"1"}"#,
        r#"{"name":"a","small":1.5}"#,
        r#"{"name":"a","small":99999999999}"#,
        r#"{"name":"a","large":"x"}"#,
        r#"{"name":"a","unsigned":-1}"#,
        r#"{"name":"a","data":"*"}"#,
        r#"{"name":"a","flag":"true"}"#,
        r#"{"name":"a","parts":[{"name":"p"},{"name":"q","parts":[{"nope":1}]}]}"#,
        r#"{"name":"a","parts":{}}"#,
        r#"{"name":"a","named":{"k":{"nope":1}}}"#,
        r#"{"name":"a","labels":{"k":1}}"#,
        r#"{"name":"a","counts":{"k":"1.5"}}"#,
        r#"{"name":"a","from_file":"a","from_number":1}"#,
        r#"{"name":"a","created_at":"today"}"#,
        r#"{"name":"a","lifetime":"1"}"#,
        r#"[]"#,
    ];
    let mut seen = String::new();
    for thing in wrong {
        seen += &format!("{thing}\n  {}\n", create(&server, thing).await);
    }
    insta::assert_snapshot!(seen);
}

#[tokio::test]
async fn what_the_contract_says_of_a_field_is_checked() {
    let server = Server::new();
    let wrong = [
        r#"{}"#,
        r#"{"name":""}"#,
        r#"{"name":"UPPER"}"#,
        r#"{"name":"abcdefghi"}"#,
        r#"{"name":"a","small":11}"#,
        r#"{"name":"a","small":-1}"#,
        r#"{"name":"a","unsigned":1000001}"#,
        r#"{"name":"a","maybe":0}"#,
        r#"{"name":"a","data":"AAAAAAA="}"#,
        r#"{"name":"a","parts":[{"name":"p"},{"name":""}]}"#,
        r#"{"name":"a","parts":[{"name":"p","inner":{"parts":[{}]}}]}"#,
        r#"{"name":"a","parts":[{"name":"p"},{"name":"p"},{"name":"p"}]}"#,
        r#"{"name":"a","labels":{"a":"","b":"","c":""}}"#,
        r#"{"name":"a","labels":{"a":"äöüäö"}}"#,
        r#"{"name":"a","named":{"k":{}}}"#,
        r#"{"name":"a","from_file":"abcdef"}"#,
        r#"{"name":"a","from_part":{}}"#,
        r#"{"name":"a","later":"now"}"#,
        r#"{"name":"a","tags":["ab","c"]}"#,
        r#"{"name":"a","type":"a\u0000"}"#,
        r#"{"name":"a","labels":{"a\u0000":""}}"#,
        r#"{"small":11,"later":"x","tags":[""],"unsigned":2000000}"#,
    ];
    let mut seen = String::new();
    for thing in wrong {
        seen += &format!("{thing}\n  {}\n", create(&server, thing).await);
    }
    insta::assert_snapshot!(seen);
}

#[tokio::test]
async fn zero_is_not_set_and_passes_every_rule_but_required() {
    let server = Server::new();
    let answer = server.json("POST", "/things", r#"{"count":1,"thing":{"name":"a","small":0,"from_file":null}}"#).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let answer = server.json("POST", "/things", r#"{"count":0,"thing":{"name":"a"}}"#).await;
    assert_eq!(answer.error(), "400 \"count\": \"must be set\"");
}

#[tokio::test]
async fn wrong_queries_name_the_parameter() {
    let server = Server::new();
    let wrong = [
        "nope=1",
        "page_size=abc",
        "page_size=1.5",
        "page_size=",
        "page_size=501",
        "page_size=1&page_size=2",
        "page_size=99999999999",
        "colors=GREEN",
        "colors=RED&colors=1",
        "show_deleted=yes",
        "since=today",
        "place=x",
        "words=%FF",
        "maybe=-1",
        "large=9223372036854775808",
    ];
    let mut seen = String::new();
    for query in wrong {
        seen += &format!("{query}\n  {}\n", server.call("GET", &format!("/things?{query}")).await.error());
    }
    assert!(server.fake.listed.lock().unwrap().is_empty());
    insta::assert_snapshot!(seen);
    let answer = server.json("POST", "/things/x/poke?force=1", "{}").await;
    assert_eq!(answer.error(), "400 \"force\": \"unknown query parameter; this route has none\"");
}

#[tokio::test]
async fn bodies_that_are_not_json() {
    let server = Server::new();
    for text in ["{", "{\"count\":}", "{} {}", "nope", "\u{feff}{}"] {
        let error = server.json("POST", "/things", text).await.error();
        assert!(error.starts_with("400 \"the body is not valid JSON: "), "{text}: {error}");
    }
    assert!(server.json("POST", "/things", vec![b'"', 0xff, b'"']).await.error().starts_with("400 "));
    let deep = "[".repeat(100_000);
    assert!(server.json("POST", "/things", deep).await.error().starts_with("400 "));
    for top in ["[]", "null", "5", "\"x\""] {
        let error = server.json("POST", "/things", top).await.error();
        assert!(error.contains("expected an object (testing.v1.CreateThingRequest)"), "{top}: {error}");
    }
}

#[tokio::test]
async fn a_content_type_that_is_not_json_is_415() {
    let server = Server::new();
    let send = |content_type: &'static str, body: &'static str| {
        let request = Request::builder().method("POST").uri("/things/x/poke").header("content-type", content_type);
        server.send(request.body(Body::from(body)).unwrap())
    };
    for wrong in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let answer = send(wrong, "{}").await;
        assert!(answer.error().starts_with("415 "), "{wrong}");
    }
    for right in ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"] {
        assert_eq!(send(right, "{}").await.status, 200, "{right}");
    }
    assert_eq!(send("text/plain", "").await.status, 200, "without a body its type does not matter");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = Server::new();
    let limit = 1 << 20;
    let padded = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
    assert_eq!(server.json("POST", "/things/x/poke", padded(limit)).await.status, 200);
    let answer = server.json("POST", "/things/x/poke", padded(limit + 1)).await;
    assert_eq!(answer.error(), "413 \"the body is larger than the limit of 1048576 bytes\"");
    for chunks in [11, 1000] {
        let answer = server.json("POST", "/things/x/poke", Server::chunks(chunks, 100_000)).await;
        assert!(answer.error().starts_with("413 "), "{chunks}");
    }
    let small = Server::with(|config| config.body_limit = 10);
    assert!(small.json("POST", "/things/x/poke", r#"{"force":10000}"#).await.error().starts_with("413 "));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_408() {
    let server = Server::new();
    let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let answer = server.json("POST", "/things/x/poke", never).await;
    assert!(answer.error().starts_with("408 \"the body did not arrive within 30 s"), "{}", answer.error());
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods() {
    let server = Server::new();
    let answer = server.call("GET", "/nope").await;
    assert_eq!(answer.error(), "404 \"there is no route /nope; GET /openapi.json lists the routes\"");
    let answer = server.call("PUT", "/things/x").await;
    assert!(answer.error().starts_with("405 \"/things/x does not take PUT"), "{}", answer.error());
    let mut allowed: Vec<_> = answer.headers["allow"].to_str().unwrap().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "PATCH"], "what is not built (DELETE) is not offered");
    let grpc = Request::builder().method("POST").uri("/a.B/C").header("content-type", "application/grpc");
    let answer = server.send(grpc.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &"12".parse().unwrap()));
}

#[tokio::test]
async fn a_services_own_errors_keep_their_headers() {
    let server = Server::new();
    let answer = server.call("GET", "/things/gone").await;
    assert_eq!(answer.error(), "404 \"no such thing\"");
    assert_eq!(answer.headers["x-request-id"], "43");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(server.call("GET", "/things/secret").await.headers["www-authenticate"], "Bearer");
    let answer = server.call("GET", "/things/busy").await;
    assert_eq!((answer.status, &answer.headers["retry-after"]), (503, &"2".parse().unwrap()));
}

#[tokio::test]
async fn what_is_not_built_is_unimplemented_in_process_as_well() {
    use cloud_rest_tests::{
        checked::Checked,
        v1::{GetThingRequest, thing_service_server::ThingService},
    };
    let service = Checked::new(fixture::Fake::default());
    let error = service.drop_thing(tonic::Request::new(GetThingRequest::default())).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unimplemented);
    assert_eq!(error.message(), "testing.v1.ThingService.DropThing is not built yet");
    let error = service.get_thing(tonic::Request::new(GetThingRequest::default())).await.unwrap_err();
    assert_eq!(error.message(), "id: must be set", "gRPC is checked by the same rules");
}
