//! What this host offers, for heartbeats.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cloud_contracts::agent::{Capacity, ComputeCapacity};
use cloud_service_kit::agent::CapacitySource;

use crate::adapters::{
    accelerator::Accelerator,
    host,
    libvirt::{HostInfo, LibvirtHypervisor},
};

/// Asks libvirt each time: whether it answers is whether the host can run guests.
pub struct HostCapacity {
    hypervisor: Arc<LibvirtHypervisor>,
    accelerator: Accelerator,
    reserved_mib: u64,
    /// What libvirt said last: a host does not lose its processors while libvirt restarts.
    last: Mutex<Option<HostInfo>>,
}

impl HostCapacity {
    /// The capacity of the host that `hypervisor` runs on, without `reserved_mib` of its memory.
    pub fn new(hypervisor: Arc<LibvirtHypervisor>, accelerator: Accelerator, reserved_mib: u64) -> Self {
        Self { hypervisor, accelerator, reserved_mib, last: Mutex::default() }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<HostInfo>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CapacitySource for HostCapacity {
    async fn capacity(&self) -> (Capacity, Result<(), String>) {
        let health = match self.hypervisor.host_info().await {
            Ok(info) => {
                *self.last() = Some(info);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        let [load_hundredths, load5_hundredths, load15_hundredths] = host::load_hundredths().await;
        let compute = self.last().as_ref().map(|info| ComputeCapacity {
            vcpus: info.vcpus,
            memory_mib: info.memory_mib.saturating_sub(self.reserved_mib),
            accelerator: self.accelerator.as_str().to_owned(),
            hypervisor: info.hypervisor.clone(),
            architecture: std::env::consts::ARCH.to_owned(),
            load_hundredths,
            load5_hundredths,
            load15_hundredths,
        });
        (Capacity { compute, ..Capacity::default() }, health)
    }
}
