//! Calls under a request id are made once.

use cloud_core::{
    CoreError,
    model::{Caller, Event, Instance, RequestKey, Timestamp, Volume},
    ports::{Query, Store, StoreError, Tx},
    services::{Known, NewVolume},
};

use super::{Cloud, request};

/// The caller with a request id, as the wire makes it.
async fn once(c: &Cloud, id: &str, body: &str) -> Result<Caller, String> {
    match c.services.requests.begin(&c.caller, id.into(), "test", body.as_bytes()).await.unwrap() {
        Known::New(key) => Ok(Caller { once: Some(key), ..c.caller.clone() }),
        Known::Done(resource) => Err(resource),
    }
}

async fn volumes(c: &Cloud) -> usize {
    c.store.list::<Volume>(&Query::default()).await.unwrap().len()
}

fn volume(name: &str) -> NewVolume {
    NewVolume { name: name.into(), size_gib: 1, ..NewVolume::default() }
}

pub async fn all(c: &Cloud) {
    what_was_done_is_known_and_another_call_is_refused(c).await;
    refusals_are_not_remembered(c).await;
    of_many_at_once_one_is_made(c).await;
    what_had_nothing_to_do_is_remembered_too(c).await;
    ids_of_projects_do_not_meet(c).await;
    an_id_is_free_again_when_it_need_not_be_remembered(c).await;
}

async fn what_was_done_is_known_and_another_call_is_refused(c: &Cloud) {
    let caller = once(c, "r1", "a").await.unwrap();
    let made = c.services.volumes.create(&caller, volume("once-1")).await.unwrap();
    assert!(caller.once.unwrap().is_recorded());
    assert_eq!(once(c, "r1", "a").await.unwrap_err(), made.meta.id.to_string());
    let begun = c.services.requests.begin(&c.caller, "r1".into(), "test", b"b").await;
    assert!(matches!(begun, Err(CoreError::RequestReused { id }) if id == "r1"));
    let begun = c.services.requests.begin(&c.caller, "r1".into(), "other", b"a").await;
    assert!(matches!(begun, Err(CoreError::RequestReused { .. })));
}

async fn refusals_are_not_remembered(c: &Cloud) {
    let caller = once(c, "r2", "").await.unwrap();
    let error = c.services.volumes.create(&caller, volume("once-1")).await.unwrap_err();
    assert!(matches!(error, CoreError::AlreadyExists { .. }), "{error}");
    assert!(!caller.once.unwrap().is_recorded());
    let caller = once(c, "r2", "").await.unwrap();
    c.services.volumes.create(&caller, volume("once-2")).await.unwrap();
}

async fn of_many_at_once_one_is_made(c: &Cloud) {
    let before = volumes(c).await;
    // Without a unique name among them, so that nothing but the id can tell them apart.
    let calls = (0..16).map(|i| {
        let (services, caller) = (c.services.clone(), c.caller.clone());
        tokio::spawn(async move {
            let Known::New(key) = services.requests.begin(&caller, "r3".into(), "test", b"").await.unwrap() else {
                return None;
            };
            let caller = Caller { once: Some(key), ..caller };
            services.volumes.create(&caller, volume(&format!("race-{i}"))).await.ok()
        })
    });
    let made: Vec<_> = futures::future::join_all(calls).await.into_iter().filter_map(|call| call.unwrap()).collect();
    assert_eq!((made.len(), volumes(c).await), (1, before + 1));
    assert_eq!(once(c, "r3", "").await.unwrap_err(), made[0].meta.id.to_string());
    let events = c.store.events(None, Some("volume"), None, None, 500).await.unwrap();
    let of = |e: &&Event| e.name.starts_with("race-");
    assert_eq!(events.iter().filter(of).count(), 1, "what was not made left no event");
}

async fn what_had_nothing_to_do_is_remembered_too(c: &Cloud) {
    let row: Instance = c.services.instances.launch(&c.caller, request("starting")).await.unwrap();
    let caller = once(c, "r4", "start").await.unwrap();
    c.services.instances.start(&caller, "starting", "").await.unwrap();
    let key = caller.once.unwrap();
    assert!(!key.is_recorded(), "it starts already");
    let id = row.meta.id.to_string();
    assert_eq!(c.services.requests.unchanged(&key, &id).await.unwrap(), None);
    assert_eq!(once(c, "r4", "start").await.unwrap_err(), id);
    // Another one with the id hears what the first one did, or that it was another call.
    assert_eq!(c.services.requests.unchanged(&key, "another").await.unwrap(), Some(id));
    let mut other = key.clone();
    other.fingerprint = "other".into();
    let refused = c.services.requests.unchanged(&other, "another").await;
    assert!(matches!(refused, Err(CoreError::RequestReused { .. })));
}

async fn ids_of_projects_do_not_meet(c: &Cloud) {
    let other = Caller { project: cloud_domain::ProjectId::random(), ..c.caller.clone() };
    let begun = c.services.requests.begin(&other, "r1".into(), "test", b"b").await.unwrap();
    assert!(matches!(begun, Known::New(_)));
}

async fn an_id_is_free_again_when_it_need_not_be_remembered(c: &Cloud) {
    let key = once(c, "r5", "a").await.unwrap().once.unwrap();
    let past = Timestamp(Timestamp::now().0 - 1);
    let mut old = key;
    old.expires_at = past;
    let write = async |key: &RequestKey| {
        let mut tx = c.store.begin().await.unwrap();
        tx.record(key, "x").await?;
        tx.commit().await
    };
    write(&old).await.unwrap();
    assert!(once(c, "r5", "b").await.is_ok(), "a day later it may be another call's");
    let key = once(c, "r5", "b").await.unwrap().once.unwrap();
    write(&key).await.unwrap();
    assert!(matches!(write(&key).await, Err(StoreError::Repeated)));
    // And in the end it is forgotten, alone.
    let mut old = key;
    (old.id, old.expires_at) = ("r6".into(), past);
    write(&old).await.unwrap();
    let mut tx = c.store.begin().await.unwrap();
    assert_eq!(tx.purge_requests(Timestamp::now(), 100).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert_eq!(c.store.request(c.caller.project, "r6").await.unwrap(), None);
    assert!(c.store.request(c.caller.project, "r5").await.unwrap().is_some());
}
