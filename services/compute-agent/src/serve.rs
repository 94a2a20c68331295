//! Putting the parts together.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use cloud_contracts::agent::compute_service_server::ComputeServiceServer;
use cloud_service_kit::agent::{AgentRole, AgentRuntime, serve_agent};
use tonic::service::Routes;

use crate::{
    adapters::{
        accelerator::{self, Accelerator},
        host,
        libvirt::{LibvirtHypervisor, LibvirtSettings},
    },
    capacity::HostCapacity,
    config::{Command, Config},
    core::Compute,
    guests,
    handlers::ComputeHandler,
};

/// How long work on guests may go on after the server has ended.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Does what the command line says.
///
/// # Errors
/// The configuration or the host does not allow it.
pub async fn run(config: Config) -> anyhow::Result<()> {
    match &config.command {
        Some(Command::Guests { command }) => {
            // Nothing is started, so what guests would run under does not matter.
            let hypervisor = hypervisor(&config, Accelerator::Tcg)?;
            guests::run(hypervisor, command).await
        }
        None => {
            let runtime = AgentRuntime::start("compute-agent", AgentRole::Compute, &config.daemon, &config.agent)?;
            serve(&config, runtime).await
        }
    }
}

/// Serves until asked to end. No guest is stopped by that.
///
/// # Errors
/// The host cannot run guests, or the server cannot serve.
pub async fn serve(config: &Config, runtime: AgentRuntime) -> anyhow::Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("guests are built for x86_64 only, this host is {}", std::env::consts::ARCH);
    }
    let state_dir = &config.agent.state_dir;
    tokio::fs::create_dir_all(state_dir).await.with_context(|| format!("cannot make `{}`", state_dir.display()))?;
    let emulator = host::emulator(config.compute.emulator.as_deref()).await?;
    let boot_id = host::boot_id().await.context("cannot read the machine's boot id")?;
    let accelerator = accelerator::choose(config.compute.accelerator, &emulator, state_dir, &boot_id).await?;
    tracing::info!(accelerator = accelerator.as_str(), "guests run under this accelerator");

    let hypervisor = hypervisor(config, accelerator)?;
    let compute = Compute::new(hypervisor.clone());
    let capacity = HostCapacity::new(hypervisor, accelerator, config.compute.reserved_memory_mib);
    let handler =
        ComputeHandler::new(compute.clone(), runtime.fence.clone(), runtime.cloud.clone(), runtime.shutdown.clone());
    let follow = tokio::spawn(follow_cloud(runtime.cloud.clone(), compute.clone()));
    let served = serve_agent(runtime, Routes::new(ComputeServiceServer::new(handler)), Arc::new(capacity)).await;
    follow.abort();
    compute.close(CLOSE_LIMIT).await;
    Ok(served?)
}

fn hypervisor(config: &Config, accelerator: Accelerator) -> anyhow::Result<Arc<LibvirtHypervisor>> {
    Ok(Arc::new(LibvirtHypervisor::new(LibvirtSettings {
        uri: config.compute.libvirt_uri.clone(),
        instances: config.agent.state_dir.join("instances"),
        accelerator,
        emulator: config.compute.emulator.clone(),
        nic_offload: config.compute.nic_offload,
    })?))
}

async fn follow_cloud(mut cloud: tokio::sync::watch::Receiver<Option<cloud_domain::CloudId>>, compute: Compute) {
    loop {
        let known = *cloud.borrow_and_update();
        if let Some(cloud) = known {
            compute.set_cloud(cloud);
        }
        if cloud.changed().await.is_err() {
            return;
        }
    }
}
