//! The database, read directly once nobody uses it: what the API does not show.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::{AnyConnection, Connection as _, Row as _};

use crate::history::{Kind, Seen};

/// Everything that is wrong in the database. `all`: what the API said there is and was.
pub async fn check(url: &str, all: &[Seen]) -> anyhow::Result<Vec<String>> {
    sqlx::any::install_default_drivers();
    let mut database = AnyConnection::connect(url).await?;
    let mut wrong = Vec::new();
    let mut instances = BTreeMap::new();
    for row in sqlx::query("SELECT id, body, deleted_at FROM instances").fetch_all(&mut database).await? {
        let (id, body, deleted): (String, String, Option<i64>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        instances.insert(id, (serde_json::from_str::<Value>(&body)?, deleted.is_some()));
    }
    let shown: BTreeSet<&str> = all.iter().filter(|s| s.key.kind == Kind::Instance).map(|s| s.id.as_str()).collect();
    let there: BTreeSet<&str> = instances.keys().map(String::as_str).collect();
    if shown != there {
        wrong.push(format!("the API does not show the instances {:?}", there.symmetric_difference(&shown)));
    }
    let mut promised: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for (body, deleted) in instances.values() {
        if body["holds_capacity"] == true {
            if *deleted {
                wrong.push(format!("deleted instance {} holds capacity", body["meta"]["id"]));
            }
            let of_host = promised.entry(body["host"].as_str().unwrap_or_default().to_owned()).or_default();
            of_host.0 += body["vcpus"].as_i64().unwrap_or_default();
            of_host.1 += body["memory_mib"].as_i64().unwrap_or_default();
        }
    }
    for row in sqlx::query("SELECT id, vcpus_used, memory_used FROM hosts").fetch_all(&mut database).await? {
        let (id, used): (String, (i64, i64)) = (row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
        let promised = promised.get(&id).copied().unwrap_or_default();
        if used != promised {
            wrong.push(format!("host {id} counts {used:?} as promised, its instances have {promised:?}"));
        }
    }
    for row in
        sqlx::query("SELECT id, instance_id FROM ports WHERE deleted_at IS NULL").fetch_all(&mut database).await?
    {
        let (id, instance): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if instances.get(&instance).is_none_or(|(_, deleted)| *deleted) {
            wrong.push(format!("port {id} is of the deleted instance {instance}"));
        }
    }
    for (column, table) in [("instances_used", "instances"), ("vpcs_used", "vpcs")] {
        let sql = format!(
            "SELECT q.project_id, q.{column}, (SELECT COUNT(*) FROM {table} t WHERE t.project_id = q.project_id AND t.deleted_at IS NULL) \
             FROM quotas q"
        );
        for row in sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut database).await? {
            let (project, used, there): (String, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if used != there {
                wrong.push(format!("project {project} counts {used} {table} as used and has {there}"));
            }
        }
    }
    database.close().await?;
    Ok(wrong)
}

/// Work that failed when it was last tried and is tried again, in words. May be asked while gateways use the database.
pub async fn failing(url: &str) -> anyhow::Result<Vec<String>> {
    sqlx::any::install_default_drivers();
    let mut database = AnyConnection::connect(url).await?;
    let failing = "SELECT kind, id, last_error FROM work WHERE due_at IS NOT NULL AND last_error IS NOT NULL";
    let rows = sqlx::query(failing).fetch_all(&mut database).await?;
    let told = rows.iter().map(|row| {
        let (kind, id, error): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(format!("work on {kind} {id} still fails: {error}"))
    });
    let told = told.collect::<Result<Vec<_>, sqlx::Error>>()?;
    database.close().await?;
    Ok(told)
}
