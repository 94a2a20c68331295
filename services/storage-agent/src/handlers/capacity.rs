//! What heartbeats say about the pool.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use cloud_contracts::agent::{Capacity, Pool, StorageCapacity};
use cloud_service_kit::{agent::CapacitySource, error::chain};
use prometheus::{IntGaugeVec, Opts, Registry};

use super::wire;
use crate::core::Storage;

/// The pool's capacity, with a proof of its health each time.
pub struct PoolCapacity {
    storage: Storage,
    /// What the pool had when it was last healthy: an unhealthy one still has a name and an identity.
    last: Mutex<Vec<Pool>>,
    bytes: IntGaugeVec,
}

impl PoolCapacity {
    /// The capacity of a storage, also as metrics.
    ///
    /// # Errors
    /// None while no other metric has the name.
    pub fn new(storage: Storage, registry: &Registry) -> Result<Self, prometheus::Error> {
        let bytes = IntGaugeVec::new(Opts::new("pool_bytes", "Bytes of a pool, by state."), &["pool", "state"])?;
        registry.register(Box::new(bytes.clone()))?;
        Ok(Self { storage, last: Mutex::default(), bytes })
    }

    fn measure(&self, pool: &Pool) {
        let set = |state, bytes| {
            self.bytes.with_label_values(&[pool.name.as_str(), state]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        };
        set("total", pool.total_bytes);
        set("free", pool.free_bytes);
    }
}

#[async_trait]
impl CapacitySource for PoolCapacity {
    async fn capacity(&self) -> (Capacity, Result<(), String>) {
        let answer = self.storage.pool().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let health = match answer {
            Ok((status, kind)) => {
                let pool = wire::pool(&status, kind);
                self.measure(&pool);
                *last = vec![pool];
                Ok(())
            }
            Err(error) => Err(chain(&error)),
        };
        (Capacity { storage: Some(StorageCapacity { pools: last.clone() }), ..Capacity::default() }, health)
    }
}
