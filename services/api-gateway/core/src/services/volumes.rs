//! Volumes: the calls on them.

mod update;

use std::sync::Arc;

use cloud_domain::{Gib, HostId, VolumeId};

use super::{
    HostRegistry, Page, PageRequest, Settings, hosts,
    launch::visible_image,
    lookup::{any, check_etag, event, insert, labels, live, member, name, operator},
    quotas::claim,
    snapshots::{being_made_from, held, unplaced, volume_state},
};
use crate::{
    CoreError,
    model::{
        Amounts, Caller, Copied, DEFAULT_POOL, Host, Labels, Limited, Meta, Snapshot, SnapshotStatus, Value, Volume,
        VolumeLimits, VolumeStatus, held_by_volume,
    },
    ports::{Query, Store, Tx, WorkKind},
};

pub use update::VolumeChange;

/// A volume that a caller wants: blank, or a copy of one of the others.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its size in GiB.
    pub size_gib: u32,
    /// The image to copy, by id or name; empty: none.
    pub image: String,
    /// The snapshot to copy, by id or name; empty: none.
    pub snapshot: String,
    /// The volume to copy, by id or name; empty: none.
    pub volume: String,
    /// The pool, as its host calls it; empty: `default`, or that of what it is a copy of.
    pub pool: String,
    /// The host to make it on now, by id or name; empty: where it is first attached, or where what it is a copy of is.
    pub host: String,
    /// Words of the user's own.
    pub labels: Labels,
    /// How much its guest may do with it in a second.
    pub limits: VolumeLimits,
}

/// Disks that outlive instances.
#[derive(Clone)]
pub struct VolumeService<S> {
    store: S,
    registry: Arc<HostRegistry>,
    settings: Arc<Settings>,
}

impl<S: Store> VolumeService<S> {
    /// The service over a store.
    pub fn new(store: S, registry: Arc<HostRegistry>, settings: Arc<Settings>) -> Self {
        Self { store, registry, settings }
    }

    /// Makes a volume. A blank one, and one from an image, takes its place on a host when it is first attached, so it is AVAILABLE at once, unless an
    /// operator names the host. A copy of a snapshot or of a volume is made beside what it is a copy of. What is made now is CREATING, then AVAILABLE.
    ///
    /// # Errors
    /// Invalid, Denied, `NotFound` (image, snapshot, volume, host), `AlreadyExists`, `QuotaExceeded`, Precondition where what it is to be a copy of has no data
    /// yet, or they are missing or going, or the host takes nothing new.
    pub async fn create(&self, caller: &Caller, mut request: NewVolume) -> Result<Volume, CoreError> {
        member(caller)?;
        name(&request.name)?;
        labels(&request.labels)?;
        let size = Gib::try_from(u64::from(request.size_gib)).map_err(|e| CoreError::invalid("size_gib", e))?;
        update::check(request.limits)?;
        one_source(&request)?;
        let id = *VolumeId::random().as_uuid();
        let mut row = Volume {
            meta: Meta::new(
                id,
                caller.project,
                &caller.project_name,
                &request.name,
                std::mem::take(&mut request.labels),
            ),
            size,
            status: VolumeStatus::Available,
            status_reason: String::new(),
            host: None,
            host_name: String::new(),
            pool: DEFAULT_POOL.to_owned(),
            instance: None,
            instance_name: String::new(),
            root: false,
            image: None,
            image_name: String::new(),
            data_missing: false,
            copied: None,
            growing_to: None,
            limits: request.limits,
            limits_pending: false,
        };
        let mut tx = self.store.begin().await?;
        let least = if !request.image.is_empty() {
            of_image(&mut tx, caller, &mut row, &request.image).await?
        } else if !request.snapshot.is_empty() {
            of_snapshot(&mut tx, caller, &mut row, &request.snapshot).await?
        } else if !request.volume.is_empty() {
            of_volume(&mut tx, caller, &mut row, &request.volume).await?
        } else {
            size
        };
        if size < least {
            let message = format!("must be at least the {} that what it is a copy of has", least.get());
            return Err(CoreError::invalid("size_gib", message));
        }
        self.place(&mut tx, caller, &mut row, &request).await?;
        if row.status == VolumeStatus::Creating {
            tx.enqueue(WorkKind::Volume, id).await?;
        }
        insert(&mut tx, &row).await?;
        tx.event(event(caller, &row, "volume.create")).await?;
        claim(&mut tx, &self.settings, caller, &held_by_volume(&row)).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Puts a new volume where its maker wants it.
    async fn place(
        &self,
        tx: &mut S::Tx,
        caller: &Caller,
        row: &mut Volume,
        request: &NewVolume,
    ) -> Result<(), CoreError> {
        let named: Option<Host> = match request.host.as_str() {
            "" => None,
            text => {
                operator(caller, "choose the host of a volume")?;
                Some(live(tx, hosts::nobody(), text).await?)
            }
        };
        if row.copied.is_some() {
            return beside(row, &request.pool, named.as_ref());
        }
        if !request.pool.is_empty() {
            row.pool.clone_from(&request.pool);
        }
        let Some(named) = named else {
            if row.pool != DEFAULT_POOL && !self.has_pool(&row.pool, None) {
                return Err(CoreError::invalid("pool", format!("no host has a pool `{}`", row.pool)));
            }
            return Ok(());
        };
        if !self.has_pool(&row.pool, Some(named.id())) {
            return Err(CoreError::invalid("pool", format!("host {} has no pool `{}`", named.meta.name, row.pool)));
        }
        // It claims nothing, but the host is not removed, and gets no other mode, before this commits.
        let Some(host) = tx.claim_capacity(named.id(), 0, 0).await? else {
            let name = named.meta.name;
            let message = format!("host {name} takes nothing new: see `cloud host show {name}`");
            return Err(CoreError::precondition("HOST_STATE", message));
        };
        let (host, name, pool) = (host.id(), host.meta.name, row.pool.clone());
        place_on(row, host, name, pool);
        Ok(())
    }

    /// Whether this host has such a pool, or any.
    fn has_pool(&self, pool: &str, host: Option<HostId>) -> bool {
        let mut has = false;
        self.registry.each(|facts| {
            let asked = host.is_none_or(|host| host == facts.id);
            has |= asked && facts.capacity.pools.iter().any(|p| p.name == pool);
        });
        has
    }

    /// Grows a volume, also while a guest has it. What has its place on a host is grown there after this; it has its new size when that is done.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Invalid where it is not larger, `QuotaExceeded`, Precondition where it is being made, grown or deleted, or its data are
    /// missing.
    pub async fn resize(&self, caller: &Caller, id: &str, etag: &str, size_gib: u32) -> Result<Volume, CoreError> {
        member(caller)?;
        let size = Gib::try_from(u64::from(size_gib)).map_err(|e| CoreError::invalid("size_gib", e))?;
        let mut tx = self.store.begin().await?;
        let mut row: Volume = ordered(&mut tx, caller, id).await?;
        check_etag(&row, etag)?;
        if row.growing_to == Some(size) || (row.growing_to.is_none() && row.size == size) {
            return Ok(row);
        }
        if let Some(to) = row.growing_to {
            return Err(volume_state(&row, &format!("is being grown to {} GiB", to.get())));
        }
        if !matches!(row.status, VolumeStatus::Available | VolumeStatus::InUse) {
            let why = format!("is {}: only an AVAILABLE or IN_USE one is resized", row.status.as_str());
            return Err(volume_state(&row, &why));
        }
        if size < row.size {
            let message = format!("must be more than the volume's {}: a volume does not shrink", row.size.get());
            return Err(CoreError::invalid("size_gib", message));
        }
        let more = u64::from(size.get()) - u64::from(row.size.get());
        match row.host {
            Some(_) => row.growing_to = Some(size),
            // There is nothing to grow yet.
            None => row.size = size,
        }
        row.status_reason.clear();
        tx.update(&mut row).await?;
        tx.event(event(caller, &row, "volume.resize")).await?;
        claim(&mut tx, &self.settings, caller, &Amounts::from([(Limited::VolumeGib, more)])).await?;
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
    /// `NotFound`, `StaleEtag`, Precondition while it is attached, or a copy or a snapshot of it is being made.
    pub async fn delete(&self, caller: &Caller, id: &str, etag: &str) -> Result<Volume, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let mut row: Volume = ordered(&mut tx, caller, id).await?;
        check_etag(&row, etag)?;
        if row.status == VolumeStatus::Deleting {
            return Ok(row);
        }
        if row.instance.is_some() {
            let how = if row.root { "it is its root disk and goes with it" } else { "detach it first" };
            let message = format!("volume `{}` is attached to instance `{}`: {how}", row.meta.name, row.instance_name);
            return Err(CoreError::precondition("VOLUME_ATTACHED", message));
        }
        if let Some(copy) = being_made_from(&mut tx, &row.meta.id).await? {
            let message = format!("volume `{}` is being made from volume `{}`", copy.meta.name, row.meta.name);
            return Err(CoreError::precondition("VOLUME_COPIED", message));
        }
        let mut taken = Query { limit: Some(1), ..Query::by("volume_id", &row.meta.id) };
        taken.columns.push(("status", Value::Text(SnapshotStatus::Creating.as_str().to_owned())));
        if let Some(snapshot) = tx.list::<Snapshot>(&taken).await?.pop() {
            let message = format!("snapshot `{}` of volume `{}` is being taken", snapshot.meta.name, row.meta.name);
            return Err(CoreError::precondition("VOLUME_COPIED", message));
        }
        row.status = VolumeStatus::Deleting;
        row.status_reason.clear();
        tx.update(&mut row).await?;
        tx.event(event(caller, &row, "volume.delete")).await?;
        tx.commit().await?;
        Ok(row)
    }
}

/// A volume starts as one thing.
fn one_source(request: &NewVolume) -> Result<(), CoreError> {
    let sources = [("image", &request.image), ("snapshot", &request.snapshot), ("volume", &request.volume)];
    let named: Vec<&'static str> =
        sources.into_iter().filter(|(_, text)| !text.is_empty()).map(|(field, _)| field).collect();
    match named.as_slice() {
        [first, second, ..] => {
            let message = format!("`{first}` is named already: a volume starts as one of them");
            Err(CoreError::invalid(second, message))
        }
        _ => Ok(()),
    }
}

/// The live volume, with its work due. The work first, as a worker takes them: what is read after it stays what it is.
async fn ordered<T: Tx>(tx: &mut T, caller: &Caller, id: &str) -> Result<Volume, CoreError> {
    let row: Volume = live(tx, caller.project, id).await?;
    tx.enqueue(WorkKind::Volume, row.meta.id).await?;
    live(tx, caller.project, &row.meta.id.to_string()).await
}

async fn of_image<T: Tx>(tx: &mut T, caller: &Caller, row: &mut Volume, text: &str) -> Result<Gib, CoreError> {
    let image = visible_image(tx, caller, text).await?;
    row.image = Some(image.id());
    row.image_name = image.meta.name;
    Gib::holding(image.virtual_size_bytes).map_err(|e| CoreError::invalid("image", e))
}

async fn of_snapshot<T: Tx>(tx: &mut T, caller: &Caller, row: &mut Volume, text: &str) -> Result<Gib, CoreError> {
    let snapshot: Snapshot = live(tx, caller.project, text).await?;
    // Its work first: its deletion waits for it too.
    tx.wake(WorkKind::Snapshot, snapshot.meta.id).await?;
    let snapshot: Snapshot = live(tx, caller.project, &snapshot.meta.id.to_string()).await?;
    if snapshot.status != SnapshotStatus::Available {
        let message = format!(
            "snapshot `{}` is {}: only an AVAILABLE one can be restored",
            snapshot.meta.name,
            snapshot.status.as_str()
        );
        return Err(CoreError::precondition("SNAPSHOT_STATE", message));
    }
    row.copied = Some(Copied::Snapshot { id: snapshot.id(), name: snapshot.meta.name });
    place_on(row, snapshot.host, snapshot.host_name, snapshot.pool);
    Ok(snapshot.size)
}

async fn of_volume<T: Tx>(tx: &mut T, caller: &Caller, row: &mut Volume, text: &str) -> Result<Gib, CoreError> {
    let source = held(tx, caller, text).await?;
    if !matches!(source.status, VolumeStatus::Available | VolumeStatus::InUse) {
        let why = format!("is {}: only an AVAILABLE or IN_USE one can be copied", source.status.as_str());
        return Err(volume_state(&source, &why));
    }
    let Some(host) = source.host else {
        return Err(unplaced(&source));
    };
    row.copied = Some(Copied::Volume { id: source.id(), name: source.meta.name });
    place_on(row, host, source.host_name, source.pool);
    // One that grows may have grown by the time it is copied.
    Ok(source.growing_to.map_or(source.size, |to| to.max(source.size)))
}

/// A copy is made where what it is a copy of is, and nowhere else.
fn beside(row: &Volume, pool: &str, host: Option<&Host>) -> Result<(), CoreError> {
    if !pool.is_empty() && pool != row.pool {
        let message = format!("a copy is made in the pool of what it is a copy of, `{}`", row.pool);
        return Err(CoreError::invalid("pool", message));
    }
    if host.is_some_and(|host| row.host != Some(host.id())) {
        let message = format!("a copy is made on the host of what it is a copy of, {}", row.host_name);
        return Err(CoreError::invalid("host", message));
    }
    Ok(())
}

/// It is made there now.
fn place_on(row: &mut Volume, host: HostId, host_name: String, pool: String) {
    row.status = VolumeStatus::Creating;
    row.host = Some(host);
    row.host_name = host_name;
    row.pool = pool;
}
