//! What changed is told completely and in order, however many write at once.

use std::collections::{HashMap, HashSet};

use cloud_core::{
    model::{Event, Labels, Meta, Project, Timestamp, Volume, VolumeLimits, VolumeStatus},
    ports::{Changed, Changes, Mark, Store, Tx},
    services::NewVolume,
};
use cloud_domain::{HostId, ProjectId};
use uuid::Uuid;

use super::Cloud;

pub async fn all(c: &Cloud) {
    nothing_that_is_committed_is_missed(c).await;
    a_page_never_cuts_a_transaction(c).await;
    what_is_rolled_back_is_nobody_elses_loss(c).await;
    a_mark_tells_whether_a_row_was_written(c).await;
}

/// Whatever is done to the rows of a host changes their mark, and nothing else does.
async fn a_mark_tells_whether_a_row_was_written(c: &Cloud) {
    async fn write(c: &Cloud, row: &mut Volume) {
        let mut tx = c.store.begin().await.unwrap();
        tx.update(row).await.unwrap();
        tx.commit().await.unwrap();
    }
    async fn add(c: &Cloud, name: &str, host: HostId) -> Volume {
        let row = Volume { host: Some(host), ..volume(c, name) };
        let mut tx = c.store.begin().await.unwrap();
        tx.insert(&row).await.unwrap();
        tx.commit().await.unwrap();
        row
    }
    let (here, elsewhere) = (HostId::random(), HostId::random());
    let mark = async || c.store.mark::<Volume>(here).await.unwrap();
    assert_eq!(mark().await, Mark { rows: 0, revisions: 0 });
    let (mut first, mut second) = (add(c, "first", here).await, add(c, "second", here).await);
    let mut seen = vec![mark().await];
    assert_eq!(seen[0].rows, 2);
    add(c, "other", elsewhere).await;
    assert_eq!(mark().await, seen[0], "a row of another host is none of its own");
    write(c, &mut first).await;
    seen.push(mark().await);
    first.meta.deleted_at = Some(Timestamp::now());
    write(c, &mut first).await;
    seen.push(mark().await);
    // As many as there were.
    let mut third = add(c, "third", here).await;
    seen.push(mark().await);
    // One comes, one goes.
    third.host = Some(elsewhere);
    write(c, &mut third).await;
    add(c, "fourth", here).await;
    seen.push(mark().await);
    write(c, &mut second).await;
    seen.push(mark().await);
    let rows: Vec<_> = seen.iter().map(|mark| mark.rows).collect();
    assert_eq!(rows, [2, 2, 1, 2, 2, 2]);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "no two are the same: {seen:?}");
}

/// Many write, some give up, one of them is slow: a reader who only ever asks for what is new misses nothing.
async fn nothing_that_is_committed_is_missed(c: &Cloud) {
    let begun = c.store.revision().await.unwrap();
    // Has its revision before the others, and commits after them.
    let slow = if c.store.is_exclusive() { None } else { Some(c.store.begin().await.unwrap()) };
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let (services, caller) = (c.services.clone(), c.caller.clone());
            tokio::spawn(async move {
                for i in 0..12 {
                    let new = NewVolume { name: format!("w{writer}-{i}"), size_gib: 1, ..NewVolume::default() };
                    let made = services.volumes.create(&caller, new).await.unwrap();
                    if i % 3 == 0 {
                        services.volumes.delete(&caller, &made.meta.id.to_string(), "").await.unwrap();
                    }
                }
            })
        })
        .collect();
    let mut seen: HashMap<Uuid, Volume> = HashMap::new();
    let mut events: Vec<Event> = Vec::new();
    let (mut after, mut after_event, mut slow) = (begun, begun, slow);
    for round in 0.. {
        let ended = writers.iter().all(tokio::task::JoinHandle::is_finished);
        if (round == 3 || ended)
            && let Some(mut tx) = slow.take()
        {
            tx.insert(&volume(c, "slow")).await.unwrap();
            tx.commit().await.unwrap();
        }
        let Changes { rows, upto } = c.store.changes::<Volume>(after, 7).await.unwrap();
        assert!(upto >= after, "what is told never goes back");
        for Changed { row, .. } in rows {
            let before = seen.insert(row.meta.id, row.clone());
            assert!(before.is_none_or(|b| b.meta.version < row.meta.version), "told twice: {row:?}");
        }
        let Changes { rows, upto: upto_event } = c.store.events_after(after_event, 7).await.unwrap();
        events.extend(rows.into_iter().map(|changed| changed.row));
        let idle = upto == after && upto_event == after_event;
        (after, after_event) = (upto, upto_event);
        if ended && slow.is_none() && idle && round > 3 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let expected = if c.store.is_exclusive() { 72 } else { 73 };
    assert_eq!(seen.len(), expected);
    assert_eq!(seen.values().filter(|v| v.status == VolumeStatus::Deleting).count(), 24);
    assert_eq!(events.iter().filter(|e| e.action == "volume.create").count(), 72);
    assert_eq!(events.iter().filter(|e| e.action == "volume.delete").count(), 24);
    assert!(events.windows(2).all(|w| w[0].revision < w[1].revision));
    assert_eq!(events.iter().map(|e| e.id).collect::<HashSet<_>>().len(), events.len());
}

fn volume(c: &Cloud, name: &str) -> Volume {
    Volume {
        meta: Meta::new(Uuid::new_v4(), c.caller.project, "default", name, Labels::new()),
        size: 1.try_into().unwrap(),
        status: VolumeStatus::Available,
        status_reason: String::new(),
        host: None,
        host_name: String::new(),
        pool: "default".into(),
        instance: None,
        instance_name: String::new(),
        root: false,
        image: None,
        image_name: String::new(),
        data_missing: false,
        copied: None,
        growing_to: None,
        limits: VolumeLimits::default(),
        limits_pending: false,
    }
}

async fn a_page_never_cuts_a_transaction(c: &Cloud) {
    let begun = c.store.revision().await.unwrap();
    let nobody = ProjectId::from(Uuid::nil());
    let project = |i: u32| Project { meta: Meta::new(Uuid::new_v4(), nobody, "", &format!("p-{i}"), Labels::new()) };
    for names in [0..1, 1..10, 10..11] {
        let mut tx = c.store.begin().await.unwrap();
        for i in names {
            tx.insert(&project(i)).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    let (mut after, mut pages) = (begun, Vec::new());
    loop {
        let Changes { rows, upto } = c.store.changes::<Project>(after, 2).await.unwrap();
        if rows.is_empty() {
            break;
        }
        pages.push(rows.len());
        after = upto;
    }
    // The first alone, since what follows does not fit; then as many as it takes.
    assert_eq!(pages, [1, 10]);
}

/// Transactions that share a flush share nothing else.
async fn what_is_rolled_back_is_nobody_elses_loss(c: &Cloud) {
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let (store, row) = (c.store.clone(), volume(c, &format!("together-{i}")));
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                tx.insert(&row).await.unwrap();
                if i % 2 == 0 {
                    tx.commit().await.unwrap();
                    assert!(store.get::<Volume>(row.meta.id).await.unwrap().is_some(), "what is committed can be read");
                }
                (i % 2 == 0, row.meta.id)
            })
        })
        .collect();
    for task in tasks {
        let (kept, id) = task.await.unwrap();
        assert_eq!(c.store.get::<Volume>(id).await.unwrap().is_some(), kept);
    }
}
