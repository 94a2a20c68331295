//! The storage-agent of a host: volumes, and the cache of images they are made from. `core` has the rules, `adapters` the
//! kinds of pools, `handlers` the gRPC service. It keeps no state of its own: the pool is the truth.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod adapters;
mod config;
pub mod core;
pub mod handlers;

use std::{sync::Arc, time::Duration};

use cloud_contracts::agent::storage_service_server::StorageServiceServer;
use cloud_service_kit::agent::{AgentRole, AgentRuntime, serve_agent};
use tonic::service::Routes;

pub use config::Config;

use crate::{
    adapters::{directory::Directory, lvm::LvmThin},
    config::PoolOptions,
    core::{Pools, Storage, backend::StorageBackend},
    handlers::{PoolCapacity, StorageHandler},
};

/// How long operations that run when the agent is asked to end may take. What is cut off then, the next start clears.
const GRACE: Duration = Duration::from_secs(20);

/// Runs the agent until it is asked to end.
///
/// # Errors
/// The pool is not usable, or the agent cannot listen.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let agent = AgentRuntime::start("storage-agent", AgentRole::Storage, &config.daemon, &config.agent)?;
    serve(agent, &config).await
}

/// As [`run`], in a runtime that was made elsewhere, such as a test's.
///
/// # Errors
/// As [`run`].
pub async fn serve(agent: AgentRuntime, config: &Config) -> anyhow::Result<()> {
    let mut pools = Vec::new();
    for options in config.pools()? {
        let backend: Arc<dyn StorageBackend> = match options {
            PoolOptions::Directory(options) => {
                Arc::new(tokio::task::spawn_blocking(move || Directory::open(options)).await??)
            }
            PoolOptions::Lvm(options) => Arc::new(LvmThin::open(options).await?),
        };
        pools.push(Storage::new(backend, agent.fence.clone(), config.rules()));
    }
    let storage = Pools::new(pools);
    let capacity = Arc::new(PoolCapacity::new(storage.clone(), agent.metrics.registry())?);
    let service = StorageServiceServer::new(StorageHandler::new(storage.clone(), agent.cloud.clone()));
    serve_agent(agent, Routes::new(service), capacity).await?;
    if tokio::time::timeout(GRACE, storage.stop()).await.is_err() {
        tracing::warn!("operations are still running: cutting them off");
    }
    Ok(())
}
