//! VPCs: a host is told again only where what it has is older than what it shall have, or lacks a port.

use std::collections::{BTreeMap, BTreeSet};

use cloud_domain::{HostId, PortId, VpcId};
use futures::future::join_all;

use super::{
    Compared,
    orphans::{self, Unknown},
};
use crate::{
    model::{OrphanKind, Port, Vpc},
    ports::{FoundVpc, Query, Store, StoreError, Tx, WorkKind},
    reconcile::{Context, Failure, network},
};

/// Compares what a host's switch has with the rows. Answers with the VPCs that the host is to be told of.
pub(super) async fn compare<S: Store>(context: &Context<S>, host: HostId) -> Result<(Compared, Vec<VpcId>), Failure> {
    let found: BTreeMap<VpcId, FoundVpc> =
        context.backends.network.list_vpcs(host).await?.into_iter().map(|v| (v.id, v)).collect();
    let ports: Vec<Port> = context.store.list(&Query::by("host_id", &host)).await?;
    // After the ports: what changed in between has another generation, and is told.
    let generations: BTreeMap<VpcId, u64> = context.store.vpc_generations(host).await?.into_iter().collect();
    let epoch = context.store.identity().1;
    let mut wanted: BTreeMap<VpcId, BTreeSet<PortId>> = BTreeMap::new();
    for port in &ports {
        let plugged = wanted.entry(port.vpc).or_default();
        // One that is being unplugged is its instance's work.
        if !port.removing {
            plugged.insert(port.id());
        }
    }
    let (mut tell, mut unplugged) = (Vec::new(), Vec::new());
    for (vpc, plugged) in wanted.iter().filter(|(_, plugged)| !plugged.is_empty()) {
        let Some(generation) = generations.get(vpc) else { continue };
        match found.get(vpc) {
            Some(has) if has.order < (epoch, *generation) => tell.push(*vpc),
            Some(has) if has.order == (epoch, *generation) && !plugged.is_subset(&has.ports) => unplugged.push(*vpc),
            Some(_) => {}
            None => tell.push(*vpc),
        }
    }
    let mut unknown = Vec::new();
    for has in found.values().filter(|has| !wanted.contains_key(&has.id)) {
        match context.store.get::<Vpc>(*has.id.as_uuid()).await? {
            // The host takes no part in it any more.
            Some(row) if row.meta.deleted_at.is_none() => tell.push(has.id),
            _ => unknown.push(has.id),
        }
    }
    if !unknown.is_empty() {
        // Asked for again: it may have been removed, and its row ended, since the list was made.
        let again = context.backends.network.list_vpcs(host).await?;
        unknown = again.iter().filter(|has| unknown.contains(&has.id)).map(|has| has.id).collect();
    }
    let unknown = unknown.iter().filter_map(|id| found.get(id)).map(Unknown::vpc).collect();
    let differ = tell.len() + unplugged.len();
    context.registry.inventories().drifted("vpc", differ);
    for vpc in unplugged {
        repair(context, vpc).await?;
    }
    for vpc in &tell {
        // It is not what it was told: what is remembered of that is wrong.
        context.slices.forget(host, *vpc);
    }
    orphans::note(context, host, OrphanKind::Vpc, unknown).await?;
    Ok((Compared { found: found.len(), differ }, tell))
}

/// Tells a host of VPCs. Not by their work: that tells every host of each, and another gateway may think that it has told this one.
pub(super) async fn tell<S: Store>(context: &Context<S>, host: HostId, vpcs: Vec<VpcId>) -> Result<(), Failure> {
    let told = join_all(vpcs.into_iter().map(|vpc| network::apply(context, host, vpc))).await;
    told.into_iter().collect::<Result<Vec<_>, _>>().map(|_| ())
}

/// A port was unplugged behind the agent's back. An agent that was told this generation does nothing when it is told again: it is told another.
async fn repair<S: Store>(context: &Context<S>, vpc: VpcId) -> Result<(), Failure> {
    tracing::warn!(%vpc, "a port is not plugged that should be: telling its hosts again");
    let mut tx = context.store.begin_background().await?;
    tx.enqueue(WorkKind::Vpc, *vpc.as_uuid()).await?;
    match tx.bump_generation(vpc).await {
        Ok(()) => Ok(tx.commit().await?),
        // Deleted meanwhile.
        Err(StoreError::Stale) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
