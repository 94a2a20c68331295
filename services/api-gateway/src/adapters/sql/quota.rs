//! Quotas: a project's counters and limits, as columns of one row, so that a claim is one statement and takes one lock. The statements are put
//! together from the static names of what is limited, never from data.

use cloud_core::{
    model::{Amounts, Limited, Quota, Shortage},
    ports::{Claim, StoreError},
};
use cloud_domain::ProjectId;

use super::{
    dialect::Dialect,
    engine::{Connection, DatabaseError, Pool, Statement, statement},
    error::{fault, from_database},
};

fn signed(amount: u64) -> Result<i64, StoreError> {
    i64::try_from(amount).map_err(fault)
}

pub(super) async fn open(connection: &mut Connection, project: ProjectId, used: &Amounts) -> Result<(), StoreError> {
    let mut sql = "INSERT INTO quotas (project_id".to_owned();
    used.keys().for_each(|of| sql += &format!(", {}_used", of.as_str()));
    sql += ") VALUES ($1";
    (0..used.len()).for_each(|i| sql += &format!(", ${}", i + 2));
    sql += ")";
    let mut query = statement(sql).bind(project.to_string());
    for amount in used.values() {
        query = query.bind(signed(*amount)?);
    }
    query.execute(connection).await.map_err(from_database)?;
    Ok(())
}

pub(super) async fn claim(
    connection: &mut Connection,
    project: ProjectId,
    amounts: &Amounts,
    defaults: &Amounts,
) -> Result<Claim, StoreError> {
    // Without amounts the row is written as it is: that takes its lock.
    let mut set = vec!["instances_used = instances_used + 0".to_owned()];
    let mut fits = String::new();
    let mut values = Vec::new();
    for (of, amount) in amounts.iter().filter(|(_, amount)| **amount > 0) {
        let name = of.as_str();
        values.push(signed(*amount)?);
        let asked = values.len() + 1;
        if *of == Limited::Instances {
            set.clear();
        }
        set.push(format!("{name}_used = {name}_used + ${asked}"));
        // No default is no limit.
        values.push(defaults.get(of).map_or(Ok(i64::MAX), |limit| signed(*limit))?);
        fits += &format!(" AND {name}_used <= COALESCE({name}_limit, ${}) - ${asked}", asked + 1);
    }
    let sql = format!("UPDATE quotas SET {} WHERE project_id = $1{fits}", set.join(", "));
    let query = statement(sql).bind(project.to_string());
    let query = values.into_iter().fold(query, Statement::bind);
    if query.execute(connection).await.map_err(from_database)? == 1 {
        return Ok(Claim::Held);
    }
    let Some(quota) = read(connection, project).await? else { return Ok(Claim::NoProject) };
    let short = |(of, asked): (&Limited, &u64)| {
        let limit = quota.limits.get(of).or(defaults.get(of)).copied()?;
        let used = quota.used.get(of).copied().unwrap_or(0);
        let over = *asked > 0 && used.saturating_add(*asked) > limit;
        over.then_some(Shortage { of: *of, limit, used, asked: *asked })
    };
    let shortages: Vec<_> = amounts.iter().filter_map(short).collect();
    // Given back between the two statements: the caller may repeat the call.
    if shortages.is_empty() { Err(StoreError::Stale) } else { Ok(Claim::Short(shortages)) }
}

pub(super) async fn release(
    connection: &mut Connection,
    project: ProjectId,
    amounts: &Amounts,
) -> Result<(), StoreError> {
    if amounts.is_empty() {
        return Ok(());
    }
    let names = amounts.keys().map(|of| of.as_str()).enumerate();
    let set: Vec<_> = names.map(|(i, name)| format!("{name}_used = {name}_used - ${}", i + 2)).collect();
    let sql = format!("UPDATE quotas SET {} WHERE project_id = $1", set.join(", "));
    let mut query = statement(sql).bind(project.to_string());
    for amount in amounts.values() {
        query = query.bind(signed(*amount)?);
    }
    query.execute(connection).await.map_err(from_database)?;
    Ok(())
}

pub(super) async fn set_limits(
    connection: &mut Connection,
    project: ProjectId,
    limits: &Amounts,
) -> Result<bool, StoreError> {
    let names = limits.keys().map(|of| of.as_str()).enumerate();
    let set: Vec<_> = names.map(|(i, name)| format!("{name}_limit = ${}", i + 2)).collect();
    let sql = format!("UPDATE quotas SET {} WHERE project_id = $1", set.join(", "));
    let mut query = statement(sql).bind(project.to_string());
    for limit in limits.values() {
        query = query.bind(signed(*limit)?);
    }
    Ok(query.execute(connection).await.map_err(from_database)? == 1)
}

pub(super) async fn close(connection: &mut Connection, project: ProjectId) -> Result<(), StoreError> {
    let sql = "DELETE FROM quotas WHERE project_id = $1";
    statement(sql).bind(project.to_string()).execute(connection).await.map_err(from_database)?;
    Ok(())
}

pub(super) async fn read(connection: &mut Connection, project: ProjectId) -> Result<Option<Quota>, StoreError> {
    let columns = Limited::ALL.map(|of| format!("{0}_used, {0}_limit", of.as_str())).join(", ");
    let sql = format!("SELECT {columns} FROM quotas WHERE project_id = $1");
    let query = statement(sql).bind(project.to_string());
    let Some(row) = query.fetch_optional(connection).await.map_err(from_database)? else { return Ok(None) };
    let (mut limits, mut used) = (Amounts::new(), Amounts::new());
    for (i, of) in Limited::ALL.into_iter().enumerate() {
        let is: i64 = row.try_get(2 * i).map_err(from_database)?;
        used.insert(of, u64::try_from(is).map_err(fault)?);
        if let Some(limit) = row.try_get::<Option<i64>>(2 * i + 1).map_err(from_database)? {
            limits.insert(of, u64::try_from(limit).map_err(fault)?);
        }
    }
    Ok(Some(Quota { project, limits, used }))
}

/// The name in `meta` that says that the counters were filled.
const FILLED: &str = "quotas_filled";

/// Fills the counters of a database that was there before it had any, once: what each row holds is said by `cloud_core::model`.
pub(super) async fn fill(pool: &Pool, dialect: Dialect) -> Result<(), DatabaseError> {
    let (mut tx, _) = pool.begin(dialect.begin()).await?;
    // Two gateways may start at once: the second one waits here for the first one's end.
    let sql = "INSERT INTO meta (name, value) VALUES ($1, '1') ON CONFLICT (name) DO NOTHING";
    if statement(sql).bind(FILLED).execute(&mut tx).await? == 0 {
        return Ok(());
    }
    let sum = |table: &str, number: &'static str, and: &str| {
        let number = dialect.json_number(number);
        format!(
            "SELECT COALESCE(SUM({number}), 0) FROM {table} r WHERE r.project_id = quotas.project_id AND r.deleted_at IS NULL{and}"
        )
    };
    let count = |table: &str| {
        format!("SELECT COUNT(*) FROM {table} r WHERE r.project_id = quotas.project_id AND r.deleted_at IS NULL")
    };
    let promised = " AND r.body LIKE '%\"holds_capacity\":true%'";
    let sql = format!(
        "UPDATE quotas SET instances_used = ({}), vcpus_used = ({}), memory_mib_used = ({}), volume_gib_used = ({}), vpcs_used = ({})",
        count("instances"),
        sum("instances", "vcpus", promised),
        sum("instances", "memory_mib", promised),
        sum("volumes", "size", ""),
        count("vpcs"),
    );
    statement(sql).execute(&mut tx).await?;
    tx.commit().await
}
