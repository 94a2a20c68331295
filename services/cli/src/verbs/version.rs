//! `cloud version`.

use crate::{args::OutputArgs, error::Error, output::Output};

/// Prints the version of this command.
pub fn run(output: OutputArgs) -> Result<(), Error> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let document = serde_json::json!({ "version": VERSION });
    Output::new(output.format).plain(&format!("cloud {VERSION}"), &document)
}
