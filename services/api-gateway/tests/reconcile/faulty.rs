//! A store whose commits can fail, or be the last thing its gateway does, one at a time; all else is the real one's.
//!
//! Every commit of the background is counted, and known by its place in the source: where its transaction is committed, or which of the work
//! table's own transactions it is.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{net::Ipv4Addr, panic::Location, sync::Arc, time::Duration};

use cloud_api_gateway::adapters::sql::{SqlStore, SqlTx};
use cloud_core::{
    Kind,
    model::{Amounts, DoneRequest, Event, Host, NewEvent, Quota, RequestKey, Resource, Timestamp},
    ports::{
        Audited, Changes, Claim, EventQuery, Fill, HeardAgent, Mark, Query, Store, StoreError, Tx, VpcSnapshot,
        WorkItem, WorkKind, WorkState,
    },
};
use cloud_domain::{Cidr, CloudId, HostId, ProjectId, SubnetId, Vni, VpcId};
use tokio::sync::watch;
use uuid::Uuid;

use super::host::{FakeHost, Fault};

type Answer<T> = Result<T, StoreError>;

/// The store of a gateway's workers.
#[derive(Clone)]
pub struct FaultyStore {
    inner: SqlStore,
    host: Arc<FakeHost>,
}

/// One of its transactions.
pub struct FaultyTx {
    inner: SqlTx,
    /// Of the background: the calls of users are not what is tried here.
    host: Option<Arc<FakeHost>>,
}

impl FaultyStore {
    pub fn new(inner: SqlStore, host: Arc<FakeHost>) -> Self {
        Self { inner, host }
    }
}

fn away() -> StoreError {
    StoreError::Unavailable("the database went away".into())
}

/// Commits, with what goes wrong at this one.
async fn commit<T>(host: &FakeHost, place: String, commit: impl Future<Output = Answer<T>> + Send) -> Answer<T> {
    match host.strikes(place) {
        None => return commit.await,
        Some(Fault::Lost) => return Err(away()),
        Some(Fault::AnswerLost) => {
            commit.await?;
            return Err(away());
        }
        // A process that ends rolls back.
        Some(Fault::KilledBefore) => drop(commit),
        Some(Fault::KilledAfter) => drop(commit.await),
    }
    host.kill.notify_one();
    std::future::pending().await
}

/// Such as `instance/up.rs:138`.
fn place(at: &Location<'_>) -> String {
    let file = at.file().split_once("src/reconcile/").map_or(at.file(), |(_, file)| file);
    format!("{file}:{}", at.line())
}

impl Store for FaultyStore {
    type Tx = FaultyTx;

    async fn begin(&self) -> Answer<FaultyTx> {
        Ok(FaultyTx { inner: self.inner.begin().await?, host: None })
    }

    async fn begin_background(&self) -> Answer<FaultyTx> {
        Ok(FaultyTx { inner: self.inner.begin_background().await?, host: Some(self.host.clone()) })
    }

    async fn claim_work(&self, limit: u32, lease: Duration) -> Answer<Vec<WorkItem>> {
        // Most look in vain, and commit nothing.
        if self.inner.work_status().await?.1 == 0 {
            return Ok(Vec::new());
        }
        commit(&self.host, "work: claim".into(), self.inner.claim_work(limit, lease)).await
    }

    async fn renew_lease(&self, item: &WorkItem, lease: Duration) -> Answer<()> {
        commit(&self.host, "work: renew".into(), self.inner.renew_lease(item, lease)).await
    }

    async fn finish_work(&self, item: &WorkItem, again: Option<Duration>, error: Option<&str>) -> Answer<()> {
        let place = format!("work: finish {}", item.kind.as_str());
        commit(&self.host, place, self.inner.finish_work(item, again, error)).await
    }

    async fn get<R: Resource>(&self, id: Uuid) -> Answer<Option<R>> {
        self.inner.get(id).await
    }

    async fn find<R: Resource>(&self, project: ProjectId, name: &str) -> Answer<Option<R>> {
        self.inner.find(project, name).await
    }

    async fn list<R: Resource>(&self, query: &Query) -> Answer<Vec<R>> {
        self.inner.list(query).await
    }

    async fn count<R: Resource>(&self, column: &'static str, value: &str) -> Answer<u64> {
        self.inner.count::<R>(column, value).await
    }

    async fn vpc_snapshot(&self, vpc: VpcId) -> Answer<Option<VpcSnapshot>> {
        self.inner.vpc_snapshot(vpc).await
    }

    async fn capacity_used(&self, host: HostId) -> Answer<(u64, u64)> {
        self.inner.capacity_used(host).await
    }

    async fn quota(&self, project: ProjectId) -> Answer<Option<Quota>> {
        self.inner.quota(project).await
    }

    async fn list_events(&self, query: &EventQuery) -> Answer<Vec<Event>> {
        self.inner.list_events(query).await
    }

    async fn vpc_generations(&self, host: HostId) -> Answer<Vec<(VpcId, u64)>> {
        self.inner.vpc_generations(host).await
    }

    async fn mark<R: Resource>(&self, host: HostId) -> Answer<Mark> {
        self.inner.mark::<R>(host).await
    }

    async fn tombstones(&self, kind: Kind, ids: &[Uuid]) -> Answer<Vec<Uuid>> {
        self.inner.tombstones(kind, ids).await
    }

    async fn purge_tombstones(&self, before: Timestamp) -> Answer<u64> {
        self.inner.purge_tombstones(before).await
    }

    async fn audit(&self, see: impl FnMut(Audited) + Send) -> Answer<()> {
        self.inner.audit(see).await
    }

    async fn deleted<R: Resource>(
        &self,
        before: Timestamp,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Answer<Vec<R>> {
        self.inner.deleted(before, after, limit).await
    }

    async fn purged(&self) -> Answer<u64> {
        self.inner.purged().await
    }

    async fn request(&self, project: ProjectId, id: &str) -> Answer<Option<DoneRequest>> {
        Store::request(&self.inner, project, id).await
    }

    async fn revision(&self) -> Answer<u64> {
        self.inner.revision().await
    }

    async fn changes<R: Resource>(&self, after: u64, limit: u32) -> Answer<Changes<R>> {
        self.inner.changes(after, limit).await
    }

    async fn events_after(&self, after: u64, limit: u32) -> Answer<Changes<Event>> {
        self.inner.events_after(after, limit).await
    }

    async fn share_agents(&self, heard: &[HeardAgent]) -> Answer<Vec<HeardAgent>> {
        self.inner.share_agents(heard).await
    }

    async fn work(&self, kind: WorkKind, id: Uuid) -> Answer<Option<WorkState>> {
        self.inner.work(kind, id).await
    }

    async fn vpc_generation(&self, vpc: VpcId) -> Answer<Option<u64>> {
        self.inner.vpc_generation(vpc).await
    }

    async fn work_status(&self) -> Answer<(Option<Duration>, u64, Duration)> {
        self.inner.work_status().await
    }

    async fn instances_by_status(&self) -> Answer<Vec<(String, u64)>> {
        self.inner.instances_by_status().await
    }

    fn identity(&self) -> (CloudId, u64) {
        self.inner.identity()
    }

    fn secret(&self) -> [u8; 32] {
        self.inner.secret()
    }

    fn is_exclusive(&self) -> bool {
        self.inner.is_exclusive()
    }

    fn commits(&self) -> watch::Receiver<u64> {
        self.inner.commits()
    }
}

impl Tx for FaultyTx {
    #[track_caller]
    fn commit(self) -> impl Future<Output = Answer<()>> + Send {
        let place = place(Location::caller());
        async move {
            match self.host {
                Some(host) => commit(&host, place, self.inner.commit()).await,
                None => self.inner.commit().await,
            }
        }
    }

    async fn get<R: Resource>(&mut self, id: Uuid) -> Answer<Option<R>> {
        self.inner.get(id).await
    }

    async fn find<R: Resource>(&mut self, project: ProjectId, name: &str) -> Answer<Option<R>> {
        self.inner.find(project, name).await
    }

    async fn list<R: Resource>(&mut self, query: &Query) -> Answer<Vec<R>> {
        self.inner.list(query).await
    }

    async fn insert<R: Resource>(&mut self, row: &R) -> Answer<()> {
        self.inner.insert(row).await
    }

    async fn update<R: Resource>(&mut self, row: &mut R) -> Answer<()> {
        self.inner.update(row).await
    }

    async fn hosts_with_room(
        &mut self,
        vcpus: u32,
        memory_mib: u32,
        order: Fill,
        among: Option<&[HostId]>,
        limit: u32,
    ) -> Answer<Vec<(HostId, u64)>> {
        self.inner.hosts_with_room(vcpus, memory_mib, order, among, limit).await
    }

    async fn group_hosts(&mut self, project: ProjectId, group: &str) -> Answer<Vec<(HostId, u64)>> {
        self.inner.group_hosts(project, group).await
    }

    async fn forget_agents(&mut self, host: HostId) -> Answer<()> {
        self.inner.forget_agents(host).await
    }

    async fn claim_capacity(&mut self, host: HostId, vcpus: u32, memory_mib: u32) -> Answer<Option<Host>> {
        self.inner.claim_capacity(host, vcpus, memory_mib).await
    }

    async fn release_capacity(&mut self, host: HostId, vcpus: u32, memory_mib: u32) -> Answer<()> {
        self.inner.release_capacity(host, vcpus, memory_mib).await
    }

    async fn lock_capacity_used(&mut self, host: HostId) -> Answer<(u64, u64)> {
        self.inner.lock_capacity_used(host).await
    }

    async fn set_capacity_used(&mut self, host: HostId, vcpus: u64, memory_mib: u64) -> Answer<()> {
        self.inner.set_capacity_used(host, vcpus, memory_mib).await
    }

    async fn request(&mut self, project: ProjectId, id: &str) -> Answer<Option<DoneRequest>> {
        self.inner.request(project, id).await
    }

    async fn record(&mut self, key: &RequestKey, resource: &str) -> Answer<()> {
        self.inner.record(key, resource).await
    }

    async fn purge<R: Resource>(&mut self, row: &R) -> Answer<bool> {
        self.inner.purge(row).await
    }

    async fn purge_events(&mut self, before: Timestamp, limit: u32) -> Answer<u64> {
        self.inner.purge_events(before, limit).await
    }

    async fn purge_requests(&mut self, now: Timestamp, limit: u32) -> Answer<u64> {
        self.inner.purge_requests(now, limit).await
    }

    async fn open_quota(&mut self, project: ProjectId, used: &Amounts) -> Answer<()> {
        self.inner.open_quota(project, used).await
    }

    async fn claim_quota(&mut self, project: ProjectId, amounts: &Amounts, defaults: &Amounts) -> Answer<Claim> {
        self.inner.claim_quota(project, amounts, defaults).await
    }

    async fn release_quota(&mut self, project: ProjectId, amounts: &Amounts) -> Answer<()> {
        self.inner.release_quota(project, amounts).await
    }

    async fn set_limits(&mut self, project: ProjectId, limits: &Amounts) -> Answer<bool> {
        self.inner.set_limits(project, limits).await
    }

    async fn close_quota(&mut self, project: ProjectId) -> Answer<()> {
        self.inner.close_quota(project).await
    }

    async fn set_capacity(&mut self, host: HostId, vcpus: u64, memory_mib: u64) -> Answer<()> {
        self.inner.set_capacity(host, vcpus, memory_mib).await
    }

    async fn free_address(&mut self, subnet: SubnetId, cidr: Cidr) -> Answer<Option<Ipv4Addr>> {
        self.inner.free_address(subnet, cidr).await
    }

    async fn next_vni(&mut self) -> Answer<Vni> {
        self.inner.next_vni().await
    }

    async fn bump_generation(&mut self, vpc: VpcId) -> Answer<()> {
        self.inner.bump_generation(vpc).await
    }

    async fn register_agent(&mut self, agent: &HeardAgent) -> Answer<()> {
        self.inner.register_agent(agent).await
    }

    async fn enqueue(&mut self, kind: WorkKind, id: Uuid) -> Answer<()> {
        self.inner.enqueue(kind, id).await
    }

    async fn wake(&mut self, kind: WorkKind, id: Uuid) -> Answer<()> {
        self.inner.wake(kind, id).await
    }

    async fn guard(&mut self, item: &WorkItem) -> Answer<()> {
        self.inner.guard(item).await
    }

    async fn event(&mut self, event: NewEvent) -> Answer<()> {
        self.inner.event(event).await
    }
}
