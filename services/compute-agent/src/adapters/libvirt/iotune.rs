//! Limits of a disk that a domain has already.
//!
//! What changes them under a running guest is `virDomainSetBlockIoTune` alone, for which the `virt` crate has no safe form: so libvirt's own command makes
//! that call.

use std::time::Duration;

use cloud_domain::{DiskLimits, InstanceId};
use cloud_service_kit::exec::{self, Command, ExecError};

use crate::core::HypervisorError;

const ACTION: &str = "limit a disk of the guest";
const DEADLINE: Duration = Duration::from_secs(10);

/// Gives a disk its limits, in one of the two descriptions of its domain: `--live` or `--config`.
pub async fn set(
    uri: &str,
    id: InstanceId,
    place: &str,
    target: &str,
    limits: DiskLimits,
) -> Result<(), HypervisorError> {
    exec::run(&command(uri, id, place, target, limits)).await.map(drop).map_err(|error| match error {
        ExecError::Deadline { deadline, .. } => HypervisorError::Deadline { action: ACTION, limit: deadline },
        error => HypervisorError::Failed { action: ACTION, message: cloud_service_kit::error::chain(&error) },
    })
}

/// Both limits are said, also those that are none: a limit that is not said stays what it was.
fn command(uri: &str, id: InstanceId, place: &str, target: &str, limits: DiskLimits) -> Command {
    Command::new("virsh")
        .args(["-q", "-c", uri, "blkdeviotune", &id.to_string(), target, place])
        .args(["--total-bytes-sec", &limits.total_bytes_sec.to_string()])
        .args(["--total-iops-sec", &limits.total_iops_sec.to_string()])
        .deadline(DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_none_is_said_too() {
        let id = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        let limits = DiskLimits { total_iops_sec: 0, total_bytes_sec: 20_000_000 };
        let command = command("qemu:///system", id, "--live", "vdb", limits).to_string();
        insta::assert_snapshot!(command, @"virsh -q -c qemu:///system blkdeviotune 550e8400-e29b-41d4-a716-446655440000 vdb --live --total-bytes-sec 20000000 --total-iops-sec 0");
    }
}
