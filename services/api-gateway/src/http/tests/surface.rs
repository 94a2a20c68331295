//! What there is on the port beside resources.

use prost::Message;
use serde_json::json;

use super::fixture::Cloud;
use crate::http::SERVICES;

#[test]
fn every_service_of_the_contract_is_served() {
    let set = prost_types::FileDescriptorSet::decode(cloud_contracts::DESCRIPTORS).unwrap();
    let files = set.file.iter().filter(|file| file.package() == "cloud.v1");
    let mut names: Vec<_> = files.flat_map(|f| f.service.iter().map(|s| format!("cloud.v1.{}", s.name()))).collect();
    names.sort();
    let mut served = SERVICES.to_vec();
    served.sort_unstable();
    assert_eq!(served, names);
}

#[tokio::test]
async fn the_openapi_document_has_every_route_and_the_upload() {
    let cloud = Cloud::new().await;
    let document = cloud.get("/openapi.json").await.json;
    assert_eq!(document["openapi"], "3.1.0");
    for (verb, path, method) in cloud_contracts::rest::ROUTES {
        let operation = &document["paths"][path][verb.to_lowercase()];
        assert!(operation.is_object(), "{verb} {path} ({method})");
    }
    let upload = &document["paths"]["/images:upload"]["post"];
    assert!(upload["requestBody"]["content"]["application/octet-stream"].is_object());
    assert!(upload["responses"]["201"].is_object(), "{upload}");
    assert_eq!(upload["tags"], document["paths"]["/images"]["post"]["tags"]);
}

#[tokio::test]
async fn metrics_say_what_the_cloud_has() {
    let cloud = Cloud::with_image().await;
    cloud.launch("web-01").await;
    let text = cloud.get("/metrics").await.text;
    for line in [
        r#"instances{status="STARTING",service="api-gateway"} 1"#,
        r#"host_up{host="h1",service="api-gateway"} 1"#,
        r#"host_capacity{host="h1",resource="vcpus",service="api-gateway"} 4"#,
        r#"host_used{host="h1",resource="vcpus",service="api-gateway"} 1"#,
        r#"host_used{host="h1",resource="memory_bytes",service="api-gateway"} 134217728"#,
        r#"host_used{host="h1",resource="pool_bytes",service="api-gateway"} 42949672960"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let due = text.lines().find(|l| l.starts_with("work_queue_due{")).unwrap();
    assert!(!due.ends_with(" 0"), "{due}");
    assert!(text.contains(r#"method="cloud.v1.InstanceService/LaunchInstance""#), "{text}");
}

#[tokio::test]
async fn readiness_follows_its_components() {
    let cloud = Cloud::new().await;
    let answer = cloud.get("/health/ready").await;
    assert_eq!((answer.status.as_u16(), &answer.json["components"]), (503, &json!({"database": "starting"})));
    cloud.readiness.set_ready("database");
    assert_eq!(cloud.get("/health/ready").await.status, 200);
}
