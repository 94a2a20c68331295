//! What is refused, and how.

use axum::http::Request;
use serde_json::{Value, json};

use super::fixture::{Answer, Cloud, KEY, PANIC};

#[track_caller]
fn is(answer: &Answer, code: u16, status: &str, field: Option<&str>) {
    let error = &answer.json["error"];
    let context = format!("{}", answer.json);
    assert_eq!(answer.status.as_u16(), code, "{context}");
    assert_eq!(error["code"], code, "{context}");
    assert_eq!(error["status"], status, "{context}");
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{context}");
    if let Some(field) = field {
        let details = error["details"].as_array().unwrap().iter();
        let fields: Vec<_> = details
            .filter_map(|d| d["field_violations"].as_array())
            .flatten()
            .map(|v| v["field"].as_str().unwrap())
            .collect();
        assert!(fields.contains(&field), "{context}");
    }
}

#[tokio::test]
async fn a_launch_that_cannot_be_is_refused_by_field_and_makes_nothing() {
    let cloud = Cloud::with_image().await;
    let with = |key: &str, value: Value| {
        let mut body = json!({"name": "x", "image": "tiny", "instance_type": "tiny"});
        body[key] = value;
        body
    };
    for (body, code, status, field) in [
        (json!({}), 400, "INVALID_ARGUMENT", Some("name")),
        (with("image", json!("")), 400, "INVALID_ARGUMENT", Some("image")),
        (with("name", json!("Bad_Name")), 400, "INVALID_ARGUMENT", Some("name")),
        (with("name", json!("a".repeat(64))), 400, "INVALID_ARGUMENT", Some("name")),
        (with("name", json!(7)), 400, "INVALID_ARGUMENT", Some("name")),
        (with("colour", json!("red")), 400, "INVALID_ARGUMENT", None),
        (with("request_id", json!("r".repeat(65))), 400, "INVALID_ARGUMENT", Some("request_id")),
        (with("security_groups", json!(["web"])), 400, "INVALID_ARGUMENT", Some("security_groups")),
        (with("ssh_keys", json!(["no key"])), 400, "INVALID_ARGUMENT", Some("ssh_keys")),
        (with("image", json!("nothing")), 404, "NOT_FOUND", None),
        (with("instance_type", json!("huge")), 404, "NOT_FOUND", None),
        (with("vpc", json!("nowhere")), 404, "NOT_FOUND", None),
        (with("subnet", json!("nowhere")), 404, "NOT_FOUND", None),
        (with("volumes", json!([{"volume": "none"}])), 404, "NOT_FOUND", None),
        (with("instance_type", json!("xlarge")), 429, "RESOURCE_EXHAUSTED", None),
    ] {
        is(&cloud.post("/instances", body).await, code, status, field);
    }
    assert_eq!(cloud.get("/instances").await.json["instances"], json!([]));
    assert_eq!(cloud.get("/ports").await.json["ports"], json!([]));
    assert_eq!(cloud.get("/volumes").await.json["volumes"], json!([]));
}

#[tokio::test]
async fn a_taken_name_is_a_conflict() {
    let cloud = Cloud::with_image().await;
    cloud.launch("web-01").await;
    let again = cloud.post("/instances", json!({"name": "web-01", "image": "tiny", "instance_type": "tiny"})).await;
    is(&again, 409, "ALREADY_EXISTS", None);
    is(&cloud.post("/vpcs", json!({"name": "default"})).await, 409, "ALREADY_EXISTS", None);
}

#[tokio::test]
async fn a_stale_etag_a_wrong_state_and_a_wait_that_ends_have_codes_of_their_own() {
    let cloud = Cloud::with_image().await;
    cloud.launch("web-01").await;
    is(&cloud.post("/instances/web-01/stop", json!({"etag": "77"})).await, 412, "ABORTED", None);
    is(&cloud.post("/instances/web-01/reboot", json!({})).await, 400, "FAILED_PRECONDITION", None);
    // Nobody works here, so it is never STOPPED.
    is(&cloud.post("/instances/web-01/stop", json!({})).await, 504, "DEADLINE_EXCEEDED", None);
    is(&cloud.send("DELETE", "/vpcs/default", "").await, 400, "FAILED_PRECONDITION", None);
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused_in_the_same_shape() {
    let cloud = Cloud::new().await;
    is(&cloud.send("POST", "/instances", "{not json").await, 400, "INVALID_ARGUMENT", None);
    is(&cloud.send("POST", "/instances", vec![b' '; 10 << 20]).await, 413, "INVALID_ARGUMENT", None);
    is(&cloud.get("/instances?page_size=ten").await, 400, "INVALID_ARGUMENT", Some("page_size"));
    is(&cloud.get("/instances?page_token=x").await, 400, "INVALID_ARGUMENT", Some("page_token"));
    is(&cloud.get("/nowhere").await, 404, "NOT_FOUND", None);
    assert_eq!(cloud.send("PUT", "/instances", "").await.status, 405);
    let request = Request::post("/instances").header("authorization", format!("Bearer {KEY}"));
    let request = request.header("content-type", "text/plain").body("x".into()).unwrap();
    assert_eq!(cloud.raw(request).await.status(), 415);
}

#[tokio::test]
async fn uploads_are_verified() {
    let cloud = Cloud::with_image().await;
    let upload =
        async |query: &str, bytes: Vec<u8>| cloud.send("POST", &format!("/images:upload?{query}"), bytes).await;
    is(&upload("name=Bad", vec![0; 512]).await, 400, "INVALID_ARGUMENT", Some("name"));
    is(&upload("", vec![0; 512]).await, 400, "INVALID_ARGUMENT", Some("name"));
    is(&upload("name=a&format=vmdk", vec![0; 512]).await, 400, "INVALID_ARGUMENT", Some("format"));
    is(&upload("name=a&what=ever", vec![0; 512]).await, 400, "INVALID_ARGUMENT", Some("what"));
    is(&upload("name=a&sha256=00", vec![0; 512]).await, 400, "INVALID_ARGUMENT", Some("sha256"));
    is(
        &upload(&format!("name=a&sha256={}", "0".repeat(64)), vec![0; 512]).await,
        400,
        "INVALID_ARGUMENT",
        Some("data"),
    );
    is(&upload("name=a&format=QCOW2", vec![0; 512]).await, 400, "INVALID_ARGUMENT", Some("data"));
    is(&upload("name=a", vec![0; 513]).await, 400, "INVALID_ARGUMENT", Some("data"));
    is(&upload("name=a", vec![0; (1 << 20) + 512]).await, 400, "INVALID_ARGUMENT", Some("data"));
    is(&upload("name=tiny", vec![0; 512]).await, 409, "ALREADY_EXISTS", None);
    assert_eq!(cloud.get("/images").await.json["images"].as_array().unwrap().len(), 1);
    let files = std::fs::read_dir(cloud.dir.path().join("images")).unwrap().count();
    assert_eq!(files, 2, "the image and the empty directory of what is coming in");
    assert_eq!(std::fs::read_dir(cloud.dir.path().join("images/incoming")).unwrap().count(), 0);
    let good = upload(
        "name=b&labels.os=none&sha256=076a27c79e5ace2a3d47f9dd2e83e4ff6ea8872b3c2218f66c92b89b55f36560",
        vec![0; 512],
    );
    let good = good.await;
    assert_eq!((good.status.as_u16(), &good.json["labels"]["os"]), (201, &json!("none")), "{}", good.json);
}

#[tokio::test]
async fn a_panic_is_an_internal_error_that_says_nothing() {
    let cloud = Cloud::with_image().await;
    cloud.launch("web-01").await;
    let answer = cloud.get(&format!("/instances/web-01/console-log?max_bytes={PANIC}")).await;
    is(&answer, 500, "INTERNAL", None);
    assert!(!answer.text.contains("secret detail"), "{}", answer.text);
    assert!(answer.headers.contains_key("x-request-id"));
    assert_eq!(cloud.get("/instances/web-01/console-log").await.status, 200, "it goes on");
}
