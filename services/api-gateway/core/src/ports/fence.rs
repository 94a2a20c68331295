//! What takes the power of a host away.

use async_trait::async_trait;
use cloud_domain::HostId;

/// Takes a host's power away and confirms it.
#[async_trait]
pub trait Fencer: Send + Sync {
    /// Ok only where the power is certainly off, with what it said. Else why that is not certain.
    async fn power_off(&self, host: HostId, name: &str) -> Result<String, String>;
}
