//! The whole gateway in this process, with simulated hosts.

use std::path::Path;

use clap::Parser;
use cloud_testkit::{
    RestClient,
    sim::{SimHost, SimHostConfig},
    wait::until,
};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::adapters::images::Probing;

const TIMEOUT: Duration = Duration::from_secs(30);

struct Running {
    rest: RestClient,
    shutdown: CancellationToken,
    task: AbortOnDropHandle<Result<(), GatewayError>>,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn start(dir: &Path) -> Running {
    let port = free_port();
    let config = Config::parse_from([
        "cloud-api-gateway".to_owned(),
        format!("--listen=127.0.0.1:{port}"),
        format!("--state-dir={}", dir.display()),
        "--heartbeat-interval-ms=100".to_owned(),
        "--stop-grace=2".to_owned(),
    ]);
    let images = |options, cloud| ImageFiles::with(options, cloud, Probing::Header, Arc::new(|_| false));
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let task = tokio::spawn(async move { run_with(&config, images, token).await });
    let rest = RestClient::new(format!("http://127.0.0.1:{port}"));
    until("the gateway to be ready", TIMEOUT, || async {
        Ok(match rest.get("/health/ready").await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        })
    })
    .await
    .unwrap();
    let key = std::fs::read_to_string(dir.join("admin.key")).unwrap();
    Running { rest: rest.with_key(key.trim()).unwrap(), shutdown, task: AbortOnDropHandle::new(task) }
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(TIMEOUT, self.task).await.unwrap().unwrap().unwrap();
    }

    /// Waits until a resource's field has a value.
    async fn becomes(&self, path: &str, field: &str, value: &str) -> Value {
        until(&format!("{path} {field}={value}"), TIMEOUT, || async {
            let json = self.rest.get(path).await?.json();
            Ok(if json[field] == value { Ok(json) } else { Err(json.to_string()) })
        })
        .await
        .unwrap()
    }
}

/// Launched, seen, stopped, started, restarted over, deleted; and nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_lives_on_a_simulated_host() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("gateway");
    for new in [&state, &dir.path().join("h1")] {
        std::fs::create_dir(new).unwrap();
    }
    let gateway = start(&state).await;
    let socket = format!("unix:{}", state.join("host.sock").display());
    let host = SimHost::start(SimHostConfig::new("h1", dir.path().join("h1"), Some(socket))).unwrap();
    gateway.becomes("/hosts/h1", "state", "UP").await;
    let bytes = vec![7_u8; 1 << 20];
    let upload = gateway.rest.send(http::Method::POST, "/images:upload?name=tiny", None, bytes).await.unwrap();
    assert_eq!(upload.expect(201).unwrap()["status"], "READY");
    let launch = json!({"name": "web-01", "image": "tiny", "instance_type": "tiny"});
    let made = gateway.rest.post("/instances", &launch).await.unwrap().expect(201).unwrap();
    assert_eq!(made["status"], "STARTING");
    let running = gateway.becomes("/instances/web-01", "status", "RUNNING").await;
    assert_eq!((&running["console_available"], &running["host"]), (&json!(true), &json!("h1")));
    let stopped = gateway.rest.post("/instances/web-01/stop", &json!({})).await.unwrap().expect(200).unwrap();
    assert_eq!(stopped["status"], "STOPPED");
    gateway.rest.post("/instances/web-01/start", &json!({})).await.unwrap().expect(200).unwrap();
    gateway.becomes("/instances/web-01", "status", "RUNNING").await;
    gateway.stop().await;
    let gateway = start(&state).await;
    gateway.becomes("/hosts/h1", "state", "UP").await;
    gateway.becomes("/instances/web-01", "status", "RUNNING").await;
    gateway.rest.delete("/instances/web-01").await.unwrap().expect(200).unwrap();
    let id = made["id"].as_str().unwrap();
    gateway.becomes(&format!("/instances/{id}"), "status", "DELETED").await;
    until("nothing to be left", TIMEOUT, || async {
        let left = host.leftovers();
        Ok(if left.is_empty() { Ok(()) } else { Err(left.to_string()) })
    })
    .await
    .unwrap();
    assert_eq!(host.violations(), Vec::<String>::new());
    gateway.stop().await;
}
