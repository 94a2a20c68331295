//! (d) Resident memory of the daemons, idle.

use std::time::Duration;

use anyhow::Context as _;
use cloud_testkit::{DaemonProcess, Role};
use cloud_tests::RealCloud;

use crate::table::Table;

/// Budgets in MB.
const GATEWAY: f64 = 60.0;
const AGENT: f64 = 30.0;
/// How long the daemons idle before they are looked at.
const IDLE: Duration = Duration::from_secs(10);

/// Looks at a cloud that has started, has an image, and does nothing.
pub async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let mut cloud = RealCloud::start().await?;
    tokio::time::sleep(IDLE).await;
    let gateway = megabytes(cloud.gateway.process().context("the gateway runs")?)?;
    row(table, "(d) resident memory, idle: gateway", gateway, GATEWAY);
    for role in Role::ALL {
        let agent = megabytes(cloud.agent(role).context("the agent runs")?)?;
        row(table, &format!("    {role}-agent"), agent, AGENT);
    }
    Ok(())
}

fn row(table: &mut Table, what: &str, megabytes: f64, budget: f64) {
    let met = megabytes < budget;
    table.judged(what, format!("{megabytes:.1} MB"), &format!("under {budget:.0} MB"), met);
}

fn megabytes(process: &DaemonProcess) -> anyhow::Result<f64> {
    #[allow(clippy::cast_precision_loss, reason = "bytes of one process")]
    let bytes = process.resident_bytes()? as f64;
    Ok(bytes / 1e6)
}
