//! (a) Launch to RUNNING through the API against the same work by native commands.

use std::path::Path;

use crate::table::Table;

/// Measures.
pub async fn measure(_table: &mut Table, _image: &Path, _rounds: usize) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
