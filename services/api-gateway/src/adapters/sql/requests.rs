//! The table of request ids.

use cloud_core::{
    model::{DoneRequest, RequestKey, Timestamp},
    ports::StoreError,
};
use cloud_domain::ProjectId;
use sqlx::{AnyConnection, Row};

use super::error::from_sqlx;

pub(super) async fn get(
    connection: &mut AnyConnection,
    project: ProjectId,
    id: &str,
) -> Result<Option<DoneRequest>, StoreError> {
    let sql = "SELECT fingerprint, resource, expires_at FROM requests WHERE project_id = $1 AND id = $2";
    let query = sqlx::query(sql).bind(project.to_string()).bind(id.to_owned());
    let Some(row) = query.fetch_optional(connection).await.map_err(from_sqlx)? else { return Ok(None) };
    Ok(Some(DoneRequest {
        fingerprint: row.try_get(0).map_err(from_sqlx)?,
        resource: row.try_get(1).map_err(from_sqlx)?,
        expires_at: Timestamp(row.try_get(2).map_err(from_sqlx)?),
    }))
}

/// Writes a call down. One that need not be remembered any more gives way; any other stays, and this one is Repeated. Where another
/// transaction has just written the id, this waits for its end.
pub(super) async fn record(connection: &mut AnyConnection, key: &RequestKey, resource: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO requests (project_id, id, method, fingerprint, resource, created_at, expires_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (project_id, id) DO UPDATE SET method = excluded.method, \
               fingerprint = excluded.fingerprint, resource = excluded.resource, created_at = excluded.created_at, \
               expires_at = excluded.expires_at WHERE requests.expires_at <= excluded.created_at";
    let done = sqlx::query(sql)
        .bind(key.project.to_string())
        .bind(key.id.clone())
        .bind(key.method)
        .bind(key.fingerprint.clone())
        .bind(resource.to_owned())
        .bind(key.created_at.0)
        .bind(key.expires_at.0)
        .execute(connection)
        .await
        .map_err(from_sqlx)?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Repeated) }
}
