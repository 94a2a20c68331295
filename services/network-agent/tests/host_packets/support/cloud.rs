//! The gateway's side: a host service that agents register with, and VPCs as a gateway describes them.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use cloud_contracts::agent::{
    AgentRole, HeartbeatRequest, HeartbeatResponse, HeartbeatsRequest, HeartbeatsResponse, JoinRequest, JoinResponse,
    PortSlice, RegisterRequest, RegisterResponse, RenewRequest, RenewResponse, SubnetSlice,
    host_service_server::{HostService, HostServiceServer},
};
use cloud_domain::{CloudId, InstanceId, MacAddr, PortId, SubnetId, VpcId};
use futures::TryStreamExt as _;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

/// What an agent said last.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub session: String,
    /// None until a heartbeat of that session came.
    pub healthy: Option<bool>,
    pub error: String,
    pub applied: bool,
}

type Agents = Arc<Mutex<HashMap<String, Heard>>>;

/// A gateway as far as an agent's registration needs one.
#[derive(Clone)]
struct Gateway {
    cloud: CloudId,
    agents: Agents,
}

impl Gateway {
    fn hear(&self, beat: HeartbeatRequest) -> HeartbeatResponse {
        let mut agents = self.agents.lock().unwrap();
        let Some(heard) = agents.get_mut(&beat.host_id).filter(|h| h.session == beat.session_id) else {
            return HeartbeatResponse { register_again: true, renew: false };
        };
        let network = beat.capacity.and_then(|c| c.network).expect("a network capacity");
        heard.healthy = Some(beat.backend_healthy);
        heard.error = beat.backend_error;
        heard.applied = network.applied_at.is_some();
        if beat.backend_healthy {
            assert_eq!(network.datapath, "netdev");
            assert!(network.switch_version.starts_with("Open vSwitch "), "{}", network.switch_version);
        }
        HeartbeatResponse { register_again: false, renew: false }
    }
}

#[tonic::async_trait]
impl HostService for Gateway {
    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.role(), AgentRole::Network);
        let heard = Heard { session: request.session_id, ..Heard::default() };
        self.agents.lock().unwrap().insert(request.host_id, heard);
        Ok(Response::new(RegisterResponse { cloud_id: self.cloud.to_string(), heartbeat_interval_ms: 50 }))
    }

    type HeartbeatsStream = BoxStream<HeartbeatsResponse>;

    async fn heartbeats(
        &self,
        request: Request<Streaming<HeartbeatsRequest>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let this = self.clone();
        Ok(Response::new(Box::pin(
            request
                .into_inner()
                .map_ok(move |beat| HeartbeatsResponse { heartbeat: beat.heartbeat.map(|beat| this.hear(beat)) }),
        )))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        Err(Status::unimplemented("agents send a stream"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

/// A cloud: its id, and the gateway's host service.
pub struct Cloud {
    pub id: CloudId,
    directory: tempfile::TempDir,
    agents: Agents,
    stop: CancellationToken,
}

impl Cloud {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("gateway").tempdir().unwrap();
        let (id, stop, agents) = (CloudId::random(), CancellationToken::new(), Agents::default());
        let gateway = Gateway { cloud: id, agents: Arc::clone(&agents) };
        let listener = UnixListener::bind(directory.path().join("host.sock")).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(HostServiceServer::new(gateway))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.clone().cancelled_owned());
        tokio::spawn(server);
        Self { id, directory, agents, stop }
    }

    pub fn gateway(&self) -> String {
        format!("unix:{}", self.directory.path().join("host.sock").display())
    }

    /// What the agent of a host said last.
    pub fn heard(&self, host_id: &str) -> Option<Heard> {
        self.agents.lock().unwrap().get(host_id).cloned()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A VPC as the gateway would describe it to this host.
#[derive(Clone)]
pub struct Vpc {
    pub id: VpcId,
    pub vni: u32,
    pub generation: u64,
    pub mtu: u32,
    pub subnets: Vec<SubnetSlice>,
    pub ports: Vec<PortSlice>,
}

impl Vpc {
    pub fn new(vni: u32, cidrs: &[&str]) -> Self {
        let subnet = |cidr: &&str| {
            let parsed: cloud_domain::Cidr = cidr.parse().unwrap();
            SubnetSlice {
                id: SubnetId::random().to_string(),
                cidr: (*cidr).to_owned(),
                gateway: parsed.gateway().to_string(),
                dns_servers: vec!["9.9.9.9".to_owned(), "1.1.1.1".to_owned()],
            }
        };
        let subnets = cidrs.iter().map(subnet).collect();
        Self { id: VpcId::random(), vni, generation: 1, mtu: 1450, subnets, ports: Vec::new() }
    }

    /// Adds a NIC of this host to the subnet that has the address.
    pub fn port(&mut self, name: &str, mac: &str, ip: &str) -> PortId {
        let (id, address) = (PortId::random(), ip.parse::<Ipv4Addr>().unwrap());
        let has = |s: &&SubnetSlice| s.cidr.parse::<cloud_domain::Cidr>().unwrap().net().contains(&address);
        let subnet = self.subnets.iter().find(has).unwrap().id.clone();
        let _: MacAddr = mac.parse().unwrap();
        self.ports.push(PortSlice {
            id: id.to_string(),
            subnet_id: subnet,
            instance_id: InstanceId::random().to_string(),
            mac: mac.to_owned(),
            ip: ip.to_owned(),
            local: true,
            tunnel_address: String::new(),
            hostname: name.to_owned(),
        });
        id
    }
}
