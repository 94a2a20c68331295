//! How much a disk may do in a second.

use serde::{Deserialize, Serialize};

/// Limits of a disk in a hypervisor's units, for reads and writes together; 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct DiskLimits {
    /// Reads and writes a second.
    pub total_iops_sec: u64,
    /// Bytes a second.
    pub total_bytes_sec: u64,
}
