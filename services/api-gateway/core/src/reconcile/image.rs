//! Images: fetching those that are imported, removing those that shall be gone.

use std::time::Duration;

use super::{Context, Failure, Outcome, event, volume::same};
use crate::{
    model::{AgentRole, Image, ImageStatus, Timestamp},
    ports::{BackendError, FetchError, ImageFile, Store, Tx, WorkItem},
};

/// How often to ask a host again whether it can let go of an image that disks stand on.
const EVICT_AGAIN: Duration = Duration::from_secs(60);

pub(super) async fn reconcile<S: Store>(context: &Context<S>, item: &WorkItem) -> Result<Outcome, Failure> {
    let Some(row) = context.store.get::<Image>(item.id).await? else { return Ok(Outcome::Done) };
    match row.status {
        ImageStatus::Importing => import(context, item, row).await,
        ImageStatus::Deleting => delete(context, item, row).await,
        ImageStatus::Deleted => evict(context, &row).await,
        ImageStatus::Error => clear(context, &row).await,
        ImageStatus::Ready => Ok(Outcome::Done),
    }
}

async fn import<S: Store>(context: &Context<S>, item: &WorkItem, read: Image) -> Result<Outcome, Failure> {
    let fetched = context.backends.images.fetch(read.id(), &read.source, read.format, &read.sha256).await;
    let late = Timestamp::now().since(read.meta.created_at) > context.settings.import_timeout;
    let (file, reason) = match fetched {
        Ok(file) => (Some(file), String::new()),
        Err(FetchError::Refused(reason)) => (None, reason),
        Err(FetchError::Later(reason)) if late => (None, format!("not imported in time: {reason}")),
        Err(later @ FetchError::Later(_)) => return Err(later.into()),
    };
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, &read).await?;
    match file {
        Some(file) => {
            row.status = ImageStatus::Ready;
            row.format = Some(file.format);
            row.sha256 = file.sha256;
            row.size_bytes = file.size_bytes;
            row.virtual_size_bytes = file.virtual_size_bytes;
            tx.event(event(&row, "image.ready", "")).await?;
        }
        None => {
            row.status = ImageStatus::Error;
            tx.event(event(&row, "image.error", &reason)).await?;
            row.status_reason = reason;
        }
    }
    tx.update(&mut row).await?;
    tx.commit().await?;
    if row.status == ImageStatus::Error { clear(context, &row).await } else { Ok(Outcome::Done) }
}

/// Removes what an earlier attempt may have kept of an image that is none.
async fn clear<S: Store>(context: &Context<S>, row: &Image) -> Result<Outcome, Failure> {
    context.backends.images.remove(row.id()).await?;
    Ok(Outcome::Done)
}

async fn delete<S: Store>(context: &Context<S>, item: &WorkItem, read: Image) -> Result<Outcome, Failure> {
    context.backends.images.remove(read.id()).await?;
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, &read).await?;
    row.status = ImageStatus::Deleted;
    row.meta.deleted_at = Some(Timestamp::now());
    tx.update(&mut row).await?;
    tx.event(event(&row, "image.deleted", "")).await?;
    tx.commit().await?;
    evict(context, &row).await
}

/// Removes the copies that hosts have. One that a disk stands on stays until the disk is gone.
async fn evict<S: Store>(context: &Context<S>, row: &Image) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::Done;
    for (host, _) in context.registry.hosts() {
        let present = context.present(host, AgentRole::Storage);
        let inventories = context.registry.inventories();
        if !present.is_ok_and(|session| inventories.is_taken(host, AgentRole::Storage, session)) {
            outcome = Outcome::Again(EVICT_AGAIN);
            continue;
        }
        match context.backends.storage.remove_image(host, row.id(), row.meta.version).await {
            Ok(()) | Err(BackendError::NotFound(_)) => context.registry.has_image(host, row.id(), false),
            Err(BackendError::Precondition(_) | BackendError::Unreachable(_)) => outcome = Outcome::Again(EVICT_AGAIN),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(outcome)
}

/// Makes a pool of a host have an image: sends it where it is not there yet. One transfer of an image to a pool at a time.
pub(super) async fn ensure_on_host<S: Store>(
    context: &Context<S>,
    host: cloud_domain::HostId,
    pool: &str,
    id: cloud_domain::ImageId,
) -> Result<(), Failure> {
    let there = ensure(context, host, pool, id).await;
    // Placement likes hosts that have it.
    context.registry.has_image(host, id, there.is_ok());
    there
}

async fn ensure<S: Store>(
    context: &Context<S>,
    host: cloud_domain::HostId,
    pool: &str,
    id: cloud_domain::ImageId,
) -> Result<(), Failure> {
    let storage = &context.backends.storage;
    if storage.has_image(host, pool, id).await? {
        return Ok(());
    }
    let _push = context.pushes.lock(&(host, pool.to_owned(), id)).await;
    if storage.has_image(host, pool, id).await? {
        return Ok(());
    }
    let row: Option<Image> = context.store.get(*id.as_uuid()).await?;
    let gone = || Failure::Final(format!("the image {id} was deleted before its first disk on this host was made"));
    let row = row.filter(|r| r.status == ImageStatus::Ready).ok_or_else(gone)?;
    let held = context.backends.images.hold(id, &row.sha256, row.size_bytes).await?.ok_or_else(gone)?;
    let format = row.format.ok_or_else(gone)?;
    let file = ImageFile {
        path: held.path(),
        format,
        sha256: row.sha256,
        size_bytes: row.size_bytes,
        virtual_size_bytes: row.virtual_size_bytes,
    };
    storage.put_image(host, pool, id, row.meta.version, file).await?;
    drop(held);
    Ok(())
}
