use std::time::Duration;

use async_trait::async_trait;
use cloud_contracts::agent::Capacity;
use tokio_stream::StreamExt;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use super::*;
use crate::channel::agent_channel;

struct Healthy;

#[async_trait]
impl CapacitySource for Healthy {
    async fn capacity(&self) -> (Capacity, Result<(), String>) {
        (Capacity::default(), Ok(()))
    }
}

fn runtime(directory: &std::path::Path) -> AgentRuntime {
    let args = AgentArgs {
        gateway: vec![Address::Unix(directory.join("host.sock"))],
        state_dir: directory.join("state"),
        host_name: Some("h1".into()),
        host_id_file: directory.join("host-id"),
        advertise: None,
        tls: crate::agent::AgentTlsArgs::default(),
    };
    let shutdown = CancellationToken::new();
    AgentRuntime::embedded("storage-agent", AgentRole::Storage, &DaemonArgs::default(), &args, shutdown).unwrap()
}

#[tokio::test]
async fn an_agent_serves_health_reflection_and_metrics_and_ends_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let agent = runtime(directory.path());
    let shutdown = agent.shutdown.clone();
    let address = Address::Unix(directory.path().join("state/storage.sock"));
    let readiness = agent.readiness.clone();
    let serving = tokio::spawn(serve_agent(agent, Routes::default(), Arc::new(Healthy)));
    // The first thing that the agent does while it serves is to fail to register.
    let mut health = HealthClient::new(agent_channel(&address));
    let check = || HealthCheckRequest { service: "cloud.agent.v1.StorageService".into() };
    let status = retry(async || health.check(check()).await.ok()).await.into_inner().status;
    assert_eq!(status, 2, "not serving before it is registered");
    readiness.set_ready(BACKEND);
    readiness.set_ready(GATEWAY);

    let list = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..v1::ServerReflectionRequest::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(agent_channel(&address));
    let mut answers = client.server_reflection_info(futures::stream::iter([list])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.next().await.unwrap().unwrap());
    assert!(answer.contains("cloud.agent.v1.StorageService") && answer.contains("grpc.health.v1.Health"), "{answer}");
    assert!(!answer.contains("ComputeService") && !answer.contains("cloud.v1"), "{answer}");
    let symbol = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "cloud.agent.v1.StorageService".into(),
        )),
        ..v1alpha::ServerReflectionRequest::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(agent_channel(&address));
    let mut answers = client.server_reflection_info(futures::stream::iter([symbol])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.next().await.unwrap().unwrap());
    assert!(answer.contains("FileDescriptorResponse"), "{answer}");

    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), serving).await.expect("in time").unwrap().unwrap();
}

#[tokio::test]
async fn a_second_agent_of_the_same_role_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Listener::bind(&Address::Unix(directory.path().join("state/storage.sock")), BindPolicy::default())
        .await
        .unwrap();
    let error = serve_agent(runtime(directory.path()), Routes::default(), Arc::new(Healthy)).await.unwrap_err();
    assert!(matches!(error, AgentError::Listen(ListenError::InUse { .. })), "{error}");
}

/// Tries until there is an answer.
async fn retry<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let trying = async {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), trying).await.expect("in time")
}
