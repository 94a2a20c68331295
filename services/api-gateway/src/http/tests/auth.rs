//! Who may.

use axum::{body::Body, http::Request};
use cloud_service_kit::server::Peer;
use std::sync::Arc;

use super::fixture::{Answer, Cloud, KEY, connection};

async fn status(cloud: &Cloud, method: &str, path: &str, header: Option<(&str, &str)>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    Answer::read(cloud.raw(request.body(Body::empty()).unwrap()).await).await
}

#[tokio::test]
async fn every_route_of_the_contract_needs_a_key() {
    let cloud = Cloud::new().await;
    let routes = cloud_contracts::rest::ROUTES.iter().map(|(verb, path, _)| (*verb, path.replace(['{', '}'], "")));
    let routes: Vec<_> = routes.chain([("POST", "/images:upload".to_owned())]).collect();
    assert!(routes.len() > 25, "{}", routes.len());
    for (verb, path) in routes {
        for path in [path.clone(), format!("/v1{path}")] {
            let answer = status(&cloud, verb, &path, None).await;
            assert_eq!(answer.status, 401, "{verb} {path}");
            assert_eq!(answer.json["error"]["status"], "UNAUTHENTICATED");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert!(answer.headers.contains_key("x-request-id"));
        }
    }
}

#[tokio::test]
async fn only_a_key_that_exists_in_the_right_form_is_one() {
    let cloud = Cloud::new().await;
    let with = async |value: &str| status(&cloud, "GET", "/instances", Some(("authorization", value))).await.status;
    assert_eq!(with(&format!("Bearer {KEY}")).await, 200);
    assert_eq!(with(&format!("bearer {KEY}")).await, 200);
    for bad in ["Bearer", "Bearer ", "Basic dTpw", KEY, "Bearer tck_another", &format!("Bearer {KEY}x")] {
        assert_eq!(with(bad).await, 401, "{bad}");
    }
}

#[tokio::test]
async fn a_project_is_named_by_header_and_must_exist() {
    let cloud = Cloud::new().await;
    let with = async |project: &str| {
        let request = Request::get("/vpcs").header("authorization", format!("Bearer {KEY}"));
        let request = request.header("x-project", project).body(Body::empty()).unwrap();
        cloud.raw(request).await.status()
    };
    assert_eq!(with("default").await, 200);
    assert_eq!(with("nobodys").await, 404);
}

#[tokio::test]
async fn what_says_nothing_is_open_and_metrics_are_for_this_machine_and_operators() {
    let cloud = Cloud::new().await;
    cloud.readiness.set_ready("database");
    for path in ["/health/live", "/health/ready", "/openapi.json"] {
        assert_eq!(status(&cloud, "GET", path, None).await.status, 200, "{path}");
    }
    assert_eq!(status(&cloud, "GET", "/metrics", None).await.status, 401);
    assert_eq!(cloud.get("/metrics").await.status, 200);
    let local = |forwarded: bool| {
        let peer = Peer::Tcp(Some("127.0.0.1:1".parse().unwrap()));
        let mut request = Request::get("/metrics").extension(Arc::new(connection(peer)));
        if forwarded {
            request = request.header("x-forwarded-for", "192.0.2.1");
        }
        cloud.raw(request.body(Body::empty()).unwrap())
    };
    assert_eq!(local(false).await.status(), 200);
    assert_eq!(local(true).await.status(), 401);
}
