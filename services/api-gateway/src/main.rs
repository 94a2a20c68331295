//! The API gateway daemon.

use std::process::ExitCode;

use anyhow::Context;
use cloud_api_gateway::{config::Config, gateway};
use cloud_service_kit::{config, error, shutdown, telemetry};
use rustix::fs::Mode;

/// The system's allocator keeps what thousands of connections leave between them: with 1,000 hosts a fifth more memory, and a third more of a processor
/// while idle (ADR 15).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Worker threads. More than processors on a small machine: statements of SQLite run in them.
const THREADS: std::ops::RangeInclusive<usize> = 4..=8;
/// Threads for files, for qemu-img's pipes, and for SQLite's commits, which must not wait for the others.
const BLOCKING_THREADS: usize = 64;

fn main() -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(*THREADS.start(), Into::into);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.clamp(*THREADS.start(), *THREADS.end()))
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloud-api-gateway: {}", error::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let config: Config = config::load()?;
    let telemetry = telemetry::init("api-gateway", &config.daemon.telemetry)?;
    let shutdown = shutdown::signals()?;
    // Its directory may hold what others must reach (guests' disks, beneath it); what the gateway itself writes is for nobody else.
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("cannot make the state directory {}", config.state_dir.display()))?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let ended = gateway::run(&config, shutdown).await;
    telemetry.shutdown().await;
    Ok(ended?)
}
