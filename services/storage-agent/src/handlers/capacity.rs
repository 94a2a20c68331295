//! What heartbeats say about the pools.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use cloud_contracts::agent::{Capacity, Pool, StorageCapacity};
use cloud_service_kit::{agent::CapacitySource, error::chain};
use prometheus::{IntGaugeVec, Opts, Registry};

use super::wire;
use crate::{
    adapters::lvm,
    core::{Pools, model::PoolName},
};

/// The pools' capacity, with a proof of their health each time.
pub struct PoolCapacity {
    storage: Pools,
    /// What each pool had when it was last healthy: an unhealthy one still has a name and an identity.
    last: Mutex<BTreeMap<PoolName, Pool>>,
    bytes: IntGaugeVec,
    permille: IntGaugeVec,
}

impl PoolCapacity {
    /// The capacity of the pools, also as metrics.
    ///
    /// # Errors
    /// None while no other metric has the name.
    pub fn new(storage: Pools, registry: &Registry) -> Result<Self, prometheus::Error> {
        let bytes = IntGaugeVec::new(Opts::new("pool_bytes", "Bytes of a pool, by state."), &["pool", "state"])?;
        registry.register(Box::new(bytes.clone()))?;
        let permille = Opts::new("pool_used_permille", "How full a thin pool is, in thousandths, by part.");
        let permille = IntGaugeVec::new(permille, &["pool", "part"])?;
        registry.register(Box::new(permille.clone()))?;
        Ok(Self { storage, last: Mutex::default(), bytes, permille })
    }

    fn measure(&self, pool: &Pool) {
        let set = |state, bytes| {
            self.bytes.with_label_values(&[pool.name.as_str(), state]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        };
        set("total", pool.total_bytes);
        set("free", pool.free_bytes);
        if pool.backend == lvm::KIND {
            set("virtual", pool.virtual_bytes);
            for (part, permille) in [("data", pool.data_permille), ("metadata", pool.metadata_permille)] {
                self.permille.with_label_values(&[pool.name.as_str(), part]).set(permille.into());
            }
        }
    }
}

#[async_trait]
impl CapacitySource for PoolCapacity {
    async fn capacity(&self) -> (Capacity, Result<(), String>) {
        let answers = self.storage.all().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wrong = Vec::new();
        for (name, answer) in answers {
            match answer {
                Ok((status, kind)) => {
                    let pool = wire::pool(&status, kind);
                    self.measure(&pool);
                    last.insert(name, pool);
                }
                Err(error) => wrong.push(chain(&error)),
            }
        }
        let health = if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) };
        let pools = last.values().cloned().collect();
        (Capacity { storage: Some(StorageCapacity { pools }), ..Capacity::default() }, health)
    }
}
