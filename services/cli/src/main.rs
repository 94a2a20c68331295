//! The `cloud` command: The Cloud from a shell.
//!
//! Reads top to bottom: [`args`] say what was asked, [`connect`] finds the gateway and the key, a module of [`verbs`] does it,
//! [`output`] prints what came of it to stdout, and [`error`] turns what went wrong into words on stderr and an exit code.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod args;
mod connect;
mod context;
mod error;
mod following;
mod output;
mod progress;
mod resources;
mod terminal;
mod verbs;
mod wait;

use clap::Parser;

use crate::{args::Cli, error::Error};

fn main() {
    let cli = Cli::parse();
    let code = match run(cli) {
        Ok(()) => 0,
        Err(error) => {
            error.report();
            error.exit_code()
        }
    };
    // Not by returning: a thread that still reads the terminal must not keep the process alive.
    std::process::exit(code);
}

fn run(cli: Cli) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(verbs::run(cli));
    runtime.shutdown_background();
    result
}
