//! Bad input: the right 4xx, naming the field, and nothing is made.

use cloud_tests::{TestCloud, cloud::IMAGE};
use http::Method;
use serde_json::{Value, json};

use crate::support::{names, refused, refused_field};

/// Nothing was made: no row, not even a deleted one, and no call to a host.
async fn nothing_made(cloud: &TestCloud) -> anyhow::Result<()> {
    let all = cloud.rest.get("/instances?show_deleted=true").await?.expect(200)?;
    assert_eq!(names(&all, "instances"), Vec::<String>::new());
    assert!(cloud.host().leftovers().is_empty());
    let (ports, volumes) =
        (cloud.rest.get("/ports").await?.expect(200)?, cloud.rest.get("/volumes").await?.expect(200)?);
    assert_eq!((names(&ports, "ports").len(), names(&volumes, "volumes").len()), (0, 0));
    let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
    assert_eq!(host["vcpus_used"], 0, "{host}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_field_is_named() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let many: Vec<String> = (0..40).map(|n| format!("ssh-ed25519 AAAA{n} k")).collect();
    let with = |key: &str, value: Value| {
        let mut body = json!({"name": "web-01", "image": IMAGE});
        body[key] = value;
        body
    };
    for (field, body) in [
        ("name", json!({"image": IMAGE})),
        ("name", with("name", json!(""))),
        ("name", with("name", json!("Web"))),
        ("name", with("name", json!("web_01"))),
        ("name", with("name", json!("-web"))),
        ("name", with("name", json!("1web"))),
        ("name", with("name", json!("a".repeat(64)))),
        ("name", with("name", json!("550e8400-e29b-41d4-a716-446655440000"))),
        ("name", with("name", json!("a b; rm -rf /"))),
        ("name", with("name", json!(7))),
        ("name", with("name", json!(["a"]))),
        ("image", json!({"name": "web-01"})),
        ("image", with("image", json!(true))),
        ("ssh_keys", with("ssh_keys", json!("one"))),
        ("ssh_keys", with("ssh_keys", json!(["not a key"]))),
        ("ssh_keys", with("ssh_keys", json!(many))),
        ("root_disk_gib", with("root_disk_gib", json!("many"))),
        ("root_disk_gib", with("root_disk_gib", json!(-1))),
        ("root_disk_gib", with("root_disk_gib", json!(1_000_000))),
        ("user_data", with("user_data", json!("x".repeat(70_000)))),
        ("labels", with("labels", json!([1]))),
        ("nonsense", with("nonsense", json!(1))),
        ("security_groups", with("security_groups", json!(["web"]))),
        ("ports", with("ports", json!([{"host_port": 80, "guest_port": 80, "protocol": "tcp"}]))),
        ("placement", with("placement", json!({"anti_affinity_group": "A b"}))),
        ("placement", with("placement", json!({"accelerator": "abacus"}))),
        ("request_id", with("request_id", json!("x".repeat(65)))),
        ("request_id", with("request_id", json!("a\nb"))),
    ] {
        let answer = cloud.rest.post("/instances", &body).await?;
        let fields = crate::support::named_fields(&answer);
        assert_eq!(answer.status, 400, "{body} {}", answer.text());
        assert!(
            fields.iter().any(|f| f.split(['[', '.']).next() == Some(field)),
            "{body}: {fields:?} {}",
            answer.text()
        );
        refused(&answer, 400, "INVALID_ARGUMENT");
    }
    nothing_made(&cloud).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    for (field, name) in [("image", "nonesuch"), ("instance_type", "huge"), ("vpc", "nowhere"), ("subnet", "nothing")] {
        let mut body = json!({"name": "web-01", "image": IMAGE});
        body[field] = json!(name);
        let answer = cloud.rest.post("/instances", &body).await?;
        assert!(answer.status.is_client_error(), "{body}: {}", answer.text());
        assert!(answer.at("/error/message").contains(name), "{body}: {}", answer.text());
    }
    let body = json!({"name": "web-01", "image": IMAGE, "volumes": [{"volume": "nonesuch"}]});
    refused(&cloud.rest.post("/instances", &body).await?, 404, "NOT_FOUND");
    nothing_made(&cloud).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_is_refused() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let send = |content_type, body: &'static str| cloud.rest.send(Method::POST, "/instances", content_type, body);
    let json = Some("application/json");
    for body in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\"name\"",
        "{\"name\":\"a\"} trailing",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "\u{feff}{}",
    ] {
        refused(&send(json, body).await?, 400, "INVALID_ARGUMENT");
    }
    let form = send(Some("application/x-www-form-urlencoded"), "name=web-01&image=tiny").await?;
    assert_eq!(form.status, 415, "{}", form.text());
    assert!(!form.at("/error/message").is_empty());
    let broken = cloud.rest.send(Method::POST, "/instances", json, vec![b'{', 0xff, 0xfe, b'}']).await?;
    refused(&broken, 400, "INVALID_ARGUMENT");
    nothing_made(&cloud).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_are_too_many() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let body = json!({"name": "web-01", "image": IMAGE, "user_data": "x".repeat(10 << 20)});
    // The gateway may answer and close before it has read everything: then there is an answer, or a broken pipe.
    if let Ok(answer) = cloud.rest.post("/instances", &body).await {
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert!(!answer.at("/error/message").is_empty());
    }
    nothing_made(&cloud).await?;
    let deep = format!("{{\"labels\":{}", "{\"a\":".repeat(100_000));
    let answer = cloud.rest.send(Method::POST, "/instances", Some("application/json"), deep).await?;
    refused(&answer, 400, "INVALID_ARGUMENT");
    nothing_made(&cloud).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_queries_are_refused() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    refused_field(&cloud.rest.get("/instances?page_size=many").await?, "page_size");
    refused_field(&cloud.rest.get("/instances?page_size=-1").await?, "page_size");
    refused_field(&cloud.rest.get("/instances?page_size=501").await?, "page_size");
    refused_field(&cloud.rest.get("/instances?nonsense=1").await?, "nonsense");
    refused_field(&cloud.rest.get("/instances?filter=colour%3Dred").await?, "filter");
    refused_field(&cloud.rest.get("/instances?filter=status%3DGONE").await?, "filter");
    refused_field(&cloud.rest.get("/instances?order_by=status").await?, "order_by");
    refused_field(&cloud.rest.get("/events?order_by=name").await?, "order_by");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_ids_are_not_found() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    for id in
        ["nonesuch", "550e8400-e29b-41d4-a716-446655440000", "..%2F..", "%27%20OR%201%3D1", "%00", "a%0Ab", "%C3%A9"]
    {
        let answer = cloud.rest.get(&format!("/instances/{id}")).await?;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{id}: {}", answer.text());
        assert!(!answer.at("/error/message").is_empty(), "{id}: {}", answer.text());
    }
    for (method, path) in [
        (Method::DELETE, "/instances/nonesuch"),
        (Method::POST, "/instances/nonesuch/stop"),
        (Method::POST, "/instances/nonesuch/start"),
        (Method::POST, "/instances/nonesuch/reboot"),
        (Method::GET, "/instances/nonesuch/console"),
        (Method::GET, "/instances/nonesuch/console-log"),
        (Method::GET, "/images/nonesuch"),
        (Method::GET, "/volumes/nonesuch"),
        (Method::GET, "/vpcs/nonesuch"),
        (Method::GET, "/vpcs/default/subnets/nonesuch"),
        (Method::GET, "/vpcs/nonesuch/subnets"),
        (Method::GET, "/ports/nonesuch"),
        (Method::GET, "/hosts/nonesuch"),
        (Method::GET, "/projects/nonesuch"),
        (Method::GET, "/instance-types/nonesuch"),
    ] {
        let answer = cloud.rest.send(method.clone(), path, None, "").await?;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
        refused(&answer, 404, "NOT_FOUND");
    }
    Ok(())
}
