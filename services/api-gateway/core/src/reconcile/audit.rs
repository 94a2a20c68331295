//! Comparing the database with itself: claims, counters and rows.
//!
//! Everything that one transaction claims, another gives back; where that is done wrong, or a database was mended by hand, the difference stays
//! for ever. Once every interval all live rows are read in one snapshot and compared. What does not fit is logged as an error, counted in the
//! metrics, and written as an event once for as long as it lasts.
//!
//! Only the counters of promised capacity are corrected, and not from the snapshot: the host's row is locked first, so that nobody can promise or
//! take back, then its instances are read anew and summed, and only then the counter is written, in the same transaction. Rows are left to
//! people: of two that contradict each other none is known to be the right one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cloud_domain::{Cidr, HostId, InstanceId, PortId, SubnetId, VolumeId};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Context, event};
use crate::{
    model::{Host, Instance, Port, Timestamp, Volume},
    ports::{Audited, Query, Store, StoreError, Tx},
};

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    check: &'static str,
    id: Uuid,
    message: String,
}

/// What is remembered of an instance: of every one at once, so as little as will do.
struct Claims {
    name: Box<str>,
    live: bool,
    ports: Box<[Option<PortId>]>,
    volumes: Box<[Option<VolumeId>]>,
}

/// Strikes a claim off that was met; whether it was there.
fn strike<T: PartialEq>(claims: &mut [Option<T>], met: &T) -> bool {
    claims.iter_mut().find(|claim| claim.as_ref() == Some(met)).is_some_and(|claim| claim.take().is_some())
}

/// What is remembered of the rows so far.
#[derive(Default)]
struct Books {
    hosts: HashMap<HostId, Counted>,
    subnets: HashMap<SubnetId, Cidr>,
    instances: HashMap<InstanceId, Claims>,
    findings: Vec<Finding>,
}

/// A host's counters and what its instances sum up to: processors, memory in MiB.
struct Counted {
    name: String,
    counters: (u64, u64),
    summed: (u64, u64),
}

/// Audits again and again, for ever.
pub(super) async fn run<S: Store>(context: Arc<Context<S>>) {
    let mut known = BTreeSet::new();
    // The first one soon after the start, but not on top of it.
    let mut wait = context.settings.audit_interval.min(std::time::Duration::from_secs(30));
    loop {
        sleep(wait).await;
        wait = context.settings.audit_interval;
        match audit(&context).await {
            Ok(findings) => known = report(&context, findings, &known).await,
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the audit could not be made"),
        }
        let before = Timestamp::now().minus(context.settings.tombstone_retention);
        match context.store.purge_tombstones(before).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "forgot deletions of long ago"),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "old deletions are not forgotten"),
        }
    }
}

/// Compares the rows; corrects counters that are wrong.
async fn audit<S: Store>(context: &Context<S>) -> Result<Vec<Finding>, StoreError> {
    let mut books = Books::default();
    context.store.audit(|row| books.enter(row)).await?;
    books.close();
    for (host, counted) in &books.hosts {
        if counted.counters != counted.summed {
            recount(context, *host).await?;
        }
    }
    Ok(books.findings)
}

/// Says what does not fit; what was said before is not said again. Answers with what is known now: not with what could not be written as an event, which
/// is said at the next audit.
async fn report<S: Store>(
    context: &Context<S>,
    findings: Vec<Finding>,
    known: &BTreeSet<Finding>,
) -> BTreeSet<Finding> {
    let mut counts: BTreeMap<&'static str, u64> = CHECKS.into_iter().map(|check| (check, 0)).collect();
    let mut told = BTreeSet::new();
    for finding in findings {
        *counts.entry(finding.check).or_default() += 1;
        if !known.contains(&finding) {
            let Finding { check, id, message } = &finding;
            tracing::error!(check, %id, message, "the database contradicts itself");
            if let Err(error) = tell(context, &finding).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the finding is not written as an event yet");
                continue;
            }
        }
        told.insert(finding);
    }
    context.registry.inventories().audited(counts);
    told
}

async fn tell<S: Store>(context: &Context<S>, finding: &Finding) -> Result<(), StoreError> {
    let mut tx = context.store.begin_background().await?;
    let event = match finding.check {
        // With its correction.
        CAPACITY => None,
        PORT => tx.get::<Port>(finding.id).await?.map(|row| event(&row, "audit.finding", &finding.message)),
        VOLUME => tx.get::<Volume>(finding.id).await?.map(|row| event(&row, "audit.finding", &finding.message)),
        _ => tx.get::<Instance>(finding.id).await?.map(|row| event(&row, "audit.finding", &finding.message)),
    };
    let Some(event) = event else { return Ok(()) };
    tx.event(event).await?;
    tx.commit().await
}

/// Corrects a host's counters by its instances, both read while nobody else can change the counters.
async fn recount<S: Store>(context: &Context<S>, host: HostId) -> Result<(), StoreError> {
    let mut tx = context.store.begin_background().await?;
    let counters = tx.lock_capacity_used(host).await?;
    let instances: Vec<Instance> = tx.list(&Query::by("host_id", &host)).await?;
    let summed = instances.iter().filter(|row| row.holds_capacity).fold((0, 0), add);
    if counters == summed {
        return Ok(());
    }
    tx.set_capacity_used(host, summed.0, summed.1).await?;
    if let Some(row) = tx.get::<Host>(*host.as_uuid()).await? {
        tx.event(event(&row, "audit.finding", &wrongly_counted(&row.meta.name, counters, summed))).await?;
    }
    tracing::error!(
        host = context.registry.name(host),
        ?counters,
        ?summed,
        "what is promised of a host (vCPUs, MiB) was counted wrong: corrected"
    );
    tx.commit().await
}

fn wrongly_counted(host: &str, counters: (u64, u64), summed: (u64, u64)) -> String {
    format!(
        "host {host} has {} vCPUs and {} MiB promised by its counters, {} and {} by its instances",
        counters.0, counters.1, summed.0, summed.1
    )
}

fn add((vcpus, memory): (u64, u64), row: &Instance) -> (u64, u64) {
    (vcpus + u64::from(row.vcpus), memory + u64::from(row.memory_mib))
}

/// A host's counters are not the sum of its instances.
const CAPACITY: &str = "capacity";
/// A port's instance, subnet or address does not fit.
const PORT: &str = "port";
/// A volume's attachment does not fit.
const VOLUME: &str = "volume";
/// An instance has a NIC or a disk that is not there.
const INSTANCE: &str = "instance";

const CHECKS: [&str; 4] = [CAPACITY, PORT, VOLUME, INSTANCE];

impl Books {
    fn find(&mut self, check: &'static str, id: Uuid, message: String) {
        self.findings.push(Finding { check, id, message });
    }

    fn enter(&mut self, row: Audited) {
        match row {
            Audited::Host(row, vcpus, memory) => {
                let counted = Counted { name: row.meta.name.clone(), counters: (vcpus, memory), summed: (0, 0) };
                self.hosts.insert(row.id(), counted);
            }
            Audited::Subnet(row) => {
                self.subnets.insert(row.id(), row.cidr);
            }
            Audited::Instance(row) => self.instance(&row),
            Audited::Port(row) => self.port(&row),
            Audited::Volume(row) => self.volume(&row),
        }
    }

    fn instance(&mut self, row: &Instance) {
        if row.holds_capacity {
            match self.hosts.get_mut(&row.host) {
                Some(host) => host.summed = add(host.summed, row),
                None => self.find(INSTANCE, row.meta.id, format!("its host {} has no row", row.host_name)),
            }
        }
        let claims = Claims {
            name: row.meta.name.as_str().into(),
            // What could not be provisioned keeps the names of what it had.
            live: row.holds_capacity,
            ports: row.nics.iter().map(|nic| Some(nic.port)).collect(),
            volumes: row.disks.iter().map(|disk| Some(disk.volume)).collect(),
        };
        self.instances.insert(row.id(), claims);
    }

    fn port(&mut self, row: &Port) {
        let wrong = match self.instances.get_mut(&row.instance) {
            None => Some(format!("its instance {} has no live row", row.instance_name)),
            // What is found here is not missed at the end.
            Some(claims) => {
                let known = strike(&mut claims.ports, &row.id());
                (!known).then(|| format!("instance `{}` has no such NIC", claims.name))
            }
        };
        let subnet = match self.subnets.get(&row.subnet) {
            None => Some(format!("its subnet {} has no live row", row.subnet_name)),
            Some(cidr) if !cidr.is_guest(row.ip) => Some(format!("its address {} is not in {cidr}", row.ip)),
            Some(_) => None,
        };
        for message in wrong.into_iter().chain(subnet) {
            self.find(PORT, row.meta.id, message);
        }
    }

    fn volume(&mut self, row: &Volume) {
        let Some(instance) = row.instance else { return };
        let wrong = match self.instances.get_mut(&instance) {
            None => Some(format!("it is attached to instance {}, which has no live row", row.instance_name)),
            Some(claims) => {
                let known = strike(&mut claims.volumes, &row.id());
                (!known).then(|| format!("it is attached to instance `{}`, which does not have it", claims.name))
            }
        };
        if let Some(message) = wrong {
            self.find(VOLUME, row.meta.id, message);
        }
    }

    /// All rows are entered: what was not met is missing.
    fn close(&mut self) {
        let mut findings = Vec::new();
        for (id, claims) in self.instances.iter().filter(|(_, claims)| claims.live) {
            let ports =
                claims.ports.iter().flatten().map(|port| format!("it has a NIC whose port {port} has no live row"));
            let volumes = claims
                .volumes
                .iter()
                .flatten()
                .map(|volume| format!("it has a disk whose volume {volume} is not attached to it"));
            let found = ports.chain(volumes).map(|message| Finding { check: INSTANCE, id: *id.as_uuid(), message });
            findings.extend(found);
        }
        for (id, Counted { name, counters, summed }) in &self.hosts {
            if counters != summed {
                let message = wrongly_counted(name, *counters, *summed);
                findings.push(Finding { check: CAPACITY, id: *id.as_uuid(), message });
            }
        }
        self.findings.extend(findings);
        self.findings.sort();
    }
}
