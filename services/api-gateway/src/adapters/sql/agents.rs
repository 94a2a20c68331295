//! What gateways on one database tell each other of the agents that they hear.
//!
//! An agent registers with one gateway and sends its signs of life there. The others learn of both here: each writes what it heard in
//! one statement every second or so, and reads what the others did. Ages are measured by the database's clock.

use cloud_core::{
    model::{AgentRole, Timestamp},
    ports::{HeardAgent, StoreError},
};
use cloud_domain::HostId;

use super::{
    SqlStore, SqlTx,
    engine::{Connection, Row, statement},
    error::fault,
    error::from_database,
};

/// Of an agent that registers, in its own transaction: the others must not call its last run.
pub(super) async fn register(tx: &mut SqlTx, agent: &HeardAgent) -> Result<(), StoreError> {
    let now = tx.now();
    let sql = "INSERT INTO agents (host_id, role, session, endpoint, version, seen_at, backend_error, load) VALUES ($1, $2, $3, $4, $5, $6, '', '') \
               ON CONFLICT (host_id, role) DO UPDATE SET session = excluded.session, endpoint = excluded.endpoint, \
               version = excluded.version, seen_at = excluded.seen_at, backend_error = ''";
    let query = statement(sql)
        .bind(agent.host.to_string())
        .bind(agent.role.as_str())
        .bind(agent.session.to_string())
        .bind(agent.endpoint.clone())
        .bind(agent.version.clone())
        .bind(now.0);
    query.execute(tx.connection()?).await.map_err(from_database)?;
    Ok(())
}

/// Writes what was heard, and reads what all gateways heard.
pub(super) async fn share(store: &SqlStore, heard: &[HeardAgent]) -> Result<Vec<HeardAgent>, StoreError> {
    let mut connection = store.inner.writers.acquire().await.map_err(from_database)?;
    let now = store.inner.dialect.now(&mut connection).await.map_err(from_database)?;
    if !heard.is_empty() {
        write(&mut connection, heard, now).await?;
    }
    let sql = "SELECT host_id, role, session, endpoint, version, seen_at, backend_error, load FROM agents";
    let found = statement(sql).fetch_all(&mut connection).await.map_err(from_database)?;
    found.iter().map(|row| seen(row, now)).collect()
}

/// One statement for all. An agent that has registered anew since keeps its new session.
async fn write(connection: &mut Connection, heard: &[HeardAgent], now: Timestamp) -> Result<(), StoreError> {
    let list: Vec<_> = heard
        .iter()
        .map(|agent| {
            serde_json::json!({
                "host_id": agent.host.to_string(), "role": agent.role.as_str(), "session": agent.session.to_string(),
                "load": agent.load.map(|l| l.to_string()).join(" "),
                "age": i64::try_from(agent.age.as_micros()).unwrap_or(i64::MAX), "backend_error": agent.backend_error,
            })
        })
        .collect();
    let sql = "UPDATE agents SET seen_at = GREATEST(agents.seen_at, CAST($1 AS BIGINT) - heard.age), backend_error = heard.backend_error, \
               load = heard.load \
               FROM json_to_recordset(CAST($2 AS JSON)) AS heard (host_id TEXT, role TEXT, session TEXT, age BIGINT, backend_error TEXT, load TEXT) \
               WHERE agents.host_id = heard.host_id AND agents.role = heard.role AND agents.session = heard.session";
    let query = statement(sql).bind(now.0).bind(serde_json::Value::Array(list).to_string());
    query.execute(connection).await.map_err(from_database)?;
    Ok(())
}

fn seen(row: &Row, now: Timestamp) -> Result<HeardAgent, StoreError> {
    let text = |i: usize| row.try_get::<&str>(i).map_err(from_database);
    let role = text(1)?;
    let role = AgentRole::ALL.into_iter().find(|r| r.as_str() == role);
    Ok(HeardAgent {
        host: text(0)?.parse().map_err(fault)?,
        role: role.ok_or_else(|| fault(std::io::Error::other("an agent of an unknown role")))?,
        session: text(2)?.parse().map_err(fault)?,
        endpoint: text(3)?.to_owned(),
        version: text(4)?.to_owned(),
        age: now.since(Timestamp(row.try_get(5).map_err(from_database)?)),
        backend_error: text(6)?.to_owned(),
        load: load(text(7)?),
    })
}

/// Three numbers; none are zeros.
fn load(text: &str) -> [u32; 3] {
    let mut numbers = text.split(' ').map(|n| n.parse().unwrap_or_default());
    [(); 3].map(|()| numbers.next().unwrap_or_default())
}

/// Of a host that is removed.
pub(super) async fn forget(tx: &mut SqlTx, host: HostId) -> Result<(), StoreError> {
    let query = statement("DELETE FROM agents WHERE host_id = $1").bind(host.to_string());
    query.execute(tx.connection()?).await.map_err(from_database)?;
    Ok(())
}
