//! Where the fields of a request come from.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod fixture;

use axum::body::Body;
use cloud_rest_tests::v1::{self, thing};
use fixture::{Principal, Server};
use http::Request;
use serde_json::json;

#[tokio::test]
async fn a_body_gives_the_fields_and_a_create_answers_201() {
    let server = Server::new();
    let body = json!({
        "thing": {
            "name": "web", "color": "RED", "colors": ["BLUE", "RED"], "small": 3.0, "large": "9007199254740993",
            "unsigned": 7, "ratio": 0.5, "data": "AQI=", "flag": true, "maybe": 1,
            "parts": [{"name": "a", "inner": {"name": "b"}}], "labels": {"k": "v"}, "named": {"x": {"name": "n"}},
            "counts": {"c": "12"}, "fromPart": {"name": "p"}, "createdAt": "2026-01-31T12:00:00Z",
            "lifetime": "1.5s", "type": "t", "secret": "s", "tags": ["ab"],
        },
        "count": 2,
    });
    let answer = server.json("POST", "/things", body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/json");
    let mut created = server.fake.created.lock().unwrap().clone();
    let thing = created.remove(0).thing.unwrap();
    assert_eq!(thing.colors, [2, 1]);
    assert_eq!(thing.large, 9_007_199_254_740_993);
    assert_eq!(thing.data.as_ref(), [1, 2]);
    assert_eq!(thing.parts[0].inner.as_ref().unwrap().name, "b");
    assert_eq!(thing.source, Some(thing::Source::FromPart(thing::Part { name: "p".into(), ..Default::default() })));
    insta::assert_json_snapshot!("what_goes_out", answer.json());
    // What goes out comes in again, as the same message.
    assert_eq!(serde_json::from_value::<v1::Thing>(answer.json()).unwrap(), thing);
}

#[tokio::test]
async fn fields_without_presence_go_out_and_absent_ones_do_not() {
    let server = Server::new();
    let answer = server.call("GET", "/things/plain").await;
    let body = answer.json();
    assert_eq!(body["flag"], false);
    assert_eq!(body["parts"], json!([]));
    assert_eq!(body["color"], "COLOR_UNSPECIFIED");
    assert_eq!(body["large"], "5");
    for absent in ["maybe", "created_at", "from_file", "from_number", "secret"] {
        assert!(body.get(absent).is_none(), "{absent}");
    }
    assert_eq!(server.call("GET", "/things").await.json(), json!({"things": [], "next_page_token": ""}));
}

#[tokio::test]
async fn an_enum_number_without_a_name_does_not_take_the_answer_with_it() {
    let thing = v1::Thing { color: 99, ..Default::default() };
    assert_eq!(serde_json::to_value(&thing).unwrap()["color"], 99);
}

#[tokio::test]
async fn the_path_is_decoded_and_versioned() {
    let server = Server::new();
    for path in ["/things/a%20b%2Fc", "/v1/things/a%20b%2Fc"] {
        assert_eq!(server.call("GET", path).await.json()["id"], "a b/c");
    }
    assert_eq!(server.call("GET", "/boxes/red/things/in-a-box").await.json()["id"], "red");
    assert_eq!(server.call("GET", "/files/a/b%20c/d").await.json()["path"], "a/b c/d");
    assert!(server.call("GET", "/things/%FF").await.error().starts_with("400 "));
}

#[tokio::test]
async fn a_query_gives_fields_of_every_kind() {
    let server = Server::new();
    let query = "page_size=5&colors=RED&colors=BLUE&since=2026-01-31T12%3A00%3A00Z&showDeleted=true&words=a+b\
                 &words=%C3%BC&place.box=x&large=-9007199254740993&maybe=0";
    let answer = server.call("GET", &format!("/things?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let listed = server.fake.listed.lock().unwrap().remove(0);
    assert_eq!(
        listed,
        v1::ListThingsRequest {
            page_size: 5,
            colors: vec![1, 2],
            since: Some("2026-01-31T12:00:00Z".parse().unwrap()),
            show_deleted: true,
            words: vec!["a b".into(), "ü".into()],
            place: Some(v1::Place { r#box: "x".into() }),
            large: -9_007_199_254_740_993,
            maybe: Some(0),
        }
    );
}

#[tokio::test]
async fn one_field_may_be_the_body_and_the_rest_the_query() {
    let server = Server::new();
    let answer = server.json("PATCH", "/things/x?update_mask=name,fromFile", r#"{"color":"BLUE"}"#).await;
    assert_eq!(answer.status, 200, "what the mask leaves out need not be there: {}", answer.text);
    let updated = server.fake.updated.lock().unwrap().remove(0);
    assert_eq!(updated.id, "x");
    assert_eq!(updated.update_mask.unwrap().paths, ["name", "from_file"]);
    assert_eq!(updated.thing.unwrap().color, 2);
    let answer = server.json("PATCH", "/things/x", r#"{"nope":1}"#).await;
    assert!(answer.error().starts_with("400 \"thing.nope\": \"unknown field `nope`"), "{}", answer.error());
}

#[tokio::test]
async fn a_body_may_be_left_out_and_may_repeat_the_path() {
    let server = Server::new();
    assert_eq!(server.call("POST", "/things/x/poke").await.json(), json!({}));
    assert_eq!(server.json("POST", "/things/x/poke", r#"{"id":"x","force":3}"#).await.status, 200);
    let poked = server.fake.poked.lock().unwrap().clone();
    assert_eq!((poked[0].id.as_str(), poked[1].force), ("x", 3));
    let answer = server.json("POST", "/things/x/poke", r#"{"id":"y"}"#).await;
    assert_eq!(answer.error(), "400 \"id\": \"`y` in the body, but `x` in the path\"");
}

#[tokio::test]
async fn headers_give_the_fields_that_are_theirs() {
    let server = Server::new();
    let request = || Request::builder().method("POST").uri("/things/x/poke").header("Idempotency-Key", "k1");
    server.send(request().body(Body::empty()).unwrap()).await;
    server.send(request().body(Body::from(r#"{"request_id":"own"}"#)).unwrap()).await;
    let poked = server.fake.poked.lock().unwrap().clone();
    assert_eq!((poked[0].request_id.as_str(), poked[1].request_id.as_str()), ("k1", "own"));
}

#[tokio::test]
async fn extensions_and_headers_reach_the_service_and_metadata_comes_back() {
    let server = Server::new();
    let mut request = Request::builder().uri("/things/who").header("x-who", "you").body(Body::empty()).unwrap();
    request.extensions_mut().insert(Principal("me"));
    let answer = server.send(request).await;
    assert_eq!(answer.json()["id"], "me you");
    assert_eq!(answer.headers["x-request-id"], "42");
    assert_eq!(answer.headers.get_all("content-type").iter().count(), 1);
}

#[tokio::test]
async fn a_response_says_which_method_it_is_from() {
    use tower::ServiceExt;
    let server = Server::new();
    let request = Request::builder().uri("/v1/things/x").body(Body::empty()).unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    let method = response.extensions().get::<cloud_rest::RpcMethod>();
    assert_eq!(method.unwrap().0, "testing.v1.ThingService/GetThing");
}
