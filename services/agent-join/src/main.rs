//! `cloud-agent-join`: lets this host join a cloud.
//!
//! Reads top to bottom: [`args`] say what was asked, [`join`] asks the gateway, [`files`] writes what came of it, [`start`] starts the agents.
//! The keys are made here and never leave; what goes to the gateway is the token, and that only after the gateway was known by the
//! fingerprint in it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a command

mod args;
mod error;
mod files;
mod join;
mod start;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{args::Args, error::Error, files::Files};

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Error::Runtime).and_then(|runtime| runtime.block_on(run(&args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloud-agent-join: {}", cloud_service_kit::error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Error> {
    let token = args.token()?;
    let files = Files::new(args);
    let known = files.present()?;
    if let Some(until) = &known.joined
        && !args.again
    {
        return Err(Error::Joined { host: known.host.map_or_else(String::new, |id| id.to_string()), days: *until });
    }
    files.prepare(&known, args)?;
    let plan = args.plan(&token)?;
    let (keys, joined) = join::join(&token, &plan.host_name, known.host).await?;
    let kept = files.write(&keys, &joined, &plan, known.had_certificates && !args.rewrite_config)?;
    println!("joined cloud {} as host {} ({})", joined.cloud, joined.name, joined.host);
    println!("certificates and keys: {}", files.tls().display());
    if kept {
        println!("configuration: {} (kept as it was)", args.config_dir.display());
    } else {
        println!("configuration: {}", args.config_dir.display());
    }
    start::start(args, &files).await
}
