//! VPCs: a host is told again only where what it has is older than what it shall have, lacks a port, or has one that nobody wants.

use std::collections::{BTreeMap, BTreeSet};

use cloud_domain::{HostId, PortId, VpcId};
use futures::future::join_all;

use super::{
    Compared, fingerprint,
    orphans::{self, Unknown},
};
use crate::{
    model::{OrphanKind, Port, Vpc},
    ports::{FoundVpc, Query, Store, StoreError, Tx, WorkKind},
    reconcile::{Context, Failure, network},
};

/// Compares what a host's switch has with the rows. Answers with the VPCs that the host is to be told of.
pub(super) async fn compare<S: Store>(
    context: &Context<S>,
    host: HostId,
    hurry: bool,
) -> Result<(Compared, Vec<VpcId>), Failure> {
    let listed = context.backends.network.list_vpcs(host).await?;
    let (inventories, kind) = (context.registry.inventories(), OrphanKind::Vpc);
    let mark = context.store.mark::<Port>(host).await?;
    let strangers = context.registry.strangers().vpcs(host);
    let compared = fingerprint(&listed, (mark, context.store.vpc_generations(host).await?, &strangers));
    // Of VPCs in which a host has such guests alone, no mark says that they changed.
    let may_settle = strangers.as_ref().is_some_and(|(vpcs, _)| vpcs.is_empty());
    if !hurry && may_settle && inventories.is_settled(host, kind, compared) {
        return Ok((Compared { found: listed.len(), differ: 0 }, Vec::new()));
    }
    let found: BTreeMap<VpcId, FoundVpc> = listed.into_iter().map(|v| (v.id, v)).collect();
    // Where there may be guests of which nothing is known, a port too many may be one of theirs.
    let all_known = strangers.as_ref().is_some_and(|(_, all)| *all);
    let vpcs = strangers.map(|(vpcs, _)| vpcs).unwrap_or_default();
    let Wanted { plugged: wanted, known, generations } = wanted(context, host, vpcs).await?;
    let epoch = context.store.identity().1;
    let (mut tell, mut repaired) = (Vec::new(), Vec::new());
    for (vpc, plugged) in wanted.iter().filter(|(_, plugged)| !plugged.is_empty()) {
        let Some(generation) = generations.get(vpc) else { continue };
        match found.get(vpc) {
            Some(has) if has.order < (epoch, *generation) => tell.push(*vpc),
            Some(has)
                if has.order == (epoch, *generation)
                    && (!plugged.is_subset(&has.ports) || (all_known && !has.ports.is_subset(&known))) =>
            {
                repaired.push(*vpc);
            }
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
    let unknown: Vec<_> = unknown.iter().filter_map(|id| found.get(id)).map(Unknown::vpc).collect();
    let differ = tell.len() + repaired.len();
    inventories.drifted("vpc", differ);
    for vpc in repaired {
        repair(context, vpc).await?;
    }
    for vpc in &tell {
        // It is not what it was told: what is remembered of that is wrong.
        context.slices.forget(host, *vpc);
    }
    let settled = may_settle && differ == 0 && unknown.is_empty();
    orphans::note(context, host, kind, unknown).await?;
    inventories.settle(host, kind, settled.then_some(compared));
    Ok((Compared { found: found.len(), differ }, tell))
}

/// What a host shall have.
struct Wanted {
    /// The ports to be plugged, by VPC; none of a VPC that the host only leaves.
    plugged: BTreeMap<VpcId, BTreeSet<PortId>>,
    /// All ports that anybody knows there.
    known: BTreeSet<PortId>,
    /// How new its VPCs are.
    generations: BTreeMap<VpcId, u64>,
}

/// What the rows say, and what guests without a row keep in these VPCs.
async fn wanted<S: Store>(context: &Context<S>, host: HostId, strangers: BTreeSet<VpcId>) -> Result<Wanted, Failure> {
    let ports: Vec<Port> = context.store.list(&Query::by("host_id", &host)).await?;
    let mut plugged: BTreeMap<VpcId, BTreeSet<PortId>> = BTreeMap::new();
    for port in &ports {
        let of_vpc = plugged.entry(port.vpc).or_default();
        // One that is being unplugged is its instance's work.
        if !port.removing {
            of_vpc.insert(port.id());
        }
    }
    // After the ports: what changed in between has another generation, and is told.
    let generations = context.store.vpc_generations(host).await?.into_iter().collect();
    let mut wanted = Wanted { plugged, known: ports.iter().map(Port::id).collect(), generations };
    for vpc in strangers {
        let Some(snapshot) = context.store.vpc_snapshot(vpc).await? else { continue };
        let kept = context.registry.strangers().ports(host, &snapshot).unwrap_or_default();
        if snapshot.vpc.meta.deleted_at.is_some() || kept.is_empty() {
            continue;
        }
        wanted.generations.insert(vpc, snapshot.generation);
        wanted.known.extend(kept.iter().map(|port| port.id));
        wanted.plugged.entry(vpc).or_default().extend(kept.iter().map(|port| port.id));
    }
    Ok(wanted)
}

/// Tells a host of VPCs. Not by their work: that tells every host of each, and another gateway may think that it has told this one.
pub(super) async fn tell<S: Store>(context: &Context<S>, host: HostId, vpcs: Vec<VpcId>) -> Result<(), Failure> {
    let told = join_all(vpcs.into_iter().map(|vpc| network::apply(context, host, vpc))).await;
    told.into_iter().collect::<Result<Vec<_>, _>>().map(|_| ())
}

/// A port was unplugged behind the agent's back, or that of a guest that no row knew was left when the guest was gone. An agent that was told this
/// generation does nothing when it is told again: it is told another.
async fn repair<S: Store>(context: &Context<S>, vpc: VpcId) -> Result<(), Failure> {
    tracing::warn!(%vpc, "what is plugged is not what should be: telling its hosts again");
    let mut tx = context.store.begin_background().await?;
    match tx.bump_generation(vpc).await {
        Ok(()) => {}
        // Deleted meanwhile.
        Err(StoreError::Stale) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    tx.enqueue(WorkKind::Vpc, *vpc.as_uuid()).await?;
    Ok(tx.commit().await?)
}
