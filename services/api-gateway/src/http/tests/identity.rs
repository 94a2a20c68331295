//! Projects, keys, quotas, rates and refusals, as clients meet them.

use axum::{body::Body, http::Request};
use cloud_contracts::v1;
use cloud_core::{
    authorization::{Access, RULES, rule},
    model::Role,
};
use prost::Message as _;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};

use super::fixture::{Answer, Cloud, KEY};
use crate::http::CallRate;

/// Sends as the holder of a key.
async fn as_key(cloud: &Cloud, key: &str, verb: &str, path: &str, body: &Value) -> Answer {
    let request = Request::builder().method(verb).uri(path).header("authorization", format!("Bearer {key}"));
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = cloud.raw(request.body(body).unwrap()).await;
    // A watch that was let through has no end.
    if response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream") {
        let (parts, _) = response.into_parts();
        return Answer { status: parts.status, headers: parts.headers, text: String::new(), json: Value::Null };
    }
    Answer::read(response).await
}

/// Calls over gRPC with an empty message; the status code.
async fn grpc(cloud: &Cloud, key: &str, method: &str, message: &[u8]) -> u16 {
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let request = Request::post(format!("/{method}"))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {key}"));
    let response = cloud.raw(request.body(Body::from(body)).unwrap()).await;
    let in_headers = response.headers().get("grpc-status").cloned();
    let status = match in_headers {
        Some(status) => status,
        // A watch that was let through has no end.
        None if method.contains("/Watch") => return 0,
        None => {
            use http_body_util::BodyExt;
            let collected = response.into_body().collect().await.unwrap();
            collected.trailers().unwrap()["grpc-status"].clone()
        }
    };
    status.to_str().unwrap().parse().unwrap()
}

async fn made_key(cloud: &Cloud, project: &str, name: &str, role: &str) -> String {
    let request =
        Request::post("/api-keys").header("authorization", format!("Bearer {KEY}")).header("x-project", project);
    let body = json!({"name": name, "role": role}).to_string();
    let answer = Answer::read(cloud.raw(request.body(Body::from(body)).unwrap()).await).await;
    assert_eq!(answer.status, 201, "{}", answer.json);
    answer.json["secret"].as_str().unwrap().to_owned()
}

fn methods() -> Vec<String> {
    let pool = DescriptorPool::decode(cloud_contracts::DESCRIPTORS).unwrap();
    let services = pool.services().filter(|s| s.package_name() == "cloud.v1").collect::<Vec<_>>();
    services
        .iter()
        .flat_map(|s| s.methods().map(|m| format!("{}/{}", s.full_name(), m.name())).collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_method_has_a_rule_and_every_rule_a_method() {
    let mut matrix = String::new();
    let methods = methods();
    for method in &methods {
        let rule = rule(method).unwrap_or_else(|| panic!("{method} has no rule: add one to cloud_core::authorization"));
        let roles = Role::ALL
            .map(|role| format!("{}={}", role.as_str(), if rule.access.allows(role) { "allowed" } else { "denied" }));
        let changes = rule.changes.map_or("reads", |(_, action)| action);
        matrix += &format!("{method:60} {} {changes}\n", roles.join(" "));
        // What only looks has a name that says so, and the other way round.
        let name = method.rsplit('/').next().unwrap();
        let looks = ["Get", "List", "Watch", "Stream", "Explain"].iter().any(|verb| name.starts_with(verb));
        assert_eq!(rule.changes.is_none(), looks, "{method}");
    }
    let without: Vec<_> = RULES.iter().filter(|rule| !methods.iter().any(|m| m == rule.method)).collect();
    assert!(without.is_empty(), "{without:?}");
    for (path, access) in cloud_core::authorization::ROUTES {
        matrix += &format!("{path:60} {access:?}\n");
    }
    insta::assert_snapshot!("authorization_matrix", matrix);
}

#[tokio::test]
async fn the_matrix_is_what_is_enforced_over_both_protocols() {
    let cloud = Cloud::new().await;
    let mut keys = Vec::new();
    for (role, name) in Role::ALL.into_iter().zip(["VIEWER", "MEMBER", "ADMIN", "OPERATOR"]) {
        keys.push((role, made_key(&cloud, "default", &format!("{}-1", role.as_str()), name).await));
    }
    for (role, key) in &keys {
        for method in methods() {
            let allowed = rule(&method).unwrap().access.allows(*role);
            let code = grpc(&cloud, key, &method, b"").await;
            assert_eq!(code != 7, allowed, "{method} as {}: {code}", role.as_str());
        }
        for (verb, path, method) in cloud_contracts::rest::ROUTES.iter().chain(&[(
            "POST",
            "/images:upload",
            "cloud.v1.ImageService/UploadImage",
        )]) {
            let path = path.split('/').map(|part| if part.starts_with('{') { "nonesuch" } else { part });
            let path = path.collect::<Vec<_>>().join("/");
            let allowed = rule(method).unwrap().access.allows(*role);
            let body = if *verb == "GET" || *verb == "DELETE" { Value::Null } else { json!({"etag": "0"}) };
            let answer = as_key(&cloud, key, verb, &format!("/v1{path}"), &body).await;
            assert_eq!(answer.status != 403, allowed, "{verb} {path} as {}: {}", role.as_str(), answer.json);
        }
    }
}

#[tokio::test]
async fn what_needs_no_key_is_what_the_rules_say() {
    let cloud = Cloud::new().await;
    cloud.readiness.set_ready("database");
    for (path, access) in cloud_core::authorization::ROUTES {
        let verb = if path.contains("upload") { "POST" } else { "GET" };
        let request = Request::builder().method(verb).uri(path.replace("{token}", "a.b.c.d"));
        let status = cloud.raw(request.body(Body::empty()).unwrap()).await.status().as_u16();
        match access {
            Access::Public => assert_eq!(status, 200, "{path}"),
            // A WebSocket that is no upgrade is refused before its token is.
            Access::Ticket => assert!([401, 400, 426].contains(&status), "{path}: {status}"),
            Access::Key(_) => assert_eq!(status, 401, "{path}"),
        }
    }
}

#[tokio::test]
async fn another_projects_resource_is_not_found_in_every_method() {
    let cloud = Cloud::new().await;
    let upload = cloud.send("POST", "/images:upload?name=mine", vec![0; 4096]).await;
    assert_eq!(upload.status, 201, "{}", upload.json);
    let instance =
        cloud.post("/instances", json!({"name": "web-01", "image": "mine", "instance_type": "tiny"})).await.json;
    assert_eq!(cloud.post("/volumes", json!({"name": "data", "size_gib": 1})).await.status, 201);
    let snapshot = cloud.snapshot("data", "before").await;
    let volume = cloud.get("/volumes/data").await.json;
    let key = cloud.get("/api-keys/admin").await.json;
    let vpc = cloud.get("/vpcs/default").await.json;
    let project = cloud.get("/projects/default").await.json;
    let subnet = cloud.get("/vpcs/default/subnets/default").await.json;
    assert_eq!(cloud.post("/projects", json!({"name": "second"})).await.status, 201);
    let admin = made_key(&cloud, "second", "boss", "ADMIN").await;
    let ids = |noun: &str| match noun {
        "instances" => &instance["id"],
        "volumes" => &volume["id"],
        "snapshots" => &snapshot["id"],
        "images" => &upload.json["id"],
        "api-keys" => &key["id"],
        "vpcs" => &vpc["id"],
        "projects" | "quotas" => &project["id"],
        "ports" => &instance["ports"][0]["id"],
        "subnets" => &subnet["id"],
        other => panic!("a route under /{other} has a parameter: what is its resource?"),
    };
    let mut asked = Vec::new();
    for (verb, path, method) in cloud_contracts::rest::ROUTES {
        if !path.contains('{') || path.starts_with("/hosts") || path.starts_with("/instance-types") {
            continue;
        }
        let parts: Vec<_> = path.split('/').collect();
        let filled = |unknown: bool| {
            let fill = |(i, part): (usize, &&str)| match part.starts_with('{') {
                true if unknown => uuid::Uuid::new_v4().to_string(),
                true => ids(parts[i - 1]).as_str().unwrap().to_owned(),
                false => (*part).to_owned(),
            };
            parts.iter().enumerate().map(fill).collect::<Vec<_>>().join("/")
        };
        let body = match (*verb, *method) {
            ("GET" | "DELETE", _) => Value::Null,
            (_, "cloud.v1.SubnetService/CreateSubnet") => json!({"name": "x", "cidr": "10.0.9.0/24"}),
            (_, "cloud.v1.VolumeService/ResizeVolume") => json!({"size_gib": 9}),
            (_, "cloud.v1.VolumeService/UpdateVolume") => json!({"volume": {"iops": 100}, "update_mask": "iops"}),
            (_, "cloud.v1.InstanceService/AttachVolume") => json!({"volume": ids("volumes")}),
            (_, "cloud.v1.QuotaService/UpdateQuota") => json!({"limits": {"vpcs": "1"}}),
            _ => json!({}),
        };
        // What only operators may call is denied to everybody else, whatever there is.
        let expected = if rule(method).unwrap().access.allows(Role::Admin) { 404 } else { 403 };
        let theirs = as_key(&cloud, &admin, verb, &filled(false), &body).await;
        assert_eq!(theirs.status, expected, "{verb} {path}: {}", theirs.json);
        let nobodys = as_key(&cloud, &admin, verb, &filled(true), &body).await;
        assert_eq!(nobodys.status, expected, "{verb} {path}: it answers as if there were none: {}", nobodys.json);
        asked.push((*method).to_owned());
    }
    // What has no route.
    let first = v1::stream_console_request::Message::Id(instance["id"].as_str().unwrap().to_owned());
    let first = v1::StreamConsoleRequest { message: Some(first) }.encode_to_vec();
    let console = "cloud.v1.InstanceService/StreamConsole";
    assert_eq!(grpc(&cloud, &admin, console, &first).await, 5);
    asked.push(console.to_owned());
    // No method that names a resource of a project was left out.
    let pool = DescriptorPool::decode(cloud_contracts::DESCRIPTORS).unwrap();
    for method in
        pool.services().filter(|s| s.package_name() == "cloud.v1").flat_map(|s| s.methods().collect::<Vec<_>>())
    {
        let name = format!("{}/{}", method.parent_service().full_name(), method.name());
        let names_one = ["id", "vpc", "project"].iter().any(|field| method.input().get_field_by_name(field).is_some());
        let of_the_cloud = ["HostService", "InstanceTypeService"].contains(&method.parent_service().name());
        // Watches of one resource are asked for another project's in the tests of watches.
        let of_the_cloud = of_the_cloud || method.name().starts_with("Watch");
        if names_one && !of_the_cloud && name != "cloud.v1.InstanceService/LaunchInstance" && !asked.contains(&name) {
            assert_eq!(
                grpc(&cloud, KEY, &name, b"").await,
                12,
                "{name} is built and was not asked for another project's resource"
            );
        }
    }
    // What is named in bodies.
    for (path, body) in [
        ("/instances", json!({"name": "x", "image": upload.json["id"]})),
        ("/instances", json!({"name": "x", "image": "mine"})),
    ] {
        assert_eq!(as_key(&cloud, &admin, "POST", path, &body).await.status, 404, "{body}");
    }
    let public = cloud.send("POST", "/images:upload?name=ours&visibility=PUBLIC", vec![0; 4096]).await;
    assert_eq!(public.status, 201);
    for (field, value) in
        [("vpc", vpc["id"].clone()), ("subnet", subnet["id"].clone()), ("volumes", json!([{"volume": volume["id"]}]))]
    {
        let mut body = json!({"name": "x", "image": "ours", "instance_type": "tiny"});
        body[field] = value;
        assert_eq!(as_key(&cloud, &admin, "POST", "/instances", &body).await.status, 404, "{body}");
    }
    for (path, key) in
        [("/instances", "instances"), ("/volumes", "volumes"), ("/ports", "ports"), ("/events?kind=instance", "events")]
    {
        let list = as_key(&cloud, &admin, "GET", path, &Value::Null).await.json;
        let foreign = list[key].as_array().unwrap().iter().find(|row| row["project"] != "second");
        assert!(foreign.is_none(), "{path}: {foreign:?}");
    }
    let there = |name: &'static str| {
        Request::get("/vpcs").header("authorization", format!("Bearer {admin}")).header("x-project", name)
    };
    assert_eq!(cloud.raw(there("default").body(Body::empty()).unwrap()).await.status(), 404);
    // All of it is still there.
    assert_eq!(cloud.get("/volumes/data").await.json["etag"], volume["etag"]);
}

#[tokio::test]
async fn keys_over_rest_show_their_secret_once() {
    let cloud = Cloud::new().await;
    for (body, field) in [
        (json!({"name": "Bad", "role": "VIEWER"}), "name"),
        (json!({"name": "a"}), "role"),
        (json!({"name": "a", "role": "VIEWER", "expires_at": "2001-01-01T00:00:00Z"}), "expires_at"),
    ] {
        let answer = cloud.post("/api-keys", body).await;
        assert_eq!(answer.status, 400, "{}", answer.json);
        assert!(answer.json["error"]["message"].as_str().unwrap().contains(field), "{}", answer.json);
    }
    let made =
        cloud.post("/api-keys", json!({"name": "ci", "role": "VIEWER", "expires_at": "2999-01-01T00:00:00Z"})).await;
    assert_eq!(made.status, 201, "{}", made.json);
    let secret = made.json["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with(made.json["api_key"]["prefix"].as_str().unwrap()));
    let seen = cloud.get("/api-keys/ci").await;
    assert_eq!((seen.json["role"].as_str(), seen.json["project"].as_str()), (Some("VIEWER"), Some("default")));
    for answer in [&seen, &cloud.get("/api-keys").await] {
        assert!(!answer.text.contains(&secret[10..]) && !answer.text.contains("hash"), "{}", answer.text);
    }
    assert_eq!(as_key(&cloud, &secret, "GET", "/vpcs", &Value::Null).await.status, 200);
    let rotated = cloud.post("/api-keys/ci/rotate", json!({"overlap_seconds": 60})).await;
    let second = rotated.json["secret"].as_str().unwrap().to_owned();
    for key in [&secret, &second] {
        assert_eq!(as_key(&cloud, key, "GET", "/vpcs", &Value::Null).await.status, 200);
    }
    let revoked = cloud.send("DELETE", "/api-keys/ci", "").await;
    assert!(revoked.json["revoked_at"].is_string(), "{}", revoked.json);
    for key in [&secret, &second] {
        assert_eq!(as_key(&cloud, key, "GET", "/vpcs", &Value::Null).await.status, 401);
    }
    let last = cloud.send("DELETE", "/api-keys/admin", "").await;
    assert_eq!((last.status.as_u16(), last.json["error"]["status"].as_str()), (400, Some("FAILED_PRECONDITION")));
    assert!(last.text.contains("LAST_OPERATOR_KEY"), "{}", last.text);
}

#[tokio::test]
async fn a_console_link_ends_with_the_key_that_it_was_given_to() {
    let cloud = Cloud::with_image().await;
    let made = cloud.launch("web-01").await;
    cloud.runs(&made).await;
    let key = made_key(&cloud, "default", "ci", "MEMBER").await;
    let url = as_key(&cloud, &key, "GET", "/instances/web-01/console", &Value::Null).await.json["url"].clone();
    let path = url.as_str().unwrap().trim_start_matches("http://cloud.test").to_owned();
    let open = || async { cloud.raw(Request::get(&path).body(Body::empty()).unwrap()).await.status().as_u16() };
    assert_eq!(open().await, 200);
    assert_eq!(cloud.send("DELETE", "/api-keys/ci", "").await.status, 200);
    assert_eq!(open().await, 401);
}

#[tokio::test]
async fn a_quota_says_which_limit_by_how_much() {
    let cloud = Cloud::with_image().await;
    cloud.launch("web-01").await;
    let quota = cloud.send("PATCH", "/quotas/default", json!({"limits": {"instances": 1}}).to_string()).await;
    assert_eq!(
        (&quota.json["limits"]["instances"], &quota.json["used"]["instances"]),
        (&json!("1"), &json!("1")),
        "{}",
        quota.json
    );
    let refused = cloud.post("/instances", json!({"name": "web-02", "image": "tiny", "instance_type": "tiny"})).await;
    assert_eq!((refused.status.as_u16(), refused.json["error"]["status"].as_str()), (429, Some("RESOURCE_EXHAUSTED")));
    let details = refused.json["error"]["details"].as_array().unwrap();
    let failure = details.iter().find(|d| d["@type"].as_str().unwrap().ends_with("QuotaFailure")).unwrap();
    assert_eq!(
        failure["violations"],
        json!([{"subject": "project:default/instances", "description": "instances: the limit is 1, 1 used, 1 asked for"}])
    );
    for (path, limited, code) in [("/quotas/nowhere", "vpcs", 404), ("/quotas/default", "bananas", 400)] {
        let answer = cloud.send("PATCH", path, json!({"limits": {limited: 1}}).to_string()).await;
        assert_eq!(answer.status, code, "{path}: {}", answer.json);
    }
}

#[tokio::test]
async fn a_key_that_calls_too_often_is_told_when_to_come_back() {
    let cloud = Cloud::with_rate(CallRate { per_second: 2, burst: 5 }).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(cloud.get("/vpcs").await);
    }
    let refused = answers.iter().find(|a| a.status == 429).expect("one is refused");
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 5);
    assert!(refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
    let details = refused.json["error"]["details"].as_array().unwrap();
    assert!(details.iter().any(|d| d["@type"].as_str().unwrap().ends_with("RetryInfo")), "{}", refused.json);
    assert_eq!(grpc(&cloud, KEY, "cloud.v1.VpcService/ListVpcs", b"").await, 8);
    // Whoever has no key does not use up another's.
    assert_eq!(as_key(&cloud, "wrong", "GET", "/vpcs", &Value::Null).await.status, 401);
}

/// Events of refusals, the newest first: action, outcome, actor, resource.
async fn refusals(cloud: &Cloud) -> Vec<(String, String, String, String)> {
    let events = cloud.get("/events?page_size=500").await.json["events"].as_array().unwrap().clone();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let refused = events.iter().filter(|event| event["outcome"] != "OK");
    refused.map(|e| (text(e, "action"), text(e, "outcome"), text(e, "actor"), text(e, "resource_name"))).collect()
}

#[tokio::test]
async fn refused_changes_are_written_down_and_reads_are_not() {
    let cloud = Cloud::with_image().await;
    cloud.launch("web-01").await;
    let viewer = made_key(&cloud, "default", "looker", "VIEWER").await;
    cloud.post("/instances", json!({"name": "web-01", "image": "tiny", "instance_type": "tiny"})).await;
    cloud.post("/instances", json!({"name": "Bad", "image": "tiny"})).await;
    cloud.post("/instances/nothing/start", json!({})).await;
    cloud.post("/instances/web-01/reboot", json!({})).await;
    cloud.post("/instances/web-01/stop", json!({"etag": "77"})).await;
    cloud.post("/vpcs", json!({"colour": "red"})).await;
    cloud.get("/instances/nothing").await;
    as_key(&cloud, &viewer, "DELETE", "/instances/web-01", &Value::Null).await;
    assert_eq!(grpc(&cloud, &viewer, "cloud.v1.ProjectService/CreateProject", b"\n\x01a").await, 7);
    as_key(&cloud, &viewer, "POST", "/images:upload?name=x", &Value::Null).await;
    cloud.send("POST", "/images:upload?name=tiny", vec![0; 4096]).await;
    let expected = [
        ("image.upload", "ALREADY_EXISTS", "admin", "tiny"),
        ("image.upload", "PERMISSION_DENIED", "looker", ""),
        ("project.create", "PERMISSION_DENIED", "looker", ""),
        ("instance.delete", "PERMISSION_DENIED", "looker", "web-01"),
        ("vpc.create", "INVALID_ARGUMENT", "admin", ""),
        ("instance.stop", "ABORTED", "admin", "web-01"),
        ("instance.reboot", "FAILED_PRECONDITION", "admin", "web-01"),
        ("instance.start", "NOT_FOUND", "admin", "nothing"),
        ("instance.launch", "INVALID_ARGUMENT", "admin", "Bad"),
        ("instance.launch", "ALREADY_EXISTS", "admin", "web-01"),
    ];
    let expected = expected.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned()));
    assert_eq!(refusals(&cloud).await, expected);
    let events = cloud.get("/events?page_size=500").await.json["events"].as_array().unwrap().clone();
    let first = events.iter().find(|e| e["outcome"] != "OK").unwrap();
    assert!(!first["request_id"].as_str().unwrap().is_empty() && first["source"] == "192.0.2.7", "{first}");
    assert!(first["message"].as_str().unwrap().contains("already"), "{first}");
}

#[tokio::test]
async fn a_flood_of_refusals_does_not_fill_the_database() {
    let cloud = Cloud::with_rate(CallRate { per_second: 0, burst: 0 }).await;
    for _ in 0..300 {
        assert_eq!(cloud.post("/instances/nothing/start", json!({})).await.status, 404);
    }
    let written = refusals(&cloud).await.len();
    assert!((100..200).contains(&written), "{written}");
    let text = cloud.get("/metrics").await.text;
    assert!(text.contains("refusals_unrecorded_total"), "{text}");
}
