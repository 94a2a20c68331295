//! `cloud completion`.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{args::Cli, error::Error};

/// Prints the script.
pub fn run(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cloud", &mut script);
    io::stdout().write_all(&script).map_err(Error::output)
}
