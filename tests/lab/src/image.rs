//! The disk that hosts begin with.

use std::path::PathBuf;

use crate::{command::run, site::root};

/// Builds it, or finds the one that was built of the same (`tests/lab/image/build.sh`); its directory.
///
/// # Errors
/// Something that is needed is missing; says what.
pub async fn build() -> anyhow::Result<PathBuf> {
    let script = root().join("tests/lab/image/build.sh");
    let said = run(script, &[]).await?;
    Ok(PathBuf::from(said.lines().last().unwrap_or_default()))
}
