//! Puts the parts together: the daemon, and `cleanup`.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use cloud_contracts::agent::{Capacity, NetworkCapacity, network_service_server::NetworkServiceServer};
use cloud_domain::CloudId;
use cloud_service_kit::agent::{AgentRuntime, CapacitySource, serve_agent};
use tokio::sync::watch;
use tonic::service::Routes;

use crate::{
    adapters::{
        dhcp,
        ovs::{OpenVswitch, watch_switch},
    },
    config::Config,
    core::{
        dhcp::LeaseTable,
        ports::{Devices, Switch as _},
        service::{Parts, Service},
    },
    handlers::NetworkHandler,
    metrics::StatusCollector,
};

/// How soon what failed is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs the daemon until it is asked to end. Ports, devices and flows stay.
///
/// # Errors
/// It cannot serve.
pub async fn serve(config: &Config, runtime: AgentRuntime, devices: Arc<dyn Devices>) -> anyhow::Result<()> {
    let bridge = config.bridge().await;
    let leases = LeaseTable::default();
    let switch = Arc::new(OpenVswitch::new(bridge.clone()));
    let (publish, switch_up) = watch::channel(false);
    let shutdown = runtime.shutdown.clone();
    let parts = Parts {
        switch: switch.clone(),
        devices,
        leases: leases.clone(),
        tunnels: bridge.tunnel_address.is_some(),
        cloud: runtime.cloud.clone(),
        switch_up,
        sweep: config.sweep(),
        retry: RETRY,
    };
    let (service, task) = Service::new(parts, shutdown.clone());
    runtime.metrics.registry().register(Box::new(StatusCollector::new(service.clone())?))?;

    let working = tokio::spawn(task);
    let watching = tokio::spawn(watch_switch(bridge.management_socket(), publish, shutdown.clone()));
    let answering = {
        let (device, shutdown) = (bridge.dhcp_device(), shutdown.clone());
        tokio::task::spawn_blocking(move || dhcp::serve(&device, &leases, &shutdown))
    };
    let capacity = NetworkCapacitySource {
        switch,
        service: service.clone(),
        tunnel_address: bridge.tunnel_address.map(|ip| ip.to_string()).unwrap_or_default(),
    };
    let handler = NetworkHandler::new(Arc::new(service), runtime.fence.clone(), runtime.cloud.clone());
    let routes = Routes::new(NetworkServiceServer::new(handler));
    let served = serve_agent(runtime, routes, Arc::new(capacity)).await;
    // Whatever ended the server ends the rest.
    shutdown.cancel();
    let (worked, watched, answered) = tokio::join!(working, watching, answering);
    served?;
    worked.and(watched).and(answered).context("a task of the network-agent panicked")
}

/// Removes a cloud's bridge and devices from this host. What carries no tag of the cloud stays.
///
/// # Errors
/// The bridge is another cloud's, or something stays.
pub async fn cleanup(config: &Config, cloud: Option<CloudId>, devices: &dyn Devices) -> anyhow::Result<()> {
    let switch = OpenVswitch::new(config.bridge().await);
    let name = &config.switch.bridge;
    let owner = switch.owner().await;
    let Some(cloud) = cloud.or(owner.as_ref().ok().copied().flatten()) else {
        owner.with_context(|| format!("cannot find out whose bridge {name} is"))?;
        println!("no bridge {name} with a cloud's tag: nothing to remove");
        return Ok(());
    };
    let bridge = switch.remove_bridge(cloud).await;
    let found = devices.list(cloud).await?;
    devices.remove(&found).await?;
    bridge.with_context(|| format!("{} devices of cloud {cloud} are removed, bridge {name} is not", found.len()))?;
    println!("removed bridge {name} and {} devices of cloud {cloud}", found.len());
    Ok(())
}

struct NetworkCapacitySource {
    switch: Arc<OpenVswitch>,
    service: Service,
    tunnel_address: String,
}

#[async_trait]
impl CapacitySource for NetworkCapacitySource {
    async fn capacity(&self) -> (Capacity, Result<(), String>) {
        let status = self.service.status();
        let mut network = NetworkCapacity {
            tunnel_address: self.tunnel_address.clone(),
            applied_at: status.applied_at.map(Into::into),
            ..NetworkCapacity::default()
        };
        let mut health = status.error.map_or(Ok(()), Err);
        match self.switch.info().await {
            Ok(info) => (network.datapath, network.switch_version) = (info.datapath, info.version),
            Err(error) => health = Err(cloud_service_kit::error::chain(&error)),
        }
        (Capacity { network: Some(network), ..Capacity::default() }, health)
    }
}
