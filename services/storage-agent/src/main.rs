//! The storage-agent daemon.

use std::process::ExitCode;

use cloud_service_kit::error::chain;
use cloud_storage_agent::{Config, run};

fn main() -> ExitCode {
    let config: Config = match cloud_service_kit::config::load() {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    // Two threads suffice for messages; files and child processes block elsewhere.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(64).enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => return fail(&error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    // Also where no log is set up yet.
    #[allow(clippy::print_stderr)]
    {
        eprintln!("cloud-storage-agent: {}", chain(error));
    }
    ExitCode::FAILURE
}
