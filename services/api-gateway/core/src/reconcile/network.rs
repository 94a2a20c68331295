//! Telling hosts the state of the VPCs they take part in.
//!
//! A host is always told the whole state of a VPC, read in one snapshot together with its generation. One push to a host and VPC is under way at
//! a time; who waits for it reads the snapshot afterwards, so that many changes become one push.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use cloud_domain::{HostId, SessionId, VpcId};
use futures::future::join_all;

use super::{Context, Failure, Outcome, locks::KeyedLocks};
use crate::{
    model::{AgentRole, HostMode, Port, Subnet},
    ports::{BackendError, PluggedPort, SlicePort, SliceSubnet, Store, VpcSlice, VpcSnapshot, WorkItem},
};

/// What an agent was last told.
#[derive(Debug, Clone)]
struct Applied {
    session: SessionId,
    generation: u64,
    ports: Vec<PluggedPort>,
}

/// What every host was last told. Lost with the process: then all is told again, which changes nothing.
#[derive(Debug, Default)]
pub(super) struct Slices {
    applied: Mutex<HashMap<(HostId, VpcId), Applied>>,
    pushes: KeyedLocks<(HostId, VpcId)>,
}

impl Slices {
    fn get(&self, key: (HostId, VpcId)) -> Option<Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    fn set(&self, key: (HostId, VpcId), applied: Option<Applied>) {
        let mut all = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        match applied {
            Some(applied) => all.insert(key, applied),
            None => all.remove(&key),
        };
    }

    /// What a host was told is not what it has: the next push is made in any case.
    pub(super) fn forget(&self, host: HostId, vpc: VpcId) {
        self.set((host, vpc), None);
    }

    fn hosts_of(&self, vpc: VpcId) -> Vec<HostId> {
        let all = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        all.keys().filter(|(_, v)| *v == vpc).map(|(h, _)| *h).collect()
    }
}

/// Makes a host's switch forward by the VPC's present state, and says where its ports are plugged.
pub(super) async fn apply<S: Store>(
    context: &Context<S>,
    host: HostId,
    vpc: VpcId,
) -> Result<Vec<PluggedPort>, Failure> {
    context.reach(host, AgentRole::Network).await?;
    let _push = context.slices.pushes.lock(&(host, vpc)).await;
    let session = context.present(host, AgentRole::Network)?;
    let snapshot = context.store.vpc_snapshot(vpc).await?;
    let snapshot = snapshot.ok_or_else(|| Failure::Final(format!("VPC {vpc} has no row")))?;
    match context.slices.get((host, vpc)) {
        Some(known) if known.session == session && known.generation == snapshot.generation => Ok(known.ports),
        _ => push(context, host, session, &snapshot).await,
    }
}

/// The same by a snapshot that was read before, for one of several hosts.
async fn tell<S: Store>(context: &Context<S>, host: HostId, snapshot: &VpcSnapshot) -> Result<(), Failure> {
    context.reach(host, AgentRole::Network).await?;
    let vpc = snapshot.vpc.id();
    let _push = context.slices.pushes.lock(&(host, vpc)).await;
    let session = context.present(host, AgentRole::Network)?;
    let known = context.slices.get((host, vpc));
    // Whoever read later may have been faster.
    if known.is_some_and(|known| known.session == session && known.generation >= snapshot.generation) {
        return Ok(());
    }
    push(context, host, session, snapshot).await.map(|_| ())
}

/// Tells a host. Its pushes are locked.
async fn push<S: Store>(
    context: &Context<S>,
    host: HostId,
    session: SessionId,
    snapshot: &VpcSnapshot,
) -> Result<Vec<PluggedPort>, Failure> {
    let (key, generation) = ((host, snapshot.vpc.id()), snapshot.generation);
    // What it is not told of it unplugs for good: a guest goes on with the tap that it was started with.
    let Some(strangers) = context.registry.strangers().ports(host, snapshot) else {
        let message =
            format!("host {}: its compute-agent has not said yet what guests it has", context.registry.name(host));
        return Err(BackendError::Unreachable(message).into());
    };
    if strangers.is_empty() && !snapshot.ports.iter().any(|p| p.host == host && !p.removing) {
        context.backends.network.remove(host, snapshot.vpc.id(), generation).await?;
        context.slices.set(key, None);
        return Ok(Vec::new());
    }
    let slice = slice(context, host, snapshot, strangers);
    let plugged = context.backends.network.apply(host, &slice).await?;
    context.slices.set(key, Some(Applied { session, generation, ports: plugged.clone() }));
    Ok(plugged)
}

fn slice<S: Store>(context: &Context<S>, host: HostId, snapshot: &VpcSnapshot, strangers: Vec<SlicePort>) -> VpcSlice {
    let subnet = |s: &Subnet| SliceSubnet { id: s.id(), cidr: s.cidr, dns_servers: s.dns_servers.clone() };
    let port = |p: &Port| SlicePort {
        id: p.id(),
        subnet: p.subnet,
        instance: p.instance,
        mac: p.mac,
        ip: p.ip,
        local: p.host == host,
        tunnel_address: snapshot.tunnels.get(&p.host).filter(|_| p.host != host).cloned().unwrap_or_default(),
        hostname: p.instance_name.clone(),
    };
    VpcSlice {
        vpc: snapshot.vpc.id(),
        vni: snapshot.vpc.vni,
        generation: snapshot.generation,
        mtu: context.settings.mtu,
        subnets: snapshot.subnets.iter().map(subnet).collect(),
        ports: snapshot.ports.iter().filter(|p| !p.removing).map(port).chain(strangers).collect(),
    }
}

fn is_dead<S: Store>(context: &Context<S>, host: HostId) -> bool {
    context.registry.mode(host) == HostMode::Fenced && context.registry.heard_of(host).is_empty()
}

/// Tells every host that has, or had, ports in the VPC. All are told, whoever fails.
pub(super) async fn reconcile<S: Store>(context: &Context<S>, item: &WorkItem) -> Result<Outcome, Failure> {
    let vpc = VpcId::from(item.id);
    let Some(snapshot) = context.store.vpc_snapshot(vpc).await? else { return Ok(Outcome::Done) };
    let mut hosts: BTreeSet<HostId> = snapshot.ports.iter().map(|p| p.host).collect();
    hosts.extend(context.slices.hosts_of(vpc));
    hosts.extend(context.registry.strangers().hosts_of(vpc));
    // One that is removed, or dead, is told when it comes back: what it has is older then.
    hosts.retain(|host| context.registry.knows(*host) && !is_dead(context, *host));
    let told = join_all(hosts.into_iter().map(|host| tell(context, host, &snapshot))).await;
    told.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Outcome::Done)
}
