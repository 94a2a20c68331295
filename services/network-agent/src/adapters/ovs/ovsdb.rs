//! The switch's database: the transactions and values of RFC 7047, and waiting until ovs-vswitchd has caught up.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};

use super::jsonrpc::{Client, RpcError};
use crate::core::ports::BackendError;

const DATABASE: &str = "Open_vSwitch";
/// How long a transaction may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long ovs-vswitchd may take to do what the database says.
const APPLY_DEADLINE: Duration = Duration::from_secs(10);

/// A row's columns, as JSON.
pub type Row = Map<String, Value>;

/// The database.
#[derive(Debug)]
pub struct Ovsdb {
    client: Client,
}

impl Ovsdb {
    /// The database behind a socket.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { client: Client::new(socket) }
    }

    /// Carries out operations, all or none, and returns a result for each.
    ///
    /// # Errors
    /// `Unavailable` where the database does not answer, `Failed` where it refuses.
    pub async fn transact(&self, operations: Vec<Value>) -> Result<Vec<Value>, BackendError> {
        self.transact_within(operations, DEADLINE).await
    }

    async fn transact_within(&self, operations: Vec<Value>, deadline: Duration) -> Result<Vec<Value>, BackendError> {
        let mut params = vec![json!(DATABASE)];
        params.extend(operations);
        let answer = self.client.call("transact", Value::Array(params), deadline).await;
        let results = match answer {
            Ok(Value::Array(results)) => results,
            Ok(other) => return Err(BackendError::failed(format!("ovsdb-server answered {other} to a transaction"))),
            Err(error @ RpcError::Remote(_)) => {
                return Err(BackendError::failed_by("the switch's database refused a transaction", error));
            }
            Err(error) => return Err(BackendError::unavailable("the switch's database does not answer", error)),
        };
        match results.iter().find(|result| result.get("error").is_some_and(|e| !e.is_null())) {
            Some(refusal) => {
                Err(BackendError::failed(format!("the switch's database refused a transaction: {refusal}")))
            }
            None => Ok(results),
        }
    }

    /// Rows of a table.
    ///
    /// # Errors
    /// As [`Self::transact`].
    pub async fn select(&self, table: &str, conditions: Value, columns: &[&str]) -> Result<Vec<Row>, BackendError> {
        let operation = json!({"op": "select", "table": table, "where": conditions, "columns": columns});
        let mut results = self.transact(vec![operation]).await?;
        let rows = results.first_mut().map(|result| result["rows"].take());
        let Some(Value::Array(rows)) = rows else {
            return Err(BackendError::failed(format!("ovsdb-server answered {results:?} to a selection")));
        };
        Ok(rows.into_iter().filter_map(|row| if let Value::Object(row) = row { Some(row) } else { None }).collect())
    }

    /// Carries out operations, and waits until ovs-vswitchd has done what they say.
    ///
    /// # Errors
    /// As [`Self::transact`]; `Unavailable` where ovs-vswitchd does not catch up in time.
    pub async fn transact_and_wait(&self, mut operations: Vec<Value>) -> Result<(), BackendError> {
        operations.push(json!({"op": "mutate", "table": DATABASE, "where": [], "mutations": [["next_cfg", "+=", 1]]}));
        operations.push(json!({"op": "select", "table": DATABASE, "where": [], "columns": ["next_cfg"]}));
        let results = self.transact(operations).await?;
        let goal = results.last().and_then(|r| r["rows"][0]["next_cfg"].as_i64()).ok_or_else(not_initialised)?;
        tokio::time::timeout(APPLY_DEADLINE, self.caught_up(goal)).await.unwrap_or_else(|_| {
            let what = format!("ovs-vswitchd did not apply a change within {APPLY_DEADLINE:?}: is it running?");
            Err(BackendError::Unavailable { what, source: None })
        })
    }

    async fn caught_up(&self, goal: i64) -> Result<(), BackendError> {
        loop {
            let rows = self.select(DATABASE, json!([]), &["cur_cfg"]).await?;
            let current = rows.first().and_then(|row| row["cur_cfg"].as_i64()).ok_or_else(not_initialised)?;
            if current >= goal {
                return Ok(());
            }
            // Another writer's change can make it jump over the goal, so wait for any other value.
            let timeout = u64::try_from(APPLY_DEADLINE.as_millis()).unwrap_or(u64::MAX);
            let wait = json!({
                "op": "wait", "table": DATABASE, "where": [], "columns": ["cur_cfg"], "until": "!=",
                "rows": [{"cur_cfg": current}], "timeout": timeout,
            });
            self.transact_within(vec![wait], APPLY_DEADLINE).await?;
        }
    }
}

fn not_initialised() -> BackendError {
    BackendError::Unavailable {
        what: "the switch's database has no Open_vSwitch row: has ovs-vswitchd been started?".to_owned(),
        source: None,
    }
}

/// A map of strings as a value.
#[must_use]
pub fn map<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Value {
    let pairs: Vec<Value> = pairs.into_iter().map(|(k, v)| json!([k.as_ref(), v.as_ref()])).collect();
    json!(["map", pairs])
}

/// A value as a map of strings.
#[must_use]
pub fn as_map(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.get(1).and_then(Value::as_array).into_iter().flatten();
    pairs.filter_map(|p| Some((p.get(0)?.as_str()?.to_owned(), p.get(1)?.as_str()?.to_owned()))).collect()
}

/// A value as the elements of a set; a set of one is written as its element.
#[must_use]
pub fn as_set(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(parts) if parts.first() == Some(&json!("set")) => {
            parts.get(1).and_then(Value::as_array).cloned().unwrap_or_default()
        }
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_rfc_writes_them() {
        assert_eq!(as_map(&json!(["map", [["a", "b"]]])), BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert!(as_map(&json!(["map", []])).is_empty());
        assert_eq!(as_set(&json!(["set", []])), Vec::<Value>::new());
        assert_eq!(as_set(&json!(["set", [1, 2]])), [json!(1), json!(2)]);
        assert_eq!(as_set(&json!(7)), [json!(7)]);
        let uuid = json!(["uuid", "x"]);
        assert_eq!(as_set(&uuid), std::slice::from_ref(&uuid));
        assert_eq!(as_map(&map([("k", "v")])), BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    }
}
