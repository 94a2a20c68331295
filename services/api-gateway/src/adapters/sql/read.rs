//! Reads, outside of write transactions.

use std::time::Duration;

use cloud_core::{
    Kind,
    model::{DoneRequest, Event, Host, Quota, Resource, Timestamp, Value},
    ports::{
        Audited, Changes, EventQuery, HeardAgent, Mark, Query, Store, StoreError, VpcSnapshot, WorkItem, WorkKind,
        WorkState,
    },
};
use cloud_domain::{CloudId, HostId, ProjectId, VpcId};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    SqlStore, SqlTx, agents, changes,
    engine::{Connection, Row, statement},
    error::fault,
    error::from_database,
    filter, quota, requests, retention, rows,
    rows::Values,
    truth, work,
};

/// Events, in the order that [`event`] reads.
pub(super) const EVENTS: &str = "SELECT revision, id, at, project_id, kind, resource_id, resource_name, action, actor, source, outcome, message, request_id FROM events";

impl SqlStore {
    async fn reader(&self) -> Result<Connection, StoreError> {
        self.inner.readers.acquire().await.map_err(from_database)
    }

    /// A reader that sees one snapshot.
    pub(super) async fn snapshot(&self) -> Result<Connection, StoreError> {
        let begun = self.inner.readers.begin(self.inner.dialect.begin_snapshot()).await;
        Ok(begun.map_err(from_database)?.0)
    }
}

fn count(row: &Row, index: usize) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(index).map_err(from_database)?;
    u64::try_from(number).map_err(fault)
}

impl Store for SqlStore {
    type Tx = SqlTx;

    async fn begin(&self) -> Result<SqlTx, StoreError> {
        SqlTx::begin(self, false).await
    }

    async fn begin_background(&self) -> Result<SqlTx, StoreError> {
        SqlTx::begin(self, true).await
    }

    async fn get<R: Resource>(&self, id: Uuid) -> Result<Option<R>, StoreError> {
        let mut reader = self.reader().await?;
        rows::get(&mut reader, id).await
    }

    async fn find<R: Resource>(&self, project: ProjectId, name: &str) -> Result<Option<R>, StoreError> {
        let query =
            Query { project: Some(project), columns: vec![("name", Value::Text(name.to_owned()))], ..Query::default() };
        let mut reader = self.reader().await?;
        Ok(rows::list(self.inner.dialect, &mut reader, &query).await?.pop())
    }

    async fn list<R: Resource>(&self, query: &Query) -> Result<Vec<R>, StoreError> {
        let mut reader = self.reader().await?;
        rows::list(self.inner.dialect, &mut reader, query).await
    }

    async fn count<R: Resource>(&self, column: &'static str, value: &str) -> Result<u64, StoreError> {
        let sql = format!("SELECT COUNT(*) FROM {} WHERE {column} = $1 AND deleted_at IS NULL", R::TABLE);
        let mut reader = self.reader().await?;
        let row = statement(sql).bind(value.to_owned()).fetch_one(&mut reader).await.map_err(from_database)?;
        count(&row, 0)
    }

    async fn vpc_snapshot(&self, vpc: VpcId) -> Result<Option<VpcSnapshot>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let sql = "SELECT body, generation FROM vpcs WHERE id = $1";
        let row = statement(sql).bind(vpc.to_string()).fetch_optional(&mut snapshot).await.map_err(from_database)?;
        let Some(row) = row else { return Ok(None) };
        let subnets = rows::list(self.inner.dialect, &mut snapshot, &Query::by("vpc_id", &vpc)).await?;
        let ports = rows::list(self.inner.dialect, &mut snapshot, &Query::by("vpc_id", &vpc)).await?;
        let sql = "SELECT body FROM hosts WHERE deleted_at IS NULL \
                   AND id IN (SELECT host_id FROM ports WHERE vpc_id = $1 AND deleted_at IS NULL)";
        let hosts = statement(sql).bind(vpc.to_string()).fetch_all(&mut snapshot).await.map_err(from_database)?;
        let hosts = hosts.iter().map(rows::body).collect::<Result<Vec<Host>, _>>()?;
        let tunnels = hosts.into_iter().map(|host| (host.id(), host.capacity.tunnel_address));
        let tunnels = tunnels.filter(|(_, address)| !address.is_empty()).collect();
        Ok(Some(VpcSnapshot { vpc: rows::body(&row)?, generation: count(&row, 1)?, subnets, ports, tunnels }))
    }

    async fn vpc_generation(&self, vpc: VpcId) -> Result<Option<u64>, StoreError> {
        let mut reader = self.reader().await?;
        let sql = "SELECT generation FROM vpcs WHERE id = $1";
        let row = statement(sql).bind(vpc.to_string()).fetch_optional(&mut reader).await.map_err(from_database)?;
        row.map(|row| count(&row, 0)).transpose()
    }

    async fn capacity_used(&self, host: HostId) -> Result<(u64, u64), StoreError> {
        let mut reader = self.reader().await?;
        let sql = "SELECT vcpus_used, memory_used FROM hosts WHERE id = $1";
        let row = statement(sql).bind(host.to_string()).fetch_one(&mut reader).await.map_err(from_database)?;
        Ok((count(&row, 0)?, count(&row, 1)?))
    }

    async fn quota(&self, project: ProjectId) -> Result<Option<Quota>, StoreError> {
        let mut reader = self.reader().await?;
        quota::read(&mut reader, project).await
    }

    async fn vpc_generations(&self, host: HostId) -> Result<Vec<(VpcId, u64)>, StoreError> {
        truth::vpc_generations(self, host).await
    }

    async fn mark<R: Resource>(&self, host: HostId) -> Result<Mark, StoreError> {
        truth::mark(self, R::TABLE, host).await
    }

    async fn tombstones(&self, kind: Kind, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        truth::tombstones(self, kind, ids).await
    }

    async fn purge_tombstones(&self, before: Timestamp) -> Result<u64, StoreError> {
        truth::purge(self, before).await
    }

    async fn audit(&self, see: impl FnMut(Audited) + Send) -> Result<(), StoreError> {
        truth::audit(self, see).await
    }

    async fn list_events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        let mut values = Values::default();
        let (beyond, direction) = if query.oldest_first { (">", "") } else { ("<", " DESC") };
        let ends = if query.oldest_first { 0 } else { i64::MAX };
        let after = query.after.map_or(Ok(ends), |r| i64::try_from(r).map_err(fault))?;
        let mut sql = format!("{EVENTS} WHERE revision {beyond} {}", values.place(Value::Int(after)));
        for (column, text) in [
            ("project_id", query.project.map(|p| p.to_string())),
            ("kind", query.kind.clone()),
            ("resource_id", query.resource.clone()),
        ] {
            if let Some(text) = text {
                sql += &format!(" AND {column} = {}", values.place(Value::Text(text)));
            }
        }
        sql += &filter::conditions(self.inner.dialect, &query.filter, &mut values);
        sql += &format!(" ORDER BY revision{direction} LIMIT {}", values.place(Value::Int(query.limit.into())));
        let statement = values.0.into_iter().fold(statement(sql), rows::bind);
        let mut reader = self.reader().await?;
        statement.fetch_all(&mut reader).await.map_err(from_database)?.iter().map(event).collect()
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        changes::revision(self).await
    }

    async fn changes<R: Resource>(&self, after: u64, limit: u32) -> Result<Changes<R>, StoreError> {
        changes::rows(self, after, limit).await
    }

    async fn events_after(&self, after: u64, limit: u32) -> Result<Changes<Event>, StoreError> {
        changes::events(self, after, limit).await
    }

    async fn share_agents(&self, heard: &[HeardAgent]) -> Result<Vec<HeardAgent>, StoreError> {
        agents::share(self, heard).await
    }

    async fn deleted<R: Resource>(
        &self,
        before: Timestamp,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<R>, StoreError> {
        let mut reader = self.reader().await?;
        retention::deleted(&mut reader, before, after, limit).await
    }

    async fn purged(&self) -> Result<u64, StoreError> {
        let mut reader = self.reader().await?;
        retention::purged(&mut reader).await
    }

    async fn request(&self, project: ProjectId, id: &str) -> Result<Option<DoneRequest>, StoreError> {
        let mut reader = self.reader().await?;
        requests::get(&mut reader, project, id).await
    }

    async fn claim_work(&self, limit: u32, lease: Duration) -> Result<Vec<WorkItem>, StoreError> {
        work::claim(self, limit, lease).await
    }

    async fn renew_lease(&self, item: &WorkItem, lease: Duration) -> Result<(), StoreError> {
        work::renew(self, item, lease).await
    }

    async fn finish_work(
        &self,
        item: &WorkItem,
        again: Option<Duration>,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        work::finish(self, item, again, error).await
    }

    async fn work(&self, kind: WorkKind, id: Uuid) -> Result<Option<WorkState>, StoreError> {
        work::state(self, kind, id).await
    }

    async fn work_status(&self) -> Result<(Option<Duration>, u64, Duration), StoreError> {
        work::status(self).await
    }

    async fn instances_by_status(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut reader = self.reader().await?;
        let sql = "SELECT status, COUNT(*) FROM instances WHERE deleted_at IS NULL GROUP BY status";
        let found = statement(sql).fetch_all_apart(&mut reader).await.map_err(from_database)?;
        found.iter().map(|r| Ok((r.try_get(0).map_err(from_database)?, count(r, 1)?))).collect()
    }

    fn identity(&self) -> (CloudId, u64) {
        (self.inner.cloud, self.inner.epoch)
    }

    fn secret(&self) -> [u8; 32] {
        self.inner.secret
    }

    fn is_exclusive(&self) -> bool {
        self.inner.dialect.is_sqlite()
    }

    fn commits(&self) -> watch::Receiver<u64> {
        self.inner.commits.subscribe()
    }
}

pub(super) fn event(row: &Row) -> Result<Event, StoreError> {
    let text = |i: usize| row.try_get::<String>(i).map_err(from_database);
    Ok(Event {
        revision: count(row, 0)?,
        id: text(1)?.parse().map_err(fault)?,
        at: Timestamp(row.try_get(2).map_err(from_database)?),
        project: text(3)?.parse().map_err(fault)?,
        kind: text(4)?,
        resource: text(5)?,
        name: text(6)?,
        action: text(7)?,
        actor: text(8)?,
        source: text(9)?,
        outcome: text(10)?,
        message: text(11)?,
        request_id: text(12)?,
    })
}
