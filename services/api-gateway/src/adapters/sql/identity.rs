//! The cloud's identity: its id, its epoch and its secret, made with the database.

use cloud_domain::CloudId;
use sqlx::{AnyPool, Row};

use super::OpenError;

async fn value(pool: &AnyPool, name: &str, default: &str) -> Result<String, sqlx::Error> {
    // Two gateways may start on a new database at once: the first one's value stays.
    sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(name.to_owned())
        .bind(default.to_owned())
        .execute(pool)
        .await?;
    sqlx::query("SELECT value FROM meta WHERE name = $1").bind(name.to_owned()).fetch_one(pool).await?.try_get(0)
}

pub(super) async fn ensure(pool: &AnyPool) -> Result<(CloudId, u64, [u8; 32]), OpenError> {
    let cloud = value(pool, "cloud_id", &CloudId::random().to_string()).await?;
    let epoch = value(pool, "epoch", "1").await?;
    let secret = value(pool, "secret", &hex::encode(rand::random::<[u8; 32]>())).await?;
    let bytes = hex::decode(secret).ok().and_then(|b| b.try_into().ok());
    Ok((
        cloud.parse().map_err(|_| OpenError::Content("its cloud id is not a UUID"))?,
        epoch.parse().map_err(|_| OpenError::Content("its epoch is not a number"))?,
        bytes.ok_or(OpenError::Content("its secret is not 32 bytes in hex"))?,
    ))
}

/// The last revision that was given, on SQLite.
pub(super) async fn revision(pool: &AnyPool) -> Result<i64, sqlx::Error> {
    sqlx::query("SELECT value FROM counters WHERE name = 'revision'").fetch_one(pool).await?.try_get(0)
}
