//! Volumes: the calls on them.

use std::sync::Arc;

use cloud_domain::{Gib, VolumeId};

use super::{
    Page, PageRequest, Settings,
    lookup::{any, check_etag, event, insert, labels, live, member, name},
    quotas::claim,
};
use crate::{
    CoreError,
    model::{Caller, Labels, Meta, Volume, VolumeStatus, held_by_volume},
    ports::{Query, Store, Tx, WorkKind},
};

/// A volume that a caller wants: blank, taking its place when it is first attached.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its size in GiB.
    pub size_gib: u32,
    /// Words of the user's own.
    pub labels: Labels,
}

/// Disks that outlive instances.
#[derive(Clone)]
pub struct VolumeService<S> {
    store: S,
    settings: Arc<Settings>,
}

impl<S: Store> VolumeService<S> {
    /// The service over a store.
    pub fn new(store: S, settings: Arc<Settings>) -> Self {
        Self { store, settings }
    }

    /// Makes a blank volume. It takes its place on a host when it is first attached, so it is AVAILABLE at once.
    ///
    /// # Errors
    /// Invalid, `AlreadyExists`, `QuotaExceeded`.
    pub async fn create(&self, caller: &Caller, request: NewVolume) -> Result<Volume, CoreError> {
        member(caller)?;
        name(&request.name)?;
        labels(&request.labels)?;
        let size = Gib::try_from(u64::from(request.size_gib)).map_err(|e| CoreError::invalid("size_gib", e))?;
        let id = *VolumeId::random().as_uuid();
        let row = Volume {
            meta: Meta::new(id, caller.project, &caller.project_name, &request.name, request.labels),
            size,
            status: VolumeStatus::Available,
            status_reason: String::new(),
            host: None,
            host_name: String::new(),
            pool: "default".to_owned(),
            instance: None,
            instance_name: String::new(),
            root: false,
            image: None,
            image_name: String::new(),
            data_missing: false,
        };
        let mut tx = self.store.begin().await?;
        claim(&mut tx, &self.settings, caller, &held_by_volume(&row)).await?;
        insert(&mut tx, &row).await?;
        tx.event(event(caller, &row, "volume.create")).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// A volume by id or name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Volume, CoreError> {
        any(&self.store, caller.project, id).await
    }

    /// The project's volumes.
    ///
    /// # Errors
    /// Invalid filter, order or page token.
    pub async fn list(&self, caller: &Caller, page: &PageRequest) -> Result<Page<Volume>, CoreError> {
        page.list(&self.store, Some(caller.project), Query::default()).await
    }

    /// Deletes a volume and its data.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Precondition while it is attached.
    pub async fn delete(&self, caller: &Caller, id: &str, etag: &str) -> Result<Volume, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let mut row: Volume = live(&mut tx, caller.project, id).await?;
        check_etag(&row, etag)?;
        if row.status == VolumeStatus::Deleting {
            return Ok(row);
        }
        if row.instance.is_some() {
            let how = if row.root { "it is its root disk and goes with it" } else { "delete the instance first" };
            let message = format!("volume `{}` is attached to instance `{}`: {how}", row.meta.name, row.instance_name);
            return Err(CoreError::precondition("VOLUME_ATTACHED", message));
        }
        row.status = VolumeStatus::Deleting;
        row.status_reason.clear();
        // The work first, as a worker takes them.
        tx.enqueue(WorkKind::Volume, row.meta.id).await?;
        tx.update(&mut row).await?;
        tx.event(event(caller, &row, "volume.delete")).await?;
        tx.commit().await?;
        Ok(row)
    }
}
