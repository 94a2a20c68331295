//! Who may call, and which routes there are.

use cloud_contracts::v1::{ListInstancesRequest, instance_service_client::InstanceServiceClient};
use cloud_testkit::{GrpcClient, RestClient};
use cloud_tests::TestCloud;
use http::Method;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::refused;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_answered() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let nobody = RestClient::new(cloud.gateway.url());
    for (method, path) in [
        (Method::GET, "/instances"),
        (Method::GET, "/instances/nonesuch"),
        (Method::POST, "/instances"),
        (Method::DELETE, "/instances/a"),
        (Method::GET, "/hosts"),
        (Method::GET, "/v1/instances"),
        (Method::POST, "/images:upload?name=x"),
    ] {
        let answer = nobody.send(method, path, Some("application/json"), "{}").await?;
        refused(&answer, 401, "UNAUTHENTICATED");
        assert!(answer.headers.contains_key(http::header::WWW_AUTHENTICATE), "RFC 9110, section 15.5.2");
    }
    for key in ["wrong", "", "Bearer", &"x".repeat(5000)] {
        let answer = nobody.clone().with_key(key)?.get("/instances").await?;
        refused(&answer, 401, "UNAUTHENTICATED");
    }
    let basic = nobody.clone().with_header(http::header::AUTHORIZATION, "Basic YTpi")?.get("/instances").await?;
    refused(&basic, 401, "UNAUTHENTICATED");

    let mut grpc = InstanceServiceClient::new(cloud.gateway.channel()?);
    let error = grpc.list_instances(ListInstancesRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unauthenticated);
    let wrong = GrpcClient::new(cloud.gateway.channel()?, "wrong")?;
    let error = InstanceServiceClient::new(wrong.service()).list_instances(ListInstancesRequest::default()).await;
    assert_eq!(error.unwrap_err().code(), tonic::Code::Unauthenticated);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_its_owners_alone_and_survives_a_restart() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    let mode = std::fs::metadata(cloud.gateway.key_file())?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let database = std::fs::metadata(cloud.dir.path().join("cloud.db"))?.permissions().mode();
    assert_eq!(database & 0o077, 0, "the database is its owner's alone");
    let socket = std::fs::metadata(cloud.dir.path().join("host.sock"))?.permissions().mode();
    assert_eq!(socket & 0o077, 0, "the agents' socket is its owner's alone");
    let key = cloud.gateway.key()?;
    cloud.gateway.restart().await?;
    assert_eq!(cloud.gateway.key()?, key);
    assert!(!cloud.gateway.log()?.contains(&key), "no key in the log");
    cloud.rest.get("/instances").await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods_are_told_apart() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    for path in ["/nonsense", "/", "/instances/a/b/c", "/v2/instances", "/instances/a/pause", "/ssh-keys"] {
        let answer = cloud.rest.get(path).await?;
        assert!(matches!(answer.status.as_u16(), 404 | 405), "{path}: {} {}", answer.status, answer.text());
    }
    refused(&cloud.rest.get("/nonsense").await?, 404, "NOT_FOUND");
    let wrong = cloud.rest.send(Method::PUT, "/instances", Some("application/json"), "{}").await?;
    assert_eq!(wrong.status, 405, "{}", wrong.text());
    assert!(wrong.headers.contains_key(http::header::ALLOW));
    cloud.rest.get("/v1/instances").await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_does_not_touch_the_first_ones_database() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let other = tempfile::tempdir()?;
    let config = cloud_testkit::GatewayConfig {
        database: Some(format!("sqlite:{}", cloud.dir.path().join("cloud.db").display())),
        ..Default::default()
    };
    let second = cloud_testkit::GatewayProcess::start(other.path(), config).await;
    assert!(second.is_err(), "one process owns the file");
    cloud.running("web-01").await?;
    Ok(())
}
