//! Every wrong kind of certificate against every method there is.

use std::{
    convert::Infallible,
    fs,
    future::{Ready, ready},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use cloud_domain::{CloudId, Daemon, HostId, Identity};
use cloud_service_kit::{
    Address,
    agent::{AgentArgs, AgentRole, AgentRuntime, AgentTlsArgs, Capacity, CapacitySource, serve_agent},
    config::DaemonArgs,
};
use http::{Request, Response};
use prost_reflect::DescriptorPool;
use tokio_util::sync::CancellationToken;
use tonic::async_trait;
use tonic::{body::Body, server::NamedService, service::Routes};

use crate::{
    ca::{Ca, Pair, agent, call, client, self_made},
    support::Cloud,
};

/// The methods of a service, as paths.
fn methods(service: &str) -> Vec<String> {
    let pool = DescriptorPool::decode(cloud_contracts::DESCRIPTORS).unwrap();
    let service = pool.get_service_by_name(service).unwrap();
    let paths: Vec<_> = service.methods().map(|m| format!("/{}/{}", service.full_name(), m.name())).collect();
    assert!(paths.len() >= 3, "{paths:?}");
    paths
}

/// Counts the calls that reach it.
macro_rules! counting {
    ($($name:ident: $service:literal),*) => {$(
        #[derive(Clone)]
        struct $name(Arc<AtomicUsize>);
        impl NamedService for $name {
            const NAME: &'static str = $service;
        }
        impl tower::Service<Request<Body>> for $name {
            type Response = Response<Body>;
            type Error = Infallible;
            type Future = Ready<Result<Response<Body>, Infallible>>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }
            fn call(&mut self, _: Request<Body>) -> Self::Future {
                self.0.fetch_add(1, Ordering::SeqCst);
                ready(Ok(tonic::Status::unimplemented("reached").into_http()))
            }
        }
    )*};
}

counting!(Compute: "cloud.agent.v1.ComputeService", Storage: "cloud.agent.v1.StorageService", Network: "cloud.agent.v1.NetworkService");

struct Nothing;

#[async_trait]
impl CapacitySource for Nothing {
    async fn capacity(&self) -> (Capacity, Result<(), String>) {
        (Capacity::default(), Ok(()))
    }
}

fn write(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Every certificate that must not count before an agent.
fn strangers(ca: &Ca, cloud: CloudId, host: HostId) -> Vec<(&'static str, Option<Pair>)> {
    let gateway = Identity::Gateway { cloud };
    let other_cloud = Identity::Gateway { cloud: CloudId::random() };
    let mut all = vec![
        ("no certificate", None),
        ("an authority of nobody's", Some(Ca::new().issue(gateway))),
        ("self-made", Some(self_made(gateway))),
        ("expired", Some(ca.issue_for(gateway, Duration::ZERO))),
        ("the gateway of another cloud", Some(ca.issue(other_cloud))),
    ];
    for daemon in Daemon::ALL {
        all.push(("an agent of the same host", Some(ca.issue(agent(cloud, host, daemon)))));
        all.push(("an agent of another host", Some(ca.issue(agent(cloud, HostId::random(), daemon)))));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_agent_hears_anybody_but_its_gateway() -> anyhow::Result<()> {
    let (cloud, host, ca) = (CloudId::random(), HostId::random(), Ca::new());
    let roles = [
        (AgentRole::Compute, Daemon::Compute, Compute::NAME),
        (AgentRole::Storage, Daemon::Storage, Storage::NAME),
        (AgentRole::Network, Daemon::Network, Network::NAME),
    ];
    for (role, daemon, service) in roles {
        let dir = tempfile::tempdir()?;
        let own = ca.issue(agent(cloud, host, daemon));
        let address = format!("127.0.0.1:{}", cloud_testkit::free_port()?);
        let args = AgentArgs {
            gateway: vec![Address::Unix(dir.path().join("nobody.sock"))],
            state_dir: dir.path().to_owned(),
            host_name: Some("h1".into()),
            host_id_file: write(dir.path(), "host-id", &format!("{host}\n")),
            advertise: None,
            tls: AgentTlsArgs {
                tls_cert: Some(write(dir.path(), "own.pem", &own.certificate)),
                tls_key: Some(write(dir.path(), "own.key", &own.key)),
                tls_ca: Some(write(dir.path(), "ca.pem", &ca.pem())),
                tls_external: true,
            },
        };
        let daemon_args = DaemonArgs { listen: Some(address.parse()?), ..DaemonArgs::default() };
        let (stop, reached) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let runtime = AgentRuntime::embedded("agent", role, &daemon_args, &args, stop.clone())?;
        let counter = reached.clone();
        let routes = match role {
            AgentRole::Compute => Routes::new(Compute(counter)),
            AgentRole::Storage => Routes::new(Storage(counter)),
            _ => Routes::new(Network(counter)),
        };
        let serving = tokio::spawn(serve_agent(runtime, routes, Arc::new(Nothing)));
        let good = client(Some(&ca.issue(Identity::Gateway { cloud })));
        let paths = methods(service);
        for path in &paths {
            cloud_testkit::until("the agent to serve", Duration::from_secs(10), || async {
                let answer = call(&address, good.clone(), path).await;
                Ok(answer.map(|status| assert_eq!(status, "200 12", "{path}")).map_err(|e| format!("{e:#}")))
            })
            .await?;
        }
        let heard = reached.load(Ordering::SeqCst);
        assert_eq!(heard, paths.len(), "the gateway is heard, by every method");
        for (what, pair) in strangers(&ca, cloud, host) {
            let config = client(pair.as_ref());
            for path in paths.iter().map(String::as_str).chain(["/grpc.health.v1.Health/Check"]) {
                let answer = call(&address, config.clone(), path).await;
                assert!(answer.is_err(), "{what} was answered by {path}: {answer:?}");
            }
        }
        assert_eq!(reached.load(Ordering::SeqCst), heard, "a handler ran for a stranger");
        stop.cancel();
        serving.await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_hears_no_agent_but_as_itself() -> anyhow::Result<()> {
    let (ca, dir) = (Ca::new(), tempfile::tempdir()?);
    let (cert, key) = (write(dir.path(), "ca.pem", &ca.pem()), write(dir.path(), "ca.key", &ca.key()));
    let (cert, key) = (format!("--ca-cert={}", cert.display()), format!("--ca-key={}", key.display()));
    let running = Cloud::start(&[&cert, &key]).await?;
    let id = fs::read_to_string(running.dir.path().join("cloud-id"))?;
    let cloud: CloudId = id.trim().parse()?;
    let host = HostId::random();
    let own = agent(cloud, host, Daemon::Storage);
    let other_cloud = agent(CloudId::random(), host, Daemon::Storage);
    let paths = methods("cloud.agent.v1.HostService");
    let good = client(Some(&ca.issue(own)));
    for path in &paths {
        // Empty messages: refused by what is in them, and a host that never joined has nothing to renew. A handler was reached.
        let expected = match path.rsplit('/').next() {
            Some("Renew") => "200 5",
            // What is refused comes as the stream's end.
            Some("Heartbeats") => "200 streams",
            _ => "200 3",
        };
        assert_eq!(call(&running.agents, good.clone(), path).await?, expected, "{path}");
    }
    for (what, pair) in [
        ("an authority of nobody's", Ca::new().issue(own)),
        ("self-made", self_made(own)),
        ("expired", ca.issue_for(own, Duration::ZERO)),
        ("another cloud's", ca.issue(other_cloud)),
        ("a gateway's", ca.issue(Identity::Gateway { cloud })),
    ] {
        for path in &paths {
            let answer = call(&running.agents, client(Some(&pair)), path).await;
            assert!(answer.is_err(), "{what} was answered by {path}: {answer:?}");
        }
    }
    for path in &paths {
        let answer = call(&running.agents, client(None), path).await?;
        // Whoever joins has no certificate yet; the token is what counts.
        let expected = if path.ends_with("/Join") { "200 3" } else { "200 16" };
        assert_eq!(answer, expected, "{path}");
    }
    Ok(())
}
