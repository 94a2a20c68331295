//! What the one port offers beside the API: OpenAPI, reflection, health, gRPC-Web, metrics, request ids.

use cloud_testkit::RestClient;
use cloud_tests::TestCloud;
use futures::StreamExt as _;
use http::Method;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

#[tokio::test(flavor = "multi_thread")]
async fn health_is_for_everybody() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let nobody = RestClient::new(cloud.gateway.url());
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(nobody.get(path).await?.status, 200, "{path}");
    }
    let mut health = HealthClient::new(cloud.gateway.channel()?);
    for service in ["", "cloud.v1.InstanceService", "cloud.v1.ImageService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await?.into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = health.check(HealthCheckRequest { service: "nonsense".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_lists_what_is_served() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let document = RestClient::new(cloud.gateway.url()).get("/openapi.json").await?.expect(200)?;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    for path in ["/instances", "/instances/{id}/stop", "/instances/{id}/console", "/images:upload", "/hosts"] {
        assert!(paths.contains_key(path), "{path}");
    }
    assert!(!paths.contains_key("/instances/{id}/pause"), "what is not built has no entry");
    // Every GET without parameters in its path answers. A watch has no end; its tests are its own.
    let asked =
        |p: &str, item: &serde_json::Value| !p.contains('{') && !p.ends_with(":watch") && item.get("get").is_some();
    for (path, item) in paths.iter().filter(|(p, item)| asked(p, item)) {
        let answer = cloud.rest.get(path).await?;
        assert_eq!(answer.status, 200, "{path} {item}: {}", answer.text());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_speaks_both_versions() -> anyhow::Result<()> {
    use tonic_reflection::pb::{v1, v1alpha};
    let cloud = TestCloud::start().await?;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(cloud.gateway.channel()?);
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(futures::stream::iter([request])).await?.into_inner();
    let answer = answers.next().await.unwrap()?.message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let services: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    for name in ["cloud.v1.InstanceService", "cloud.v1.ImageService", "grpc.health.v1.Health"] {
        assert!(services.iter().any(|s| s == name), "{name} is not in {services:?}");
    }
    assert!(!services.iter().any(|s| s.starts_with("cloud.agent")), "the agents' contract is not public: {services:?}");

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(cloud.gateway.channel()?);
    let symbol = "cloud.v1.InstanceService".to_owned();
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(symbol)),
    };
    let mut answers = client.server_reflection_info(futures::stream::iter([request])).await?.into_inner();
    let answer = answers.next().await.unwrap()?.message_response.unwrap();
    assert!(
        matches!(answer, v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)),
        "{answer:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_speaks_grpc_web() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let path = "/cloud.v1.InstanceService/ListInstances";
    // An empty message: no flags, no bytes.
    let answer = cloud.rest.send(Method::POST, path, Some("application/grpc-web+proto"), vec![0_u8; 5]).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.headers["content-type"].to_str()?.starts_with("application/grpc-web"));
    assert!(answer.text().contains("grpc-status:0"), "the trailers are in the body: {}", answer.text());
    let plain = cloud.rest.send(Method::POST, path, Some("application/grpc"), vec![0_u8; 5]).await;
    // gRPC proper needs HTTP/2; over HTTP/1.1 it is refused, whatever the form.
    assert!(plain.is_err() || plain.unwrap().headers.get("grpc-status").is_none_or(|s| s != "0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_built_says_so() -> anyhow::Result<()> {
    use cloud_contracts::v1::{
        ListSshKeysRequest, PauseInstanceRequest, instance_service_client::InstanceServiceClient,
        ssh_key_service_client::SshKeyServiceClient,
    };
    let cloud = TestCloud::start().await?;
    let grpc = cloud.gateway.grpc()?;
    let pause = InstanceServiceClient::new(grpc.service()).pause_instance(PauseInstanceRequest::default()).await;
    assert_eq!(pause.unwrap_err().code(), tonic::Code::Unimplemented);
    let list = SshKeyServiceClient::new(grpc.service()).list_ssh_keys(ListSshKeysRequest::default()).await;
    assert_eq!(list.unwrap_err().code(), tonic::Code::Unimplemented);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_route_is_built() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let mut answers = Vec::new();
    // A watch has no end; its tests are its own.
    for (verb, path, method) in cloud_contracts::rest::ROUTES.iter().filter(|(_, path, _)| !path.ends_with(":watch")) {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "nonesuch" } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        let verb = Method::from_bytes(verb.as_bytes())?;
        let body = if verb == Method::POST { "{}" } else { "" };
        let answer = cloud.rest.send(verb.clone(), &path, Some("application/json"), body).await?;
        let said = format!("{verb} {path} ({method}): {} {}", answer.status, answer.text());
        // Of its own kind: an empty body is refused or nothing has that name, and a list is there. One method has nothing to be told.
        let made = answer.status == 201 && method.ends_with("/RotateAuthority");
        assert!(made || matches!(answer.status.as_u16(), 200 | 400 | 404), "{said}");
        assert_ne!(answer.at("/error/status"), "UNIMPLEMENTED", "{said}");
        answers.push((answer.status.as_u16(), said));
    }
    // A list without a parent answers; without this, a gateway that refuses everything would pass.
    let lists = answers.iter().filter(|(_, said)| said.contains("Service/List") && !said.contains("nonesuch"));
    let refused: Vec<_> = lists.clone().filter(|(status, _)| *status != 200).collect();
    assert!(lists.count() >= 8 && refused.is_empty(), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_what_an_operator_looks_at() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    let answer = RestClient::new(cloud.gateway.url()).get("/metrics").await?;
    let text = answer.text();
    assert_eq!(answer.status, 200);
    for part in ["# TYPE", "_bucket{", "LaunchInstance", "RUNNING", "work", "h1"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_a_request_id_and_the_callers_is_kept() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    for path in ["/instances", "/nonsense", "/health/live"] {
        let answer = cloud.rest.get(path).await?;
        assert!(answer.headers.contains_key("x-request-id"), "{path}: {:?}", answer.headers);
    }
    let name = http::HeaderName::from_static("x-request-id");
    let answer = cloud.rest.clone().with_header(name, "mine-42")?.get("/instances").await?;
    assert_eq!(answer.headers["x-request-id"], "mine-42");
    Ok(())
}
