//! The cloud's identity: its id, its epoch and its secret, made with the database.

use cloud_domain::CloudId;

use super::{
    OpenError,
    engine::{DatabaseError, Pool, statement},
};

async fn value(pool: &Pool, name: &str, default: &str) -> Result<String, DatabaseError> {
    let mut connection = pool.acquire().await?;
    // Two gateways may start on a new database at once: the first one's value stays.
    statement("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(name.to_owned())
        .bind(default.to_owned())
        .execute(&mut connection)
        .await?;
    statement("SELECT value FROM meta WHERE name = $1")
        .bind(name.to_owned())
        .fetch_one(&mut connection)
        .await?
        .try_get(0)
}

pub(super) async fn ensure(pool: &Pool) -> Result<(CloudId, u64, [u8; 32]), OpenError> {
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
pub(super) async fn revision(pool: &Pool) -> Result<i64, DatabaseError> {
    statement("SELECT value FROM counters WHERE name = 'revision'")
        .fetch_one(&mut pool.acquire().await?)
        .await?
        .try_get(0)
}
