//! Finding the row that a caller means by an id or a name.

use cloud_domain::ProjectId;
use uuid::Uuid;

use crate::{
    CoreError,
    model::{Caller, NewEvent, Resource},
    ports::{Store, StoreError, Tx},
};

/// An id, where the text has the form of one. Names never do.
pub(super) fn as_id(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

fn not_found<R: Resource>(text: &str) -> CoreError {
    CoreError::not_found(R::KIND, text.chars().take(80).collect::<String>())
}

/// The row, deleted ones included (by id only). Another project's does not exist.
pub(super) async fn any<R: Resource, S: Store>(store: &S, project: ProjectId, text: &str) -> Result<R, CoreError> {
    let row: Option<R> = match as_id(text) {
        Some(id) => store.get(id).await?.filter(|r: &R| r.meta().project == project),
        None => store.find(project, text).await?,
    };
    row.ok_or_else(|| not_found::<R>(text))
}

/// The live row, within a transaction.
pub(super) async fn live<R: Resource, T: Tx>(tx: &mut T, project: ProjectId, text: &str) -> Result<R, CoreError> {
    let row: Option<R> = match as_id(text) {
        Some(id) => tx.get(id).await?.filter(|r: &R| r.meta().project == project && r.meta().deleted_at.is_none()),
        None => tx.find(project, text).await?,
    };
    row.ok_or_else(|| not_found::<R>(text))
}

/// Refuses an etag that is not the row's; an empty one is never refused.
pub(super) fn check_etag<R: Resource>(row: &R, etag: &str) -> Result<(), CoreError> {
    if etag.is_empty() || etag == row.meta().etag() {
        return Ok(());
    }
    Err(CoreError::StaleEtag { kind: R::KIND, name: row.meta().name.clone() })
}

/// Writes a new row; a taken name is said to be taken.
pub(super) async fn insert<R: Resource, T: Tx>(tx: &mut T, row: &R) -> Result<(), CoreError> {
    tx.insert(row).await.map_err(|error| taken(row, error))
}

/// Writes a row whose name may have changed; a taken name is said to be taken.
pub(super) async fn rename<R: Resource, T: Tx>(tx: &mut T, row: &mut R) -> Result<(), CoreError> {
    let written = tx.update(row).await;
    written.map_err(|error| taken(row, error))
}

fn taken<R: Resource>(row: &R, error: StoreError) -> CoreError {
    match error {
        StoreError::Taken => CoreError::AlreadyExists { kind: R::KIND, name: row.meta().name.clone() },
        other => other.into(),
    }
}

/// What a caller did, as an event of the resource's project; what belongs to the cloud was done from the caller's.
pub(super) fn event<R: Resource>(caller: &Caller, row: &R, action: &'static str) -> NewEvent {
    let own = row.meta().project;
    NewEvent {
        project: if own.as_uuid().is_nil() { caller.project } else { own },
        kind: R::KIND,
        resource: row.meta().id,
        name: row.meta().name.clone(),
        action,
        actor: caller.key_name.clone(),
        source: caller.source.clone(),
        outcome: NewEvent::OK,
        message: String::new(),
        request_id: caller.request_id.clone(),
        once: caller.once.clone(),
    }
}

/// A name, as the contract wants names.
pub(super) fn name(text: &str) -> Result<&str, CoreError> {
    text.parse::<cloud_domain::ResourceName>().map(|_| text).map_err(|e| CoreError::invalid("name", e))
}

/// Labels within their limits: 64 of them, keys of 1 to 63 characters, values of up to 255.
pub(super) fn labels(labels: &crate::model::Labels) -> Result<(), CoreError> {
    if labels.len() > 64 {
        return Err(CoreError::invalid("labels", format!("at most 64, has {}", labels.len())));
    }
    let printable = |t: &str| !t.chars().any(char::is_control);
    for (key, value) in labels {
        if key.is_empty() || key.chars().count() > 63 || !printable(key) {
            return Err(CoreError::invalid("labels", "a key must have 1 to 63 printable characters"));
        }
        if value.chars().count() > 255 || !printable(value) {
            return Err(CoreError::invalid(
                "labels",
                format!("the value of `{key}` must have at most 255 printable characters"),
            ));
        }
    }
    Ok(())
}

/// Only operators may do this. Which methods they alone may call is said by `authorization`, before a service is reached; here it is said of
/// what depends on a call's fields, and once more where a service is called by other ways.
pub(super) fn operator(caller: &Caller, what: &str) -> Result<(), CoreError> {
    if caller.role == crate::model::Role::Operator {
        return Ok(());
    }
    Err(CoreError::Denied(format!("only operators may {what}")))
}

/// Only members of the project and above may change things.
pub(super) fn member(caller: &Caller) -> Result<(), CoreError> {
    if caller.role >= crate::model::Role::Member {
        return Ok(());
    }
    Err(CoreError::Denied("this key may only read".to_owned()))
}
