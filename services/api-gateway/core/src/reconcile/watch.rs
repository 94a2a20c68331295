//! Looking after the hosts: what their hypervisors report wakes work at once, and inventories find what nobody reported.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use cloud_domain::HostId;
use futures::StreamExt;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Context, Failure, inventory};
use crate::{
    model::Host,
    ports::{Changes, Store, StoreError, WorkKind},
};

/// How often to look for hosts that have joined, and to say that this process runs.
const LOOK: Duration = Duration::from_secs(1);
/// Rows of hosts read together.
const HOSTS: u32 = 500;
/// How long to wait before watching a host again.
const AGAIN: Duration = Duration::from_millis(500);
/// Changes looked at together at most.
const BATCH: usize = 256;

/// Looks after every host until `shutdown`.
pub(super) async fn run<S: Store>(context: Arc<Context<S>>, shutdown: CancellationToken) {
    let mut watchers: HashMap<HostId, AbortOnDropHandle<()>> = HashMap::new();
    let mut known = 0;
    while !shutdown.is_cancelled() {
        match share(&context, &mut known).await {
            // From here on whoever is silent is to blame: what others hear is known here.
            Ok(()) => context.registry.pulse(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "what other gateways hear is not known");
            }
        }
        // Removed ones are nobody's any more.
        watchers.retain(|host, _| context.registry.knows(*host));
        for (host, _) in context.registry.hosts() {
            // One that has ended has panicked: it is started again.
            if watchers.get(&host).is_none_or(AbortOnDropHandle::is_finished) {
                let watcher = tokio::spawn(look_after(Arc::clone(&context), host));
                watchers.insert(host, AbortOnDropHandle::new(watcher));
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(LOOK) => {}
            () = context.registry.inventories().unwatched() => {}
        }
    }
}

/// Tells the other gateways which agents are heard here, and learns what they hear. `known` is the revision of the hosts' rows seen so far.
async fn share<S: Store>(context: &Context<S>, known: &mut u64) -> Result<(), StoreError> {
    if context.store.is_exclusive() {
        return Ok(());
    }
    let Changes { rows, upto } = context.store.changes::<Host>(*known, HOSTS).await?;
    rows.iter().for_each(|host| context.registry.learn(&host.row));
    *known = upto;
    for heard in context.store.share_agents(&context.registry.heard()).await? {
        context.registry.told(heard);
    }
    Ok(())
}

/// Looks after one host for ever.
async fn look_after<S: Store>(context: Arc<Context<S>>, host: HostId) {
    futures::join!(watch(&context, host), inventory::keep(&context, host));
}

async fn watch<S: Store>(context: &Context<S>, host: HostId) {
    loop {
        if let Err(error) = watch_once(context, host).await {
            tracing::debug!(%host, %error, "the host cannot be watched now");
        }
        sleep(AGAIN).await;
    }
}

async fn watch_once<S: Store>(context: &Context<S>, host: HostId) -> Result<(), Failure> {
    // A start alone is several changes: those that have come are looked at together.
    let mut changes = context.backends.compute.watch(host).await?.ready_chunks(BATCH);
    // What changed while nobody watched is found by comparing.
    context.registry.inventories().again(host);
    while let Some(ids) = changes.next().await {
        let ids: BTreeSet<_> = ids.iter().map(|id| *id.as_uuid()).collect();
        context.wake(WorkKind::Instance, ids, false).await?;
    }
    Ok(())
}
