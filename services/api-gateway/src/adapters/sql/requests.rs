//! The table of request ids.

use cloud_core::{
    model::{DoneRequest, RequestKey, Timestamp},
    ports::StoreError,
};
use cloud_domain::ProjectId;

use super::{
    engine::{Connection, statement},
    error::from_database,
};

pub(super) async fn get(
    connection: &mut Connection,
    project: ProjectId,
    id: &str,
) -> Result<Option<DoneRequest>, StoreError> {
    let sql = "SELECT fingerprint, resource, expires_at FROM requests WHERE project_id = $1 AND id = $2";
    let query = statement(sql).bind(project.to_string()).bind(id.to_owned());
    let Some(row) = query.fetch_optional(connection).await.map_err(from_database)? else { return Ok(None) };
    Ok(Some(DoneRequest {
        fingerprint: row.try_get(0).map_err(from_database)?,
        resource: row.try_get(1).map_err(from_database)?,
        expires_at: Timestamp(row.try_get(2).map_err(from_database)?),
    }))
}

/// Writes a call down. One that need not be remembered any more gives way; any other stays, and this one is Repeated. Where another
/// transaction has just written the id, this waits for its end.
pub(super) async fn record(connection: &mut Connection, key: &RequestKey, resource: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO requests (project_id, id, method, fingerprint, resource, created_at, expires_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (project_id, id) DO UPDATE SET method = excluded.method, \
               fingerprint = excluded.fingerprint, resource = excluded.resource, created_at = excluded.created_at, \
               expires_at = excluded.expires_at WHERE requests.expires_at <= excluded.created_at";
    let done = statement(sql)
        .bind(key.project.to_string())
        .bind(key.id.clone())
        .bind(key.method)
        .bind(key.fingerprint.clone())
        .bind(resource.to_owned())
        .bind(key.created_at.0)
        .bind(key.expires_at.0)
        .execute(connection)
        .await
        .map_err(from_database)?;
    if done == 1 { Ok(()) } else { Err(StoreError::Repeated) }
}
