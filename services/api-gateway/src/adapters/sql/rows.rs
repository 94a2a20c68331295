//! Rows of any kind: the statements are put together from the kind's own static column names, never from data.

use cloud_core::{
    filter::OrderBy,
    model::{Resource, Value},
    ports::{Key, Query, StoreError},
};
use uuid::Uuid;

use super::{
    dialect::Dialect,
    engine::{Connection, Row, Statement, statement},
    error::{fault, from_database},
    filter,
};

/// What is bound to a statement, in the order of its places.
#[derive(Default)]
pub(super) struct Values(pub(super) Vec<Value>);

impl Values {
    /// The place of a value in the statement.
    pub(super) fn place(&mut self, value: Value) -> String {
        self.0.push(value);
        format!("${}", self.0.len())
    }
}

pub(super) fn bind(statement: Statement<'_>, value: Value) -> Statement<'_> {
    match value {
        Value::Text(text) => statement.bind(text),
        Value::Int(number) => statement.bind(number),
        Value::NoText => statement.bind(None::<String>),
    }
}

pub(super) fn body<R: Resource>(row: &Row) -> Result<R, StoreError> {
    let text: &str = row.try_get(0).map_err(from_database)?;
    serde_json::from_str(text).map_err(fault)
}

pub(super) async fn get<R: Resource>(connection: &mut Connection, id: Uuid) -> Result<Option<R>, StoreError> {
    let sql = format!("SELECT body FROM {} WHERE id = $1", R::TABLE);
    let row = statement(sql).bind(id.to_string()).fetch_optional(connection).await.map_err(from_database)?;
    row.as_ref().map(body).transpose()
}

pub(super) async fn list<R: Resource>(
    dialect: Dialect,
    connection: &mut Connection,
    query: &Query,
) -> Result<Vec<R>, StoreError> {
    let (sql, values) = select(dialect, R::TABLE, query);
    let statement = values.into_iter().fold(statement(sql), bind);
    let rows = statement.fetch_all(connection).await.map_err(from_database)?;
    rows.iter().map(body).collect()
}

/// The statement of a query: names in it are the kind's own static ones, and what callers say is bound.
pub(super) fn select(dialect: Dialect, table: &str, query: &Query) -> (String, Vec<Value>) {
    let mut values = Values::default();
    let mut shared = String::new();
    for (column, value) in &query.columns {
        let value = values.place(value.clone());
        shared += &format!(" AND {column} = {value}");
    }
    if !query.deleted {
        shared += " AND deleted_at IS NULL";
    }
    shared += &filter::conditions(dialect, &query.filter, &mut values);
    let (key, direction, beyond) = match (query.order.by, query.order.descending) {
        (OrderBy::CreatedAt, false) => ("created_at", "", ">"),
        (OrderBy::CreatedAt, true) => ("created_at", " DESC", "<"),
        (OrderBy::Name, false) => ("name", "", ">"),
        (OrderBy::Name, true) => ("name", " DESC", "<"),
    };
    if let Some(after) = &query.after {
        let last = values.place(match &after.key {
            Key::CreatedAt(at) => Value::Int(at.0),
            Key::Name(name) => Value::Text(name.clone()),
        });
        let id = values.place(Value::Text(after.id.to_string()));
        shared += &format!(" AND ({key}, id) {beyond} ({last}, {id})");
    }
    let mut end = format!(" ORDER BY {key}{direction}, id{direction}");
    if let Some(limit) = query.limit {
        let limit = values.place(Value::Int(limit.into()));
        end += &format!(" LIMIT {limit}");
    }
    let Some(project) = query.project else {
        return (format!("SELECT body FROM {table} WHERE 1 = 1{shared}{end}"), values.0);
    };
    let own = values.place(Value::Text(project.to_string()));
    let Some((column, value)) = query.or_column else {
        return (format!("SELECT body FROM {table} WHERE project_id = {own}{shared}{end}"), values.0);
    };
    // Each half finds its page by an index; an OR would have to sort all of both.
    let other = values.place(Value::Int(value));
    let half = |condition: String| {
        format!("SELECT * FROM (SELECT body, {key}, id FROM {table} WHERE {condition}{shared}{end}) AS half")
    };
    let halves = [format!("project_id = {own}"), format!("{column} = {other} AND project_id <> {own}")].map(half);
    (format!("SELECT body FROM ({}) AS both_halves{end}", halves.join(" UNION ALL ")), values.0)
}

pub(super) async fn insert<R: Resource>(connection: &mut Connection, row: &R, revision: i64) -> Result<(), StoreError> {
    let mut sql = format!(
        "INSERT INTO {} (id, project_id, name, version, created_at, updated_at, deleted_at, body, revision, created_revision",
        R::TABLE
    );
    R::COLUMNS.iter().for_each(|c| sql += &format!(", {c}"));
    sql += ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9";
    (0..R::COLUMNS.len()).for_each(|i| sql += &format!(", ${}", i + 10));
    sql += ")";
    let meta = row.meta();
    let statement = statement(sql)
        .bind(meta.id.to_string())
        .bind(meta.project.to_string())
        .bind(meta.name.clone())
        .bind(version(meta.version)?)
        .bind(meta.created_at.0)
        .bind(meta.updated_at.0)
        .bind(meta.deleted_at.map(|t| t.0))
        .bind(serde_json::to_string(row).map_err(fault)?)
        .bind(revision);
    row.columns().into_iter().fold(statement, bind).execute(connection).await.map_err(from_database)?;
    Ok(())
}

/// Writes the row at its version, which has been raised already, over the one before.
pub(super) async fn update<R: Resource>(connection: &mut Connection, row: &R, revision: i64) -> Result<(), StoreError> {
    let mut sql = format!(
        "UPDATE {} SET name = $1, version = $2, updated_at = $3, deleted_at = $4, body = $5, revision = $8",
        R::TABLE
    );
    R::COLUMNS.iter().enumerate().for_each(|(i, c)| sql += &format!(", {c} = ${}", i + 9));
    sql += " WHERE id = $6 AND version = $7";
    let meta = row.meta();
    let statement = statement(sql)
        .bind(meta.name.clone())
        .bind(version(meta.version)?)
        .bind(meta.updated_at.0)
        .bind(meta.deleted_at.map(|t| t.0))
        .bind(serde_json::to_string(row).map_err(fault)?)
        .bind(meta.id.to_string())
        .bind(version(meta.version)? - 1)
        .bind(revision);
    let done = row.columns().into_iter().fold(statement, bind).execute(connection).await.map_err(from_database)?;
    if done == 1 { Ok(()) } else { Err(StoreError::Stale) }
}

fn version(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(fault)
}
