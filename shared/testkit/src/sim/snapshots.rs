//! Snapshots: the rules of `cloud.agent.v1.StorageService` on the model. A simulated pool takes them of running guests, as thin volumes do.

use cloud_contracts::agent::{Owner, Snapshot};
use tonic::{Code, Status};

use super::{
    model::{Model, SimSnapshot},
    status::{differs, invalid, missing, with_reason},
    volumes::{EMPTY_VOLUME_BYTES, POOL},
};

impl Model {
    pub fn ensure_snapshot(
        &mut self,
        owner: Owner,
        (id, volume_id, pool): (&str, &str, &str),
        may_create: bool,
    ) -> Result<Snapshot, Status> {
        if !pool.is_empty() && pool != POOL {
            return Err(invalid("pool", format!("`{pool}` does not exist on this host")));
        }
        if let Some(is) = self.is.snapshots.get(id) {
            self.check_owner("snapshot", &is.owner)?;
            if is.volume_id != volume_id {
                return Err(differs("snapshot", id, "volume", &is.volume_id, &volume_id));
            }
            return Ok(is.wire());
        }
        if !may_create {
            return Err(with_reason(Code::NotFound, "DATA_MISSING", format!("snapshot {id} is missing on this host")));
        }
        let volume = self.is.volumes.get(volume_id).ok_or_else(|| missing("volume", volume_id))?;
        self.check_owner("volume", &volume.owner)?;
        let (size_bytes, image_id) = (volume.size_bytes, volume.image_id.clone());
        if self.free_bytes() < EMPTY_VOLUME_BYTES {
            return Err(with_reason(Code::ResourceExhausted, "POOL_FULL", format!("pool `{POOL}` is full")));
        }
        let taken = self.taken_snapshots.entry(id.to_owned()).or_default();
        *taken += 1;
        let snapshot = SimSnapshot { owner, volume_id: volume_id.to_owned(), size_bytes, image_id, taken: *taken };
        let wire = snapshot.wire();
        self.is.snapshots.insert(id.to_owned(), snapshot);
        Ok(wire)
    }

    pub fn remove_snapshot(&mut self, id: &str) -> Result<(), Status> {
        let Some(snapshot) = self.is.snapshots.get(id) else { return Ok(()) };
        self.check_owner("snapshot", &snapshot.owner)?;
        self.is.snapshots.remove(id);
        Ok(())
    }
}

impl SimSnapshot {
    pub(crate) fn wire(&self) -> Snapshot {
        Snapshot {
            owner: Some(self.owner.clone()),
            volume_id: self.volume_id.clone(),
            size_bytes: self.size_bytes,
            allocated_bytes: EMPTY_VOLUME_BYTES,
            pool: POOL.to_owned(),
        }
    }
}
