//! What was kept long enough goes, and nothing that is still needed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use cloud_core::{
    model::{Image, ImageStatus, Instance, Port, Resource, Timestamp, Volume},
    ports::{Query, Store, Tx, WorkKind},
    retention::Retention,
    services::Settings,
};

use super::{Cloud, request};

/// Sweeps with these times in days, and says what went.
async fn sweep(c: &Cloud, deleted: u64, events: u64) -> BTreeMap<&'static str, u64> {
    let gone = Arc::new(Mutex::new(BTreeMap::new()));
    let told = Arc::clone(&gone);
    let day = |days| Duration::from_secs(days * 24 * 3600);
    let settings = Settings { keep_deleted: day(deleted), keep_events: day(events), ..Settings::default() };
    let purged = Arc::new(move |kind, rows| *told.lock().unwrap().entry(kind).or_insert(0) += rows);
    Retention::new(c.store.clone(), settings, purged).sweep().await.unwrap();
    gone.lock().unwrap().clone()
}

/// Deletes a row as of some days ago.
async fn delete<R: Resource>(c: &Cloud, id: uuid::Uuid, days: i64, change: impl FnOnce(&mut R)) {
    let mut tx = c.store.begin().await.unwrap();
    let mut row: R = tx.get(id).await.unwrap().unwrap();
    row.meta_mut().deleted_at = Some(Timestamp(Timestamp::now().0 - days * 24 * 3_600_000_000));
    change(&mut row);
    tx.update(&mut row).await.unwrap();
    tx.commit().await.unwrap();
}

async fn is_there<R: Resource>(c: &Cloud, id: uuid::Uuid) -> bool {
    c.store.get::<R>(id).await.unwrap().is_some()
}

pub async fn all(c: &Cloud) {
    // What earlier tests deleted is not in the way.
    sweep(c, 0, 90).await;
    deleted_rows_go_after_their_time_and_not_before_what_they_hold(c).await;
    an_image_stays_until_the_last_disk_made_from_it_is_gone(c).await;
    events_go_and_watchers_can_tell(c).await;
}

async fn deleted_rows_go_after_their_time_and_not_before_what_they_hold(c: &Cloud) {
    let row = c.services.instances.launch(&c.caller, request("kept")).await.unwrap();
    let id = row.meta.id;
    let (port, volume) = (*row.nics[0].port.as_uuid(), *row.disks[0].volume.as_uuid());
    assert!(sweep(c, 0, 90).await.is_empty(), "nothing that lives goes");

    // Deleted, and still with a claim, a disk, a port and work: none of these may lose the row.
    delete::<Instance>(c, id, 31, |_| {}).await;
    assert!(sweep(c, 30, 90).await.is_empty(), "it holds capacity");
    delete::<Instance>(c, id, 31, |row| row.holds_capacity = false).await;
    assert!(sweep(c, 30, 90).await.is_empty(), "its disk and its port are there");
    delete::<Volume>(c, volume, 31, |_| {}).await;
    delete::<Port>(c, port, 29, |_| {}).await;
    let before = c.store.purged().await.unwrap();
    assert_eq!(sweep(c, 30, 90).await, BTreeMap::from([("volume", 1)]), "its work is due");
    assert!(c.store.purged().await.unwrap() > before, "who watches from before that may have missed it");
    let lease = Duration::from_secs(60);
    for item in c.store.claim_work(10_000, lease).await.unwrap() {
        if item.id == id {
            assert!(sweep(c, 30, 90).await.is_empty(), "its work is under way");
        }
        c.store.finish_work(&item, None, None).await.unwrap();
    }
    // Two gateways at once: it goes once.
    let (one, other) = tokio::join!(sweep(c, 30, 90), sweep(c, 30, 90));
    let gone = one.get("instance").unwrap_or(&0) + other.get("instance").unwrap_or(&0);
    assert_eq!(gone, 1, "{one:?} {other:?}");
    assert!(!is_there::<Instance>(c, id).await && !is_there::<Volume>(c, volume).await);
    assert!(is_there::<Port>(c, port).await, "two days later it may go too");
    assert_eq!(sweep(c, 28, 90).await, BTreeMap::from([("port", 1)]));
    let mut tx = c.store.begin().await.unwrap();
    // Its work row has gone with it: what is enqueued now begins anew.
    tx.enqueue(WorkKind::Instance, id).await.unwrap();
    drop(tx);
}

async fn an_image_stays_until_the_last_disk_made_from_it_is_gone(c: &Cloud) {
    let row = c.services.instances.launch(&c.caller, request("from-image")).await.unwrap();
    let image = *row.image.as_uuid();
    delete::<Image>(c, image, 40, |row| row.status = ImageStatus::Deleted).await;
    assert!(sweep(c, 30, 90).await.is_empty());
    // Every disk that any test made of it.
    for volume in c.store.list::<Volume>(&Query::default()).await.unwrap() {
        if volume.image.is_some() {
            delete::<Volume>(c, volume.meta.id, 1, |_| {}).await;
        }
    }
    assert_eq!(sweep(c, 30, 90).await, BTreeMap::from([("image", 1)]));
    assert!(!is_there::<Image>(c, image).await);
}

async fn events_go_and_watchers_can_tell(c: &Cloud) {
    let newest = c.store.events(None, None, None, None, 1).await.unwrap()[0].revision;
    assert!(!sweep(c, 30, 90).await.contains_key("event"));
    let gone = sweep(c, 30, 0).await["event"];
    assert!(gone > 30, "{gone}");
    assert!(c.store.events(None, None, None, None, 1).await.unwrap().is_empty());
    assert!(c.store.purged().await.unwrap() >= newest / 1024);
    // Request ids have times of their own.
    let requests = c.services.requests.begin(&c.caller, "r3".into(), "test", b"").await.unwrap();
    assert!(matches!(requests, cloud_core::services::Known::Done(_)), "a day is not over");
}
