//! A simulated agent's signs of life: register, then heartbeats, as a real agent sends them.

use std::{sync::Arc, time::Duration};

use cloud_contracts::agent::{
    AgentRole, Capacity, ComputeCapacity, HeartbeatRequest, HeartbeatsRequest, NetworkCapacity, Pool, RegisterRequest,
    StorageCapacity, host_service_client::HostServiceClient,
};
use futures::{SinkExt as _, channel::mpsc};
use tokio::time::timeout;
use tonic::{Request, Status, transport::Channel};

use super::{Role, host::Shared, volumes::POOL};

/// How long an answer of the gateway may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait before another try to register.
const RETRY: Duration = Duration::from_millis(50);

/// Registers and sends heartbeats for as long as it is polled: to one gateway for as long as it answers, then to the next.
pub(crate) async fn live(host: Arc<Shared>, role: Role, session: String) {
    let mut clients: Vec<_> = host.gateways().into_iter().map(HostServiceClient::new).collect();
    for at in (0..clients.len()).cycle() {
        if let Err(error) = live_with(&host, role, &session, &mut clients[at]).await {
            tracing::debug!(%error, %role, "a simulated agent looks for another gateway");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Until the gateway does not answer.
async fn live_with(
    host: &Shared,
    role: Role,
    session: &str,
    client: &mut HostServiceClient<Channel>,
) -> Result<(), Status> {
    loop {
        host.reachable().await;
        let interval = register(host, role, session, client).await?;
        heartbeats(host, role, session, client, interval).await?;
    }
}

async fn register(
    host: &Shared,
    role: Role,
    session: &str,
    client: &mut HostServiceClient<Channel>,
) -> Result<Duration, Status> {
    let request = RegisterRequest {
        host_id: host.id.clone(),
        host_name: host.name.clone(),
        role: wire(role).into(),
        session_id: session.to_owned(),
        endpoint: format!("unix:{}", host.socket(role).display()),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: host.boot_id(),
        capacity: Some(capacity(host, role)),
    };
    let mut request = Request::new(request);
    request.set_timeout(DEADLINE);
    let answer = client.register(request).await?.into_inner();
    host.model().fences.of(role).cloud = Some(answer.cloud_id);
    Ok(Duration::from_millis(answer.heartbeat_interval_ms.max(1).into()))
}

/// Until the gateway asks to register again.
async fn heartbeats(
    host: &Shared,
    role: Role,
    session: &str,
    client: &mut HostServiceClient<Channel>,
    interval: Duration,
) -> Result<(), Status> {
    let (mut beats, receiver) = mpsc::channel(0);
    let mut answers = in_time(client.heartbeats(receiver)).await?.into_inner();
    loop {
        host.heartbeat_due(interval).await;
        host.reachable().await;
        let backend_error = host.model().backend_errors[role.index()].clone();
        let beat = HeartbeatRequest {
            host_id: host.id.clone(),
            role: wire(role).into(),
            session_id: session.to_owned(),
            capacity: Some(capacity(host, role)),
            backend_healthy: backend_error.is_none(),
            backend_error: backend_error.unwrap_or_default(),
        };
        // Where the stream has ended, what comes instead of an answer says why.
        let _ended = beats.send(HeartbeatsRequest { heartbeat: Some(beat) }).await;
        let answer = in_time(answers.message()).await?;
        let answer = answer.ok_or_else(|| Status::unavailable("the gateway ended the stream"))?;
        if answer.heartbeat.unwrap_or_default().register_again {
            return Ok(());
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(DEADLINE, answer).await.map_err(|_| Status::deadline_exceeded("the gateway does not answer"))?
}

fn wire(role: Role) -> AgentRole {
    match role {
        Role::Compute => AgentRole::Compute,
        Role::Storage => AgentRole::Storage,
        Role::Network => AgentRole::Network,
    }
}

fn capacity(host: &Shared, role: Role) -> Capacity {
    let model = host.model();
    let mut all = Capacity::default();
    match role {
        Role::Compute => {
            all.compute = Some(ComputeCapacity {
                vcpus: model.capacity.vcpus,
                memory_mib: model.capacity.memory_mib,
                accelerator: "tcg".into(),
                hypervisor: "simulated".into(),
                architecture: "x86_64".into(),
                load_hundredths: 25,
                load5_hundredths: 50,
                load15_hundredths: 75,
            });
        }
        Role::Storage => {
            let pool = Pool {
                name: POOL.into(),
                backend: "directory".into(),
                pool_id: host.pool_id.clone(),
                total_bytes: model.capacity.pool_bytes,
                free_bytes: model.free_bytes(),
                ..Pool::default()
            };
            all.storage = Some(StorageCapacity { pools: vec![pool] });
        }
        Role::Network => {
            all.network = Some(NetworkCapacity {
                datapath: "netdev".into(),
                switch_version: "simulated".into(),
                tunnel_address: String::new(),
                applied_at: None,
            });
        }
    }
    all
}
