//! What hosts may promise and have promised: counters of their rows, moved by single statements, so that a promise is exact.

use cloud_core::{
    model::Host,
    ports::{Fill, StoreError},
};
use cloud_domain::{HostId, ProjectId};

use super::{
    dialect::Dialect,
    engine::{Connection, Row, statement},
    error::{fault, from_database},
    rows,
};

/// Ids in one statement.
const IDS: usize = 200;

fn counted(row: &Row) -> Result<(HostId, u64), StoreError> {
    let id: &str = row.try_get(0).map_err(from_database)?;
    let count: i64 = row.try_get(1).map_err(from_database)?;
    Ok((id.parse().map_err(fault)?, u64::try_from(count).unwrap_or_default()))
}

pub(super) async fn hosts_with_room(
    connection: &mut Connection,
    (vcpus, memory_mib): (u32, u32),
    order: Fill,
    among: Option<&[HostId]>,
    limit: u32,
) -> Result<Vec<(HostId, u64)>, StoreError> {
    let direction = match order {
        Fill::Emptiest => "",
        Fill::Fullest => " DESC",
    };
    let room = "SELECT id, fill FROM hosts WHERE deleted_at IS NULL AND mode = 'ACTIVE' AND vcpus_used + $1 <= vcpus_total \
                AND memory_used + $2 <= memory_total";
    let chunks: Vec<Option<&[HostId]>> = match among {
        Some(ids) => ids.chunks(IDS).map(Some).collect(),
        None => vec![None],
    };
    let mut hosts = Vec::new();
    for ids in chunks {
        let places: Vec<String> = (0..ids.map_or(0, <[HostId]>::len)).map(|i| format!("${}", i + 4)).collect();
        let only = ids.map(|_| format!(" AND id IN ({})", places.join(", "))).unwrap_or_default();
        let sql = format!("{room}{only} ORDER BY fill{direction}, id{direction} LIMIT $3");
        let query = statement(sql);
        let query = query.bind(i64::from(vcpus)).bind(i64::from(memory_mib)).bind(i64::from(limit));
        let query = ids.into_iter().flatten().fold(query, |query, id| query.bind(id.to_string()));
        for row in query.fetch_all(connection).await.map_err(from_database)? {
            hosts.push(counted(&row)?);
        }
    }
    Ok(hosts)
}

pub(super) async fn group_hosts(
    dialect: Dialect,
    connection: &mut Connection,
    project: ProjectId,
    group: &str,
) -> Result<Vec<(HostId, u64)>, StoreError> {
    if let Some(hold) = dialect.hold_name() {
        // In a statement of its own: the next one sees what whoever held it has committed.
        let query = statement(hold).bind(format!("anti-affinity group {group} of {project}"));
        query.execute(connection).await.map_err(from_database)?;
    }
    // As the index has it: that the group is not empty is said for its sake.
    let sql = "SELECT host_id, COUNT(*) FROM instances WHERE project_id = $1 AND affinity_group = $2 AND deleted_at IS NULL \
               AND affinity_group <> '' GROUP BY host_id";
    let query = statement(sql).bind(project.to_string()).bind(group.to_owned());
    query.fetch_all(connection).await.map_err(from_database)?.iter().map(counted).collect()
}

pub(super) async fn claim(
    connection: &mut Connection,
    host: HostId,
    (vcpus, memory_mib): (u32, u32),
) -> Result<Option<Host>, StoreError> {
    let sql = "UPDATE hosts SET vcpus_used = vcpus_used + $1, memory_used = memory_used + $2, \
               fill = CASE WHEN memory_total > 0 THEN ((memory_used + $2) * 1000) / memory_total ELSE 0 END \
               WHERE id = $3 AND mode = 'ACTIVE' AND vcpus_used + $1 <= vcpus_total AND memory_used + $2 <= memory_total \
               RETURNING body";
    let query = statement(sql).bind(i64::from(vcpus)).bind(i64::from(memory_mib)).bind(host.to_string());
    let row = query.fetch_optional(connection).await.map_err(from_database)?;
    row.as_ref().map(rows::body).transpose()
}

pub(super) async fn release(
    connection: &mut Connection,
    host: HostId,
    (vcpus, memory_mib): (u32, u32),
) -> Result<(), StoreError> {
    let sql = "UPDATE hosts SET vcpus_used = vcpus_used - $1, memory_used = memory_used - $2, \
               fill = CASE WHEN memory_total > 0 THEN ((memory_used - $2) * 1000) / memory_total ELSE 0 END WHERE id = $3";
    let query = statement(sql).bind(i64::from(vcpus)).bind(i64::from(memory_mib)).bind(host.to_string());
    query.execute(connection).await.map_err(from_database)?;
    Ok(())
}

pub(super) async fn set_capacity(
    connection: &mut Connection,
    host: HostId,
    (vcpus, memory_mib): (u64, u64),
) -> Result<(), StoreError> {
    let (vcpus, memory) = (i64::try_from(vcpus).map_err(fault)?, i64::try_from(memory_mib).map_err(fault)?);
    let sql = "UPDATE hosts SET vcpus_total = $1, memory_total = $2, \
               fill = CASE WHEN $2 > 0 THEN (memory_used * 1000) / $2 ELSE 0 END WHERE id = $3";
    let query = statement(sql).bind(vcpus).bind(memory).bind(host.to_string());
    query.execute(connection).await.map_err(from_database)?;
    Ok(())
}
