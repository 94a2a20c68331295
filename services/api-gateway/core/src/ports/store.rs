//! The store: rows, counters, work and events, in transactions.

use std::{collections::HashMap, future::Future, net::Ipv4Addr, time::Duration};

use cloud_domain::{CloudId, HostId, ProjectId, SessionId, SubnetId, Vni, VpcId};
use uuid::Uuid;

use super::changes::{Changes, Mark};
use super::work::{WorkItem, WorkKind, WorkState};
use crate::{
    Kind,
    filter::{Filter, Order},
    model::{
        AgentRole, Amounts, DoneRequest, Event, Host, Instance, NewEvent, Port, Quota, RequestKey, Resource, Shortage,
        Subnet, Timestamp, Value, Volume, Vpc,
    },
};

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique claim is taken: a name, an address, a network identifier.
    #[error("a unique claim is taken")]
    Taken,
    /// The request id was used by another call meanwhile.
    #[error("the request id is taken")]
    Repeated,
    /// The row is not at the version that was read, or the lease is held by another worker.
    #[error("the row or the lease is no longer what was read")]
    Stale,
    /// The database does not answer.
    #[error("the database does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A fault.
    #[error("the database failed")]
    Fault(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where a list goes on: after this row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// What the list is ordered by, of the last row.
    pub key: Key,
    /// Its id.
    pub id: Uuid,
}

/// What a list is ordered by, of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// When it was made.
    CreatedAt(Timestamp),
    /// Its name.
    Name(String),
}

/// Which rows; oldest first where nothing else is said.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only rows of this project.
    pub project: Option<ProjectId>,
    /// Or, beside those, rows whose column has this value.
    pub or_column: Option<(&'static str, i64)>,
    /// Only rows whose columns have these values.
    pub columns: Vec<(&'static str, Value)>,
    /// Also deleted rows.
    pub deleted: bool,
    /// Only rows that it means.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// Only rows after this one, in that order.
    pub after: Option<Cursor>,
    /// How many at most.
    pub limit: Option<u32>,
}

impl Query {
    /// Live rows whose column has this value.
    #[must_use]
    pub fn by(column: &'static str, value: &impl ToString) -> Self {
        Self { columns: vec![(column, Value::Text(value.to_string()))], ..Self::default() }
    }
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Only about this kind of resource.
    pub kind: Option<String>,
    /// Only about this resource, by id.
    pub resource: Option<String>,
    /// Only events that it means.
    pub filter: Filter,
    /// The oldest first; else the newest.
    pub oldest_first: bool,
    /// Only events after the one with this revision, in that order.
    pub after: Option<u64>,
    /// How many at most.
    pub limit: u32,
}

/// A live row, as [`Store::audit`] shows it. Hosts and subnets come first, then instances, then what belongs to them.
#[derive(Debug)]
pub enum Audited {
    /// A host, and what its counters say is promised: processors, memory in MiB.
    Host(Box<Host>, u64, u64),
    /// A subnet.
    Subnet(Box<Subnet>),
    /// An instance.
    Instance(Box<Instance>),
    /// A port.
    Port(Box<Port>),
    /// A volume.
    Volume(Box<Volume>),
}

/// A VPC's live subnets and ports, and how new they are: read in one snapshot.
#[derive(Debug, Clone)]
pub struct VpcSnapshot {
    /// The VPC.
    pub vpc: Vpc,
    /// Goes up with every change of what hosts are told.
    pub generation: u64,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Where tunnels to the hosts of its ports end; a host that has not said is not there.
    pub tunnels: HashMap<HostId, String>,
}

/// An agent as one of the gateways on a database hears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardAgent {
    /// Its host.
    pub host: HostId,
    /// Which of the three.
    pub role: AgentRole,
    /// This run of it.
    pub session: SessionId,
    /// Where it listens.
    pub endpoint: String,
    /// Its release.
    pub version: String,
    /// How long ago it gave its last sign of life.
    pub age: Duration,
    /// What is wrong with its backend; empty: nothing.
    pub backend_error: String,
    /// Load averages of its host, where it is the compute-agent: over one, five and fifteen minutes, in hundredths.
    pub load: [u32; 3],
}

/// Which of the hosts with room come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// The emptiest.
    Emptiest,
    /// The fullest.
    Fullest,
}

/// What came of claiming a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is claimed.
    Held,
    /// It does not suffice, and nothing of it is claimed.
    Short(Vec<Shortage>),
    /// There is no such project, or it is deleted.
    NoProject,
}

/// Reads that a store and a transaction both offer.
pub trait Store: Clone + Send + Sync + 'static {
    /// A write transaction.
    type Tx: Tx;

    /// Begins a write transaction. Dropped without commit, it never was.
    fn begin(&self) -> impl Future<Output = Result<Self::Tx, StoreError>> + Send;

    /// The same for work that nobody waits for: it lets callers' transactions go first.
    fn begin_background(&self) -> impl Future<Output = Result<Self::Tx, StoreError>> + Send;

    /// The row with this id, deleted or not.
    fn get<R: Resource>(&self, id: Uuid) -> impl Future<Output = Result<Option<R>, StoreError>> + Send;

    /// The live row with this name in the project.
    fn find<R: Resource>(
        &self,
        project: ProjectId,
        name: &str,
    ) -> impl Future<Output = Result<Option<R>, StoreError>> + Send;

    /// Rows, in the query's order.
    fn list<R: Resource>(&self, query: &Query) -> impl Future<Output = Result<Vec<R>, StoreError>> + Send;

    /// How many live rows have this value in this column.
    fn count<R: Resource>(
        &self,
        column: &'static str,
        value: &str,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// What hosts are told of a VPC. None where it has no row.
    fn vpc_snapshot(&self, vpc: VpcId) -> impl Future<Output = Result<Option<VpcSnapshot>, StoreError>> + Send;

    /// How new what hosts are told of a VPC is; none: it has no row.
    fn vpc_generation(&self, vpc: VpcId) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// What is promised to instances on a host: processors, memory in MiB.
    fn capacity_used(&self, host: HostId) -> impl Future<Output = Result<(u64, u64), StoreError>> + Send;

    /// What a project may have and has. None where it has no row: there is no such project, or it is deleted.
    fn quota(&self, project: ProjectId) -> impl Future<Output = Result<Option<Quota>, StoreError>> + Send;

    /// The live VPCs that a host has ports in, and the generation of each.
    fn vpc_generations(&self, host: HostId) -> impl Future<Output = Result<Vec<(VpcId, u64)>, StoreError>> + Send;

    /// What the live rows of a kind on a host (which has the column `host_id`) are now, in a word.
    fn mark<R: Resource>(&self, host: HostId) -> impl Future<Output = Result<Mark, StoreError>> + Send;

    /// Which of these objects this database remembers to have deleted. The rows themselves may be gone.
    fn tombstones(&self, kind: Kind, ids: &[Uuid]) -> impl Future<Output = Result<Vec<Uuid>, StoreError>> + Send;

    /// Forgets deletions, and orphans that are gone, from before then. How many.
    fn purge_tombstones(&self, before: Timestamp) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Shows every live row that makes or carries a claim, all read in one snapshot.
    fn audit(&self, see: impl FnMut(Audited) + Send) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Events of a project (or of all), newest first, older than `before`.
    fn events(
        &self,
        project: Option<ProjectId>,
        kind: Option<&str>,
        resource: Option<&str>,
        before: Option<u64>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Event>, StoreError>> + Send {
        let (kind, resource) = (kind.map(str::to_owned), resource.map(str::to_owned));
        let query = EventQuery { project, kind, resource, after: before, limit, ..EventQuery::default() };
        async move { self.list_events(&query).await }
    }

    /// Events, in the query's order.
    fn list_events(&self, query: &EventQuery) -> impl Future<Output = Result<Vec<Event>, StoreError>> + Send;

    /// The revision up to which all that was committed can be seen. Every write transaction has one of its own.
    fn revision(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Rows of a kind that were written after a revision. About `limit` of them: never a part of one transaction's.
    fn changes<R: Resource>(
        &self,
        after: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Changes<R>, StoreError>> + Send;

    /// Events that were written after a transaction's revision, oldest first; their revisions are those of transactions.
    fn events_after(&self, after: u64, limit: u32) -> impl Future<Output = Result<Changes<Event>, StoreError>> + Send;

    /// Tells the other gateways on this database which agents were heard here, and answers with what all of them heard.
    fn share_agents(&self, heard: &[HeardAgent]) -> impl Future<Output = Result<Vec<HeardAgent>, StoreError>> + Send;

    /// Rows of a kind that were deleted before a moment, the longest deleted first, after one of them.
    fn deleted<R: Resource>(
        &self,
        before: Timestamp,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<R>, StoreError>> + Send;

    /// The highest revision of what was purged: whoever has not seen all up to it may have missed something, and begins anew.
    fn purged(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// What was done under a request id, also where it need not be remembered any more.
    fn request(
        &self,
        project: ProjectId,
        id: &str,
    ) -> impl Future<Output = Result<Option<DoneRequest>, StoreError>> + Send;

    /// Takes up to `limit` due pieces of work, the longest due first, and leases them for `lease`.
    fn claim_work(&self, limit: u32, lease: Duration)
    -> impl Future<Output = Result<Vec<WorkItem>, StoreError>> + Send;

    /// Keeps a lease. Stale where it was lost.
    fn renew_lease(&self, item: &WorkItem, lease: Duration) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends a lease: done (unless enqueued meanwhile) where `again` is none, else due again after that long. `error` is kept for people.
    fn finish_work(
        &self,
        item: &WorkItem,
        again: Option<Duration>,
        error: Option<&str>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// How a piece of work stands; none: there never was any.
    fn work(&self, kind: WorkKind, id: Uuid) -> impl Future<Output = Result<Option<WorkState>, StoreError>> + Send;

    /// How long until the next piece of work is due, how many are due now, and how long the oldest of them has been.
    fn work_status(&self) -> impl Future<Output = Result<(Option<Duration>, u64, Duration), StoreError>> + Send;

    /// Live instances by status.
    fn instances_by_status(&self) -> impl Future<Output = Result<Vec<(String, u64)>, StoreError>> + Send;

    /// This cloud's id, and the epoch of its database.
    fn identity(&self) -> (CloudId, u64);

    /// A secret made with the cloud, for signing tokens.
    fn secret(&self) -> [u8; 32];

    /// Whether this process is the only one that writes.
    fn is_exclusive(&self) -> bool;

    /// Wakes up on every commit of this process (and of others, where the database tells).
    fn commits(&self) -> tokio::sync::watch::Receiver<u64>;
}

/// A write transaction.
pub trait Tx: Send {
    /// The row with this id, deleted or not.
    fn get<R: Resource>(&mut self, id: Uuid) -> impl Future<Output = Result<Option<R>, StoreError>> + Send;

    /// The live row with this name in the project.
    fn find<R: Resource>(
        &mut self,
        project: ProjectId,
        name: &str,
    ) -> impl Future<Output = Result<Option<R>, StoreError>> + Send;

    /// Rows, in the query's order.
    fn list<R: Resource>(&mut self, query: &Query) -> impl Future<Output = Result<Vec<R>, StoreError>> + Send;

    /// Writes a new row. Taken where its name or another claim of it is.
    fn insert<R: Resource>(&mut self, row: &R) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes a row back: version and time go up. Stale where the version is not the one read.
    fn update<R: Resource>(&mut self, row: &mut R) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// ACTIVE hosts that have this much unpromised, at most `limit`, with how full each is in thousandths of its memory. `among`: only these.
    fn hosts_with_room(
        &mut self,
        vcpus: u32,
        memory_mib: u32,
        order: Fill,
        among: Option<&[HostId]>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<(HostId, u64)>, StoreError>> + Send;

    /// How many live instances of a project's anti-affinity group each host has; hosts without any are left out. Until the transaction ends nobody
    /// else can ask for that group, so what is placed by the answer is placed by the truth.
    fn group_hosts(
        &mut self,
        project: ProjectId,
        group: &str,
    ) -> impl Future<Output = Result<Vec<(HostId, u64)>, StoreError>> + Send;

    /// Forgets what gateways told each other of a host's agents.
    fn forget_agents(&mut self, host: HostId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Promises processors and memory of a host, which is returned; none where it has not as much, or is not ACTIVE. Until the transaction ends
    /// nobody else can promise, take back, or change what operators say of it.
    fn claim_capacity(
        &mut self,
        host: HostId,
        vcpus: u32,
        memory_mib: u32,
    ) -> impl Future<Output = Result<Option<Host>, StoreError>> + Send;

    /// What is promised to instances on a host. Until the transaction ends no other one can promise or take back: what is read of its instances
    /// after this stays so.
    fn lock_capacity_used(&mut self, host: HostId) -> impl Future<Output = Result<(u64, u64), StoreError>> + Send;

    /// Corrects what is promised to instances on a host. Only after [`Self::lock_capacity_used`].
    fn set_capacity_used(
        &mut self,
        host: HostId,
        vcpus: u64,
        memory_mib: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes a promise back.
    fn release_capacity(
        &mut self,
        host: HostId,
        vcpus: u32,
        memory_mib: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Begins a new project's quota, with what it has from the start.
    fn open_quota(&mut self, project: ProjectId, used: &Amounts)
    -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Claims all of these amounts of a project's quota, or none. `defaults` are the limits where the project has none of its own. Until the
    /// transaction ends no other one can claim or give back anything of it, and the project is not deleted: also where nothing is claimed.
    fn claim_quota(
        &mut self,
        project: ProjectId,
        amounts: &Amounts,
        defaults: &Amounts,
    ) -> impl Future<Output = Result<Claim, StoreError>> + Send;

    /// Gives amounts of a project's quota back. A project that is deleted has nothing to be given back to.
    fn release_quota(
        &mut self,
        project: ProjectId,
        amounts: &Amounts,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sets limits of a project; what is not named stays. False where there is no such project.
    fn set_limits(
        &mut self,
        project: ProjectId,
        limits: &Amounts,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends a deleted project's quota.
    fn close_quota(&mut self, project: ProjectId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sets what a host can promise.
    fn set_capacity(
        &mut self,
        host: HostId,
        vcpus: u64,
        memory_mib: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A free guest address of a subnet; none where it is full. The insert of the port is what claims it.
    fn free_address(
        &mut self,
        subnet: SubnetId,
        cidr: cloud_domain::Cidr,
    ) -> impl Future<Output = Result<Option<Ipv4Addr>, StoreError>> + Send;

    /// A new network identifier.
    fn next_vni(&mut self) -> impl Future<Output = Result<Vni, StoreError>> + Send;

    /// Says that what hosts are told of a VPC has changed. Until the transaction ends no other one can: what is read of the VPC after this
    /// stays so. Stale where the VPC is deleted.
    fn bump_generation(&mut self, vpc: VpcId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Tells the other gateways on this database which run of an agent is the present one.
    fn register_agent(&mut self, agent: &HeardAgent) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes work due now.
    fn enqueue(&mut self, kind: WorkKind, id: Uuid) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Says that something may have changed on a host: work that rests becomes due now. Unlike [`Self::enqueue`] it is no new intent, so work
    /// that failed keeps waiting as long as it has to: what the failing attempts themselves cause would else make them follow each other
    /// without a pause.
    fn wake(&mut self, kind: WorkKind, id: Uuid) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Checks that this worker still holds its lease. Stale where not: the transaction must not commit.
    fn guard(&mut self, item: &WorkItem) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What was done under a request id, also where it need not be remembered any more.
    fn request(
        &mut self,
        project: ProjectId,
        id: &str,
    ) -> impl Future<Output = Result<Option<DoneRequest>, StoreError>> + Send;

    /// Writes down that a call with a request id was carried out, on this resource. Repeated where another one with the id was.
    fn record(&mut self, key: &RequestKey, resource: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes a deleted row and its finished work. False where it is not as it was read, or has work left.
    fn purge<R: Resource>(&mut self, row: &R) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes up to `limit` events older than a moment, the oldest first. How many.
    fn purge_events(&mut self, before: Timestamp, limit: u32) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Removes up to `limit` request ids that need not be remembered after a moment. How many.
    fn purge_requests(&mut self, now: Timestamp, limit: u32) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Writes an event, and with the first one of a call with a request id that it was carried out: the commit then fails as Repeated where
    /// another one with the id was.
    fn event(&mut self, event: NewEvent) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes all of it true at once. Returns when it is durable.
    fn commit(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}
