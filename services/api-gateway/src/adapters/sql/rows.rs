//! Rows of any kind: the statements are put together from the kind's own static column names, never from data.

use cloud_core::{
    model::{Resource, Value},
    ports::{Query, StoreError},
};
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row, any::AnyArguments, query::Query as Statement};
use uuid::Uuid;

use super::error::{fault, from_sqlx};

type Bound<'q> = Statement<'q, Any, AnyArguments>;

fn bind<'q>(statement: Bound<'q>, value: Value) -> Bound<'q> {
    match value {
        Value::Text(text) => statement.bind(text),
        Value::Int(number) => statement.bind(number),
        Value::NoText => statement.bind(None::<String>),
    }
}

pub(super) fn body<R: Resource>(row: &sqlx::any::AnyRow) -> Result<R, StoreError> {
    let text: &str = row.try_get(0).map_err(from_sqlx)?;
    serde_json::from_str(text).map_err(fault)
}

pub(super) async fn get<R: Resource>(connection: &mut AnyConnection, id: Uuid) -> Result<Option<R>, StoreError> {
    let sql = format!("SELECT body FROM {} WHERE id = $1", R::TABLE);
    let row =
        sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(connection).await.map_err(from_sqlx)?;
    row.as_ref().map(body).transpose()
}

pub(super) async fn list<R: Resource>(connection: &mut AnyConnection, query: &Query) -> Result<Vec<R>, StoreError> {
    let mut sql = format!("SELECT body FROM {} WHERE 1 = 1", R::TABLE);
    let mut values = Vec::new();
    let place = |values: &mut Vec<Value>, value: Value| {
        values.push(value);
        format!("${}", values.len())
    };
    if let Some(project) = query.project {
        let own = place(&mut values, Value::Text(project.to_string()));
        match query.or_column {
            None => sql += &format!(" AND project_id = {own}"),
            Some((column, value)) => {
                let other = place(&mut values, Value::Int(value));
                sql += &format!(" AND (project_id = {own} OR {column} = {other})");
            }
        }
    }
    for (column, value) in &query.columns {
        let value = place(&mut values, value.clone());
        sql += &format!(" AND {column} = {value}");
    }
    if !query.deleted {
        sql += " AND deleted_at IS NULL";
    }
    if let Some(after) = query.after {
        let at = place(&mut values, Value::Int(after.created_at.0));
        let id = place(&mut values, Value::Text(after.id.to_string()));
        sql += &format!(" AND (created_at, id) > ({at}, {id})");
    }
    sql += " ORDER BY created_at, id";
    if let Some(limit) = query.limit {
        let limit = place(&mut values, Value::Int(limit.into()));
        sql += &format!(" LIMIT {limit}");
    }
    let statement = values.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), bind);
    let rows = statement.fetch_all(connection).await.map_err(from_sqlx)?;
    rows.iter().map(body).collect()
}

pub(super) async fn insert<R: Resource>(
    connection: &mut AnyConnection,
    row: &R,
    revision: i64,
) -> Result<(), StoreError> {
    let mut sql = format!(
        "INSERT INTO {} (id, project_id, name, version, created_at, updated_at, deleted_at, body, revision, created_revision",
        R::TABLE
    );
    R::COLUMNS.iter().for_each(|c| sql += &format!(", {c}"));
    sql += ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9";
    (0..R::COLUMNS.len()).for_each(|i| sql += &format!(", ${}", i + 10));
    sql += ")";
    let meta = row.meta();
    let statement = sqlx::query(AssertSqlSafe(sql))
        .bind(meta.id.to_string())
        .bind(meta.project.to_string())
        .bind(meta.name.clone())
        .bind(version(meta.version)?)
        .bind(meta.created_at.0)
        .bind(meta.updated_at.0)
        .bind(meta.deleted_at.map(|t| t.0))
        .bind(serde_json::to_string(row).map_err(fault)?)
        .bind(revision);
    row.columns().into_iter().fold(statement, bind).execute(connection).await.map_err(from_sqlx)?;
    Ok(())
}

/// Writes the row at its version, which has been raised already, over the one before.
pub(super) async fn update<R: Resource>(
    connection: &mut AnyConnection,
    row: &R,
    revision: i64,
) -> Result<(), StoreError> {
    let mut sql = format!(
        "UPDATE {} SET name = $1, version = $2, updated_at = $3, deleted_at = $4, body = $5, revision = $8",
        R::TABLE
    );
    R::COLUMNS.iter().enumerate().for_each(|(i, c)| sql += &format!(", {c} = ${}", i + 9));
    sql += " WHERE id = $6 AND version = $7";
    let meta = row.meta();
    let statement = sqlx::query(AssertSqlSafe(sql))
        .bind(meta.name.clone())
        .bind(version(meta.version)?)
        .bind(meta.updated_at.0)
        .bind(meta.deleted_at.map(|t| t.0))
        .bind(serde_json::to_string(row).map_err(fault)?)
        .bind(meta.id.to_string())
        .bind(version(meta.version)? - 1)
        .bind(revision);
    let done = row.columns().into_iter().fold(statement, bind).execute(connection).await.map_err(from_sqlx)?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Stale) }
}

fn version(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(fault)
}
