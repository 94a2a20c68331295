//! Volumes that are made before any instance has them: copies of a snapshot or of another volume, which they are made beside, and those whose host was
//! named. Others are made by the work of the instance they are first attached to.

use cloud_domain::HostId;

use super::{Context, Failure, Outcome, event, image, volume::same};
use crate::{
    model::{AgentRole, Timestamp, Volume, VolumeStatus},
    ports::{BackendError, Store, Tx, VolumeSpec, WorkItem},
};

/// Makes one.
pub(super) async fn reconcile<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Volume,
) -> Result<Outcome, Failure> {
    let Some(host) = read.host.filter(|_| read.instance.is_none()) else { return Ok(Outcome::Done) };
    if context.is_dead(host).await? {
        let reason = format!("host {} was declared dead before it was made", read.host_name);
        return end(context, item, read, Err(reason)).await;
    }
    let made = ensure(context, read, host).await;
    let late = Timestamp::now().since(read.meta.created_at) > context.settings.import_timeout;
    match made {
        Ok(()) => end(context, item, read, Ok(())).await,
        Err(Failure::Backend(BackendError::NotFound(message))) => {
            end(context, item, read, Err(format!("what it is a copy of is gone: {message}"))).await
        }
        Err(error) if error.is_final() => end(context, item, read, Err(error.to_string())).await,
        Err(error) if late => end(context, item, read, Err(format!("not made in time: {error}"))).await,
        Err(error) => retry(context, item, read, error).await,
    }
}

async fn ensure<S: Store>(context: &Context<S>, read: &Volume, host: HostId) -> Result<(), Failure> {
    context.reach(host, AgentRole::Storage).await?;
    if let Some(image) = read.image.filter(|_| read.copied.is_none()) {
        image::ensure_on_host(context, host, &read.pool, image).await?;
    }
    let spec = VolumeSpec {
        host,
        id: read.id(),
        version: read.meta.version,
        size_bytes: read.size.bytes(),
        source: read.source(),
        pool: read.pool.clone(),
        may_create: true,
    };
    context.backends.storage.ensure_volume(spec).await?;
    Ok(())
}

/// AVAILABLE, or ERROR with the reason. What is left of it on its host goes when it is deleted.
async fn end<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Volume,
    made: Result<(), String>,
) -> Result<Outcome, Failure> {
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, read).await?;
    let (status, action, reason) = match made {
        Ok(()) => (VolumeStatus::Available, "volume.ready", String::new()),
        Err(reason) => (VolumeStatus::Error, "volume.error", reason),
    };
    row.status = status;
    tx.event(event(&row, action, &reason)).await?;
    row.status_reason = reason;
    tx.update(&mut row).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}

async fn retry<S: Store>(
    context: &Context<S>,
    item: &WorkItem,
    read: &Volume,
    error: Failure,
) -> Result<Outcome, Failure> {
    let reason = format!("trying again: {error}");
    let stale = matches!(error, Failure::Backend(BackendError::Stale(_)) | Failure::Store(_));
    if read.status_reason != reason && !stale {
        let mut tx = context.begin(item).await?;
        let mut row = same(&mut tx, read).await?;
        row.status_reason = reason;
        tx.update(&mut row).await?;
        tx.commit().await?;
    }
    Err(error)
}
