//! (d) Resident memory of the daemons, idle.

use crate::table::Table;

/// Measures.
pub async fn measure(_table: &mut Table) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
