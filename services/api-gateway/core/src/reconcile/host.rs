//! Hosts on their way out, and back in.
//!
//! A host that drains becomes CORDONED when it holds no instance any more. One that was declared dead becomes CORDONED when all its agents
//! answer and have said what they have; what is to run there is started again then. One that is silent for long enough is declared dead
//! where the fence command confirms that its power is off.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Context, Failure, Outcome, event, volume::same};
use crate::{
    model::{Host, HostMode, Instance, Timestamp},
    ports::{BackendError, Query, Store, Tx, WorkItem, WorkKind},
    services::{declare_dead, wake_all},
};

/// How often to look at a host that drains, or is dead.
const LOOK: Duration = Duration::from_secs(2);
/// How often silent hosts are looked for, and how often one is handed to the fence command at most.
const SILENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

pub(super) async fn reconcile<S: Store>(context: &Context<S>, item: &WorkItem) -> Result<Outcome, Failure> {
    let Some(row) = context.store.get::<Host>(item.id).await? else { return Ok(Outcome::Done) };
    match row.mode {
        HostMode::Removed => Ok(Outcome::Done),
        HostMode::Fenced if is_back(context, &row) => back(context, item, &row).await,
        HostMode::Fenced => Ok(Outcome::Again(LOOK)),
        _ if is_silent(context, &row) => fence(context, item, &row).await,
        HostMode::Draining => drained(context, item, &row).await,
        HostMode::Active | HostMode::Cordoned => Ok(Outcome::Done),
    }
}

/// Whether every agent answers, and has said since then what it has.
fn is_back<S: Store>(context: &Context<S>, row: &Host) -> bool {
    let said = context.registry.inventories().at(row.id());
    context.registry.is_up(row.id()) && said.is_some_and(|at| at > row.mode_since)
}

async fn back<S: Store>(context: &Context<S>, item: &WorkItem, read: &Host) -> Result<Outcome, Failure> {
    let mut tx = context.begin(item).await?;
    wake_all(&mut tx, read).await?;
    let mut row = same(&mut tx, read).await?;
    row.mode = HostMode::Cordoned;
    row.mode_since = Timestamp::now();
    row.mode_reason = format!("it was {} and is back: look at it, then uncordon it", row.mode_reason);
    tx.update(&mut row).await?;
    tx.event(event(&row, "host.return", &row.mode_reason)).await?;
    tx.commit().await?;
    context.registry.learn(&row);
    Ok(Outcome::Done)
}

async fn drained<S: Store>(context: &Context<S>, item: &WorkItem, read: &Host) -> Result<Outcome, Failure> {
    if context.store.count::<Instance>("host_id", &read.meta.id.to_string()).await? > 0 {
        return Ok(Outcome::Again(LOOK));
    }
    let mut tx = context.begin(item).await?;
    let mut row = same(&mut tx, read).await?;
    // Nothing can be placed on it since it drains; what was is committed, and seen here.
    let some = Query { limit: Some(1), ..Query::by("host_id", &row.id()) };
    if !tx.list::<Instance>(&some).await?.is_empty() {
        return Ok(Outcome::Again(LOOK));
    }
    row.mode = HostMode::Cordoned;
    row.mode_since = Timestamp::now();
    row.mode_reason = "drained: it holds no instance any more".to_owned();
    tx.update(&mut row).await?;
    tx.event(event(&row, "host.drained", "")).await?;
    tx.commit().await?;
    context.registry.learn(&row);
    Ok(Outcome::Done)
}

fn is_silent<S: Store>(context: &Context<S>, row: &Host) -> bool {
    let silent = context.registry.silent_for(row.id());
    context.backends.fencer.is_some() && !silent.is_zero() && silent >= context.settings.fence_after
}

/// Has the host's power taken away. Only what the command confirms counts.
async fn fence<S: Store>(context: &Context<S>, item: &WorkItem, read: &Host) -> Result<Outcome, Failure> {
    let Some(fencer) = &context.backends.fencer else { return Ok(Outcome::Done) };
    let name = &read.meta.name;
    tracing::warn!(host = name, "the host is silent: running the fence command");
    let said = match fencer.power_off(read.id(), name).await {
        Ok(said) => said,
        Err(why) => {
            if item.attempts == 0 {
                let mut tx = context.begin(item).await?;
                tx.event(event(read, "host.fence_failed", &why)).await?;
                tx.commit().await?;
            }
            return Err(BackendError::Failed(format!("host {name} is not fenced: {why}")).into());
        }
    };
    let said = if said.is_empty() { said } else { format!(": {said}") };
    let mut tx = context.begin(item).await?;
    wake_all(&mut tx, read).await?;
    let mut row = same(&mut tx, read).await?;
    declare_dead(&mut tx, &mut row, format!("declared dead: the fence command confirmed that its power is off{said}"))
        .await?;
    tx.event(event(&row, "host.fence", &row.mode_reason)).await?;
    tx.commit().await?;
    context.registry.learn(&row);
    tracing::warn!(host = name, reason = row.mode_reason, "the host is declared dead");
    Ok(Outcome::Again(LOOK))
}

/// Looks for hosts that are silent, for ever.
pub(super) async fn look_for_silent<S: Store>(context: Arc<Context<S>>) {
    let mut handed: HashMap<cloud_domain::HostId, Instant> = HashMap::new();
    loop {
        sleep(SILENT.0).await;
        if context.backends.fencer.is_none() {
            return;
        }
        for (host, name) in context.registry.hosts() {
            let silent = context.registry.silent_for(host);
            let due = handed.get(&host).is_none_or(|at| at.elapsed() >= SILENT.1);
            let dead = context.registry.mode(host) == HostMode::Fenced;
            if silent.is_zero() || silent < context.settings.fence_after || !due || dead {
                continue;
            }
            handed.insert(host, Instant::now());
            if let Err(error) = context.wake(WorkKind::Host, [*host.as_uuid()].into(), false).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(host = name, error, "the silent host cannot be handed to the fence command");
            }
        }
    }
}
