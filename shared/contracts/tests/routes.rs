//! The routes of the public contract: they go together, and each leads to its method.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::Arc;

use axum::{Router, body::Body};
use cloud_contracts::{
    checked::Checked,
    rest,
    v1::{
        api_key_service_server::ApiKeyService, event_service_server::EventService, host_service_server::HostService,
        image_service_server::ImageService, instance_service_server::InstanceService,
        instance_type_service_server::InstanceTypeService, port_service_server::PortService,
        project_service_server::ProjectService, quota_service_server::QuotaService,
        security_group_service_server::SecurityGroupService, snapshot_service_server::SnapshotService,
        ssh_key_service_server::SshKeyService, subnet_service_server::SubnetService,
        volume_service_server::VolumeService, vpc_service_server::VpcService,
    },
};
use cloud_rest::{Config, RpcMethod};
use http::{Request, StatusCode};
use tower::ServiceExt;

/// Implements every service by its stubs.
struct Nothing;

impl EventService for Nothing {}
impl HostService for Nothing {}
impl ProjectService for Nothing {}
impl ApiKeyService for Nothing {}
impl QuotaService for Nothing {}
impl ImageService for Nothing {}
impl InstanceTypeService for Nothing {}
impl InstanceService for Nothing {}
impl PortService for Nothing {}
impl SecurityGroupService for Nothing {}
impl SnapshotService for Nothing {}
impl SshKeyService for Nothing {}
impl VolumeService for Nothing {}
impl VpcService for Nothing {}
impl SubnetService for Nothing {}

fn router() -> Router {
    let config = Arc::new(Config::new(|status| {
        let code = if status.code() == tonic::Code::Unimplemented { 501 } else { 400 };
        (StatusCode::from_u16(code).unwrap(), serde_json::json!({"error": {"code": code}}))
    }));
    let service = Arc::new(Checked::new(Nothing));
    let router = Router::new()
        .merge(rest::event_service(Arc::clone(&service), &config))
        .merge(rest::host_service(Arc::clone(&service), &config))
        .merge(rest::project_service(Arc::clone(&service), &config))
        .merge(rest::api_key_service(Arc::clone(&service), &config))
        .merge(rest::quota_service(Arc::clone(&service), &config))
        .merge(rest::image_service(Arc::clone(&service), &config))
        .merge(rest::instance_type_service(Arc::clone(&service), &config))
        .merge(rest::instance_service(Arc::clone(&service), &config))
        .merge(rest::port_service(Arc::clone(&service), &config))
        .merge(rest::security_group_service(Arc::clone(&service), &config))
        .merge(rest::snapshot_service(Arc::clone(&service), &config))
        .merge(rest::ssh_key_service(Arc::clone(&service), &config))
        .merge(rest::volume_service(Arc::clone(&service), &config))
        .merge(rest::vpc_service(Arc::clone(&service), &config))
        .merge(rest::subnet_service(Arc::clone(&service), &config));
    cloud_rest::with_fallbacks(router, &config)
}

#[tokio::test]
async fn every_route_leads_to_its_method() {
    let router = router();
    let mut verbs_and_paths = std::collections::HashSet::new();
    for (verb, path, method) in rest::ROUTES {
        assert!(verbs_and_paths.insert((verb, path)), "{verb} {path} is there once");
        for version in ["", "/v1"] {
            let uri = format!("{version}{}", path.replace(['{', '}'], "x"));
            let request = Request::builder().method(*verb).uri(&uri).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.extensions().get::<RpcMethod>(), Some(&RpcMethod(method)), "{verb} {uri}");
            assert!([400, 501].contains(&response.status().as_u16()), "{verb} {uri}: {}", response.status());
        }
    }
}

#[test]
fn the_list_of_routes() {
    let lines: Vec<_> = rest::ROUTES.iter().map(|(verb, path, method)| format!("{verb} {path} {method}")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_openapi_document() {
    insta::assert_yaml_snapshot!(cloud_contracts::openapi());
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document = cloud_contracts::openapi();
    let paths = document["paths"].as_object().unwrap();
    let listed = rest::ROUTES.iter().map(|(verb, path, _)| ((*path).to_owned(), verb.to_lowercase()));
    let documented = paths
        .iter()
        .flat_map(|(path, verbs)| verbs.as_object().unwrap().keys().map(move |verb| (path.clone(), verb.clone())));
    assert_eq!(
        listed.collect::<std::collections::BTreeSet<_>>(),
        documented.collect::<std::collections::BTreeSet<_>>()
    );
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn walk(value: &serde_json::Value, document: &serde_json::Value) {
        match value {
            serde_json::Value::Object(object) => {
                if let Some(reference) = object.get("$ref").and_then(|reference| reference.as_str()) {
                    let target = document.pointer(reference.trim_start_matches('#'));
                    assert!(target.is_some_and(serde_json::Value::is_object), "{reference}");
                }
                object.values().for_each(|value| walk(value, document));
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| walk(value, document)),
            _ => {}
        }
    }
    let document = cloud_contracts::openapi();
    walk(&document, &document);
}
