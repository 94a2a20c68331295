//! The network-agent's program.

use std::sync::Arc;

use cloud_contracts::agent::AgentRole;
use cloud_network_agent::{
    adapters::devices::Taps,
    agent,
    config::{Command, Config},
};
use cloud_service_kit::{agent::AgentRuntime, config};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let config: Config = config::load()?;
    match &config.command {
        Some(Command::Cleanup { cloud_id }) => agent::cleanup(&config, *cloud_id, &Taps).await,
        None => {
            let runtime = AgentRuntime::start("network-agent", AgentRole::Network, &config.daemon, &config.agent)?;
            agent::serve(&config, runtime, Arc::new(Taps)).await
        }
    }
}
