//! Write transactions.

use std::net::Ipv4Addr;

use cloud_core::{
    model::{Amounts, DoneRequest, Host, NewEvent, RequestKey, Resource, Timestamp, Value},
    ports::{Claim, Fill, HeardAgent, Query, StoreError, Tx, WorkItem, WorkKind},
};
use cloud_domain::{Cidr, HostId, ProjectId, SubnetId, Vni, VpcId};
use cloud_service_kit::context::current_trace;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::{
    SqlStore, agents,
    changes::{EVENTS_PER_REVISION, event_revision},
    dialect::Dialect,
    engine::{Connection, DatabaseError, statement},
    error::fault,
    error::from_database,
    placement, quota, requests, retention, rows, truth,
    writer::Loan,
};

/// How many addresses are tried from the cursor before a gap is searched for.
const TRIES: u32 = 16;

/// A write transaction. Dropped without commit, it is rolled back.
pub struct SqlTx {
    store: SqlStore,
    inner: Inner,
    /// What its rows and events are stamped with: see [`super::changes`].
    revision: i64,
    /// The time that leases are measured by, at its beginning.
    now: Timestamp,
    /// Written at the end, together.
    events: Vec<NewEvent>,
    /// The call with a request id that this carries out, once it is written down.
    recorded: Option<RequestKey>,
}

enum Inner {
    /// SQLite's one connection, for a while.
    Lent(Loan),
    /// A connection of its own; a place of background work is given back with its end.
    Own(Connection, Option<OwnedSemaphorePermit>),
}

impl SqlTx {
    pub(super) async fn begin(store: &SqlStore, background: bool) -> Result<Self, StoreError> {
        let dialect = store.inner.dialect;
        let (inner, (now, revision)) = match &store.inner.writer {
            Some(writer) => {
                let mut loan = writer.begin(background).await?;
                let now = dialect.now(loan.connection()?).await.map_err(from_database)?;
                let revision = loan.revision;
                (Inner::Lent(loan), (now, revision))
            }
            None => {
                let place = if background { Some(store.background().await?) } else { None };
                let begun = store.inner.writers.begin(Dialect::BEGIN_STAMPED).await;
                let (tx, stamp) = begun.map_err(from_database)?;
                let stamp = Dialect::stamp(&stamp.ok_or(DatabaseError::NoRow).map_err(from_database)?);
                let stamp = stamp.map_err(from_database)?;
                (Inner::Own(tx, place), stamp)
            }
        };
        Ok(Self { store: store.clone(), inner, revision, now, events: Vec::new(), recorded: None })
    }

    /// The connection, for statements of this transaction.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        match &mut self.inner {
            Inner::Lent(loan) => loan.connection(),
            Inner::Own(tx, _) => Ok(tx),
        }
    }

    /// The time that leases are measured by, at its beginning.
    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    /// Commits without waking anybody: nothing is due earlier by it, and nothing that users see has changed.
    pub(super) async fn commit_quietly(mut self) -> Result<(), StoreError> {
        self.write_events().await?;
        match self.inner {
            Inner::Lent(loan) => loan.commit().await?,
            Inner::Own(tx, _place) => tx.commit().await.map_err(from_database)?,
        }
        if let Some(key) = self.recorded {
            key.set_recorded();
        }
        Ok(())
    }

    async fn next(&mut self, counter: &'static str, by: i64) -> Result<i64, StoreError> {
        let sql = "UPDATE counters SET value = value + $1 WHERE name = $2 RETURNING value";
        let row = statement(sql).bind(by).bind(counter).fetch_one(self.connection()?).await.map_err(from_database)?;
        row.try_get(0).map_err(from_database)
    }

    async fn is_free(&mut self, subnet: SubnetId, ip: Ipv4Addr) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM ports WHERE subnet_id = $1 AND ip = $2 AND deleted_at IS NULL";
        let query = statement(sql).bind(subnet.to_string()).bind(i64::from(u32::from(ip)));
        Ok(query.fetch_optional(self.connection()?).await.map_err(from_database)?.is_none())
    }

    /// The lowest address that follows a taken one and is not taken itself.
    async fn gap(&mut self, subnet: SubnetId, cidr: Cidr) -> Result<Option<Ipv4Addr>, StoreError> {
        let (Some(first), Some(last)) = (cidr.guest(0), cidr.guest(cidr.guest_count().saturating_sub(1))) else {
            return Ok(None);
        };
        if self.is_free(subnet, first).await? {
            return Ok(Some(first));
        }
        let sql = "SELECT MIN(p.ip) + 1 FROM ports p WHERE p.subnet_id = $1 AND p.deleted_at IS NULL AND p.ip < $2 \
                   AND NOT EXISTS (SELECT 1 FROM ports q WHERE q.subnet_id = p.subnet_id AND q.deleted_at IS NULL AND q.ip = p.ip + 1)";
        let query = statement(sql).bind(subnet.to_string()).bind(i64::from(u32::from(last)));
        let row = query.fetch_one(self.connection()?).await.map_err(from_database)?;
        let found: Option<i64> = row.try_get(0).map_err(from_database)?;
        found.map(|ip| u32::try_from(ip).map(Ipv4Addr::from).map_err(fault)).transpose()
    }

    async fn write_events(&mut self) -> Result<(), StoreError> {
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return Ok(());
        }
        if events.len() > EVENTS_PER_REVISION {
            return Err(fault(std::io::Error::other(format!("{} events in one transaction", events.len()))));
        }
        if let Some((key, resource)) = events.iter().find_map(|e| Some((e.once.clone()?, e.resource)))
            && self.recorded.is_none()
        {
            self.record(&key, &resource.to_string()).await?;
        }
        let now = Timestamp::now().0;
        for (revision, event) in (event_revision(self.revision)..).zip(events) {
            let sql = "INSERT INTO events (revision, id, at, project_id, kind, resource_id, resource_name, action, actor, source, outcome, \
                       message, request_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
            statement(sql)
                .bind(revision)
                .bind(Uuid::new_v4().to_string())
                .bind(now)
                .bind(event.project.to_string())
                .bind(event.kind.as_str())
                .bind(if event.resource.is_nil() { String::new() } else { event.resource.to_string() })
                .bind(event.name)
                .bind(event.action)
                .bind(event.actor)
                .bind(event.source)
                .bind(event.outcome)
                .bind(event.message)
                .bind(event.request_id)
                .execute(self.connection()?)
                .await
                .map_err(from_database)?;
        }
        Ok(())
    }
}

impl Tx for SqlTx {
    async fn get<R: Resource>(&mut self, id: Uuid) -> Result<Option<R>, StoreError> {
        rows::get(self.connection()?, id).await
    }

    async fn find<R: Resource>(&mut self, project: ProjectId, name: &str) -> Result<Option<R>, StoreError> {
        let query =
            Query { project: Some(project), columns: vec![("name", Value::Text(name.to_owned()))], ..Query::default() };
        let dialect = self.store.inner.dialect;
        Ok(rows::list(dialect, self.connection()?, &query).await?.pop())
    }

    async fn list<R: Resource>(&mut self, query: &Query) -> Result<Vec<R>, StoreError> {
        let dialect = self.store.inner.dialect;
        rows::list(dialect, self.connection()?, query).await
    }

    async fn insert<R: Resource>(&mut self, row: &R) -> Result<(), StoreError> {
        let revision = self.revision;
        rows::insert(self.connection()?, row, revision).await
    }

    async fn update<R: Resource>(&mut self, row: &mut R) -> Result<(), StoreError> {
        let revision = self.revision;
        let meta = row.meta_mut();
        meta.version += 1;
        meta.updated_at = Timestamp::now();
        rows::update(self.connection()?, row, revision).await?;
        match row.meta().deleted_at.filter(|_| R::KIND.leaves_tombstone()) {
            Some(at) => truth::bury(self.connection()?, R::KIND, row.meta().id, at).await,
            None => Ok(()),
        }
    }

    async fn hosts_with_room(
        &mut self,
        vcpus: u32,
        memory_mib: u32,
        order: Fill,
        among: Option<&[HostId]>,
        limit: u32,
    ) -> Result<Vec<(HostId, u64)>, StoreError> {
        placement::hosts_with_room(self.connection()?, (vcpus, memory_mib), order, among, limit).await
    }

    async fn group_hosts(&mut self, project: ProjectId, group: &str) -> Result<Vec<(HostId, u64)>, StoreError> {
        placement::group_hosts(self.store.inner.dialect, self.connection()?, project, group).await
    }

    async fn forget_agents(&mut self, host: HostId) -> Result<(), StoreError> {
        agents::forget(self, host).await
    }

    async fn claim_capacity(&mut self, host: HostId, vcpus: u32, memory_mib: u32) -> Result<Option<Host>, StoreError> {
        placement::claim(self.connection()?, host, (vcpus, memory_mib)).await
    }

    async fn lock_capacity_used(&mut self, host: HostId) -> Result<(u64, u64), StoreError> {
        truth::lock_capacity_used(self.connection()?, host).await
    }

    async fn set_capacity_used(&mut self, host: HostId, vcpus: u64, memory_mib: u64) -> Result<(), StoreError> {
        truth::set_capacity_used(self.connection()?, host, (vcpus, memory_mib)).await
    }

    async fn release_capacity(&mut self, host: HostId, vcpus: u32, memory_mib: u32) -> Result<(), StoreError> {
        placement::release(self.connection()?, host, (vcpus, memory_mib)).await
    }

    async fn open_quota(&mut self, project: ProjectId, used: &Amounts) -> Result<(), StoreError> {
        quota::open(self.connection()?, project, used).await
    }

    async fn claim_quota(
        &mut self,
        project: ProjectId,
        amounts: &Amounts,
        defaults: &Amounts,
    ) -> Result<Claim, StoreError> {
        quota::claim(self.connection()?, project, amounts, defaults).await
    }

    async fn release_quota(&mut self, project: ProjectId, amounts: &Amounts) -> Result<(), StoreError> {
        quota::release(self.connection()?, project, amounts).await
    }

    async fn set_limits(&mut self, project: ProjectId, limits: &Amounts) -> Result<bool, StoreError> {
        quota::set_limits(self.connection()?, project, limits).await
    }

    async fn close_quota(&mut self, project: ProjectId) -> Result<(), StoreError> {
        quota::close(self.connection()?, project).await
    }

    async fn set_capacity(&mut self, host: HostId, vcpus: u64, memory_mib: u64) -> Result<(), StoreError> {
        placement::set_capacity(self.connection()?, host, (vcpus, memory_mib)).await
    }

    async fn free_address(&mut self, subnet: SubnetId, cidr: Cidr) -> Result<Option<Ipv4Addr>, StoreError> {
        for _ in 0..TRIES.min(cidr.guest_count()) {
            let sql = "UPDATE subnets SET cursor = cursor + 1 WHERE id = $1 RETURNING cursor";
            let row =
                statement(sql).bind(subnet.to_string()).fetch_one(self.connection()?).await.map_err(from_database)?;
            let cursor: i64 = row.try_get(0).map_err(from_database)?;
            let index = u32::try_from((cursor - 1).rem_euclid(cidr.guest_count().into())).map_err(fault)?;
            if let Some(ip) = cidr.guest(index)
                && self.is_free(subnet, ip).await?
            {
                return Ok(Some(ip));
            }
        }
        self.gap(subnet, cidr).await
    }

    async fn next_vni(&mut self) -> Result<Vni, StoreError> {
        let number = self.next("vni", 1).await?;
        u32::try_from(number).map_err(fault)?.try_into().map_err(fault)
    }

    async fn bump_generation(&mut self, vpc: VpcId) -> Result<(), StoreError> {
        let sql = "UPDATE vpcs SET generation = generation + 1 WHERE id = $1 AND deleted_at IS NULL";
        let done = statement(sql).bind(vpc.to_string()).execute(self.connection()?).await.map_err(from_database)?;
        if done == 1 { Ok(()) } else { Err(StoreError::Stale) }
    }

    async fn register_agent(&mut self, agent: &HeardAgent) -> Result<(), StoreError> {
        agents::register(self, agent).await
    }

    async fn enqueue(&mut self, kind: WorkKind, id: Uuid) -> Result<(), StoreError> {
        let now = self.now;
        // What the work does belongs to the trace of the call that caused it, also where something else asks for it before it is done.
        let trace = current_trace().map(|t| t.to_string());
        let sql = "INSERT INTO work (kind, id, due_at, trace) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (kind, id) DO UPDATE SET due_at = excluded.due_at, sequence = work.sequence + 1, attempts = 0, \
                   trace = CASE WHEN excluded.trace IS NULL AND work.due_at IS NOT NULL THEN work.trace ELSE excluded.trace END";
        let query = statement(sql).bind(kind.as_str()).bind(id.to_string()).bind(now.0).bind(trace);
        query.execute(self.connection()?).await.map_err(from_database)?;
        Ok(())
    }

    async fn wake(&mut self, kind: WorkKind, id: Uuid) -> Result<(), StoreError> {
        let now = self.now;
        // Attempts stay as they are: by them the end of a running attempt tells this from new intent.
        let sql = "INSERT INTO work (kind, id, due_at) VALUES ($1, $2, $3) ON CONFLICT (kind, id) DO UPDATE SET sequence = work.sequence + 1, \
                   due_at = CASE WHEN work.due_at IS NULL OR (work.last_error IS NULL AND work.due_at > excluded.due_at) \
                   THEN excluded.due_at ELSE work.due_at END";
        let query = statement(sql).bind(kind.as_str()).bind(id.to_string()).bind(now.0);
        query.execute(self.connection()?).await.map_err(from_database)?;
        Ok(())
    }

    async fn guard(&mut self, item: &WorkItem) -> Result<(), StoreError> {
        // The write makes a concurrent takeover of the lease wait for this transaction, or this one for it.
        let sql = "UPDATE work SET sequence = sequence WHERE kind = $1 AND id = $2 AND lease_token = $3";
        let query = statement(sql).bind(item.kind.as_str()).bind(item.id.to_string()).bind(item.lease.to_string());
        let held = query.execute(self.connection()?).await.map_err(from_database)? == 1;
        if held { Ok(()) } else { Err(StoreError::Stale) }
    }

    async fn request(&mut self, project: ProjectId, id: &str) -> Result<Option<DoneRequest>, StoreError> {
        requests::get(self.connection()?, project, id).await
    }

    async fn record(&mut self, key: &RequestKey, resource: &str) -> Result<(), StoreError> {
        requests::record(self.connection()?, key, resource).await?;
        self.recorded = Some(key.clone());
        Ok(())
    }

    async fn purge<R: Resource>(&mut self, row: &R) -> Result<bool, StoreError> {
        retention::purge(self.connection()?, row).await
    }

    async fn purge_events(&mut self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        retention::events(self.connection()?, before, limit).await
    }

    async fn purge_requests(&mut self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        retention::requests(self.connection()?, now, limit).await
    }

    async fn event(&mut self, event: NewEvent) -> Result<(), StoreError> {
        self.events.push(event);
        Ok(())
    }

    async fn commit(self) -> Result<(), StoreError> {
        let store = self.store.clone();
        self.commit_quietly().await?;
        store.inner.committed();
        Ok(())
    }
}
