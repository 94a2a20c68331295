//! Watching the hosts: what their hypervisors report wakes work at once, and a sweep finds what they did not report.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use cloud_domain::{HostId, InstanceId, InstanceStatus};
use futures::StreamExt;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Context, Failure};
use crate::{
    model::{Desired, Host, Instance},
    ports::{Changes, Guest, GuestPower, Query, Store, StoreError, Tx, WorkKind},
};

/// How often to look for hosts that have joined.
const LOOK: Duration = Duration::from_secs(1);
/// Rows of hosts read together.
const HOSTS: u32 = 500;
/// How long to wait before watching a host again.
const AGAIN: Duration = Duration::from_millis(500);
/// Changes looked at together at most.
const BATCH: usize = 256;

/// Watches every host until `shutdown`.
pub(super) async fn run<S: Store>(context: Arc<Context<S>>, shutdown: CancellationToken) {
    let mut watchers: HashMap<HostId, AbortOnDropHandle<()>> = HashMap::new();
    let mut known = 0;
    while !shutdown.is_cancelled() {
        match share(&context, &mut known).await {
            // From here on whoever is silent is to blame: what others hear is known here.
            Ok(()) => context.registry.pulse(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "what other gateways hear is not known")
            }
        }
        for (host, _) in context.registry.hosts() {
            // One that has ended has panicked: it is started again.
            if watchers.get(&host).is_none_or(AbortOnDropHandle::is_finished) {
                let watcher = tokio::spawn(watch(Arc::clone(&context), host));
                watchers.insert(host, AbortOnDropHandle::new(watcher));
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(LOOK) => {}
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

/// Watches one host for ever.
async fn watch<S: Store>(context: Arc<Context<S>>, host: HostId) {
    loop {
        if let Err(error) = watch_once(&context, host).await {
            tracing::debug!(%host, %error, "the host cannot be watched now");
        }
        sleep(AGAIN).await;
    }
}

async fn watch_once<S: Store>(context: &Context<S>, host: HostId) -> Result<(), Failure> {
    // A start alone is several changes: those that have come are looked at together.
    let mut changes = context.backends.compute.watch(host).await?.ready_chunks(BATCH);
    // What changed while nobody watched is found by comparing.
    sweep(context, host).await?;
    let mut next_sweep = Instant::now() + context.settings.sweep_interval;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(ids) => wake(context, ids.into_iter().collect()).await?,
                None => return Ok(()),
            },
            () = sleep_until(next_sweep) => {
                sweep(context, host).await?;
                next_sweep = Instant::now() + context.settings.sweep_interval;
            }
        }
    }
}

/// Compares a host's guests with what they should be, and wakes the work of those that differ.
async fn sweep<S: Store>(context: &Context<S>, host: HostId) -> Result<(), Failure> {
    let guests: HashMap<_, _> = context.backends.compute.list(host).await?.into_iter().map(|g| (g.id, g)).collect();
    let rows: Vec<Instance> = context.store.list(&Query::by("host_id", &host)).await?;
    wake(context, rows.iter().filter(|row| differs(row, guests.get(&row.id()))).map(Instance::id).collect()).await
}

/// Has instances looked at. Not as new intent: an attempt that fails causes changes itself.
async fn wake<S: Store>(context: &Context<S>, ids: BTreeSet<InstanceId>) -> Result<(), Failure> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut tx = context.store.begin_background().await?;
    for id in ids {
        tx.wake(WorkKind::Instance, *id.as_uuid()).await?;
    }
    tx.commit().await?;
    Ok(())
}

fn differs(row: &Instance, guest: Option<&Guest>) -> bool {
    let running = guest.is_some_and(|g| g.power == GuestPower::Running);
    match row.status {
        InstanceStatus::Running => !guest
            .is_some_and(|g| running && g.incarnation == row.incarnation && g.boot_generation >= row.boot_generation),
        InstanceStatus::Paused => !guest.is_some_and(|g| g.power == GuestPower::Paused),
        InstanceStatus::Stopped => running,
        InstanceStatus::Error => guest.is_some() && (running || row.desired == Desired::Cleaned),
        // Work is under way or due anyway.
        _ => false,
    }
}
