//! The store and the services on SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, path::Path};

use cloud_api_gateway::{
    adapters::sql::{BackupError, BackupFile, OpenError, SqlStore},
    handlers::Backups,
};
use cloud_core::{
    model::Volume,
    ports::{EventQuery, Query, Store},
    services::NewVolume,
};
use sqlx::{Connection, SqliteConnection};

#[tokio::test(flavor = "multi_thread")]
async fn everything_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("gateway.db").display());
    common::all(SqlStore::open(&url).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_belongs_to_one_process_and_is_itself_again_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("gateway.db").display());
    let store = SqlStore::open(&url).await.unwrap();
    let cloud = common::cloud(store.clone()).await;
    let made = cloud.services.instances.launch(&cloud.caller, common::request("web-01")).await.unwrap();
    assert!(matches!(SqlStore::open(&url).await, Err(OpenError::Locked(_))));
    let identity = cloud_core::ports::Store::identity(&store);
    store.close().await;
    drop((cloud, store));
    let store = SqlStore::open(&url).await.unwrap();
    assert_eq!(cloud_core::ports::Store::identity(&store), identity);
    let row: cloud_core::model::Instance = cloud_core::ports::Store::get(&store, made.meta.id).await.unwrap().unwrap();
    assert_eq!(row, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn launches_at_once_never_overcommit() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqlStore::open(&url(&dir.path().join("gateway.db"))).await.unwrap();
    let cloud = common::cloud(store.clone()).await;
    common::places::two_gateways_never_overcommit(&cloud, store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_outlives_its_host() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqlStore::open(&url(&dir.path().join("gateway.db"))).await.unwrap();
    common::certificates::no_certificate_outlives_its_host(&common::cloud(store).await).await;
}

fn url(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

async fn volume(cloud: &common::Cloud, name: &str) {
    let new = NewVolume { name: name.into(), size_gib: 1, ..NewVolume::default() };
    cloud.services.volumes.create(&cloud.caller, new).await.unwrap();
}

async fn volumes(store: &SqlStore) -> Vec<String> {
    let rows: Vec<Volume> = store.list(&Query { limit: Some(500), ..Query::default() }).await.unwrap();
    rows.into_iter().map(|row| row.meta.name).collect()
}

/// What is in a directory and begins so.
fn files(dir: &Path, prefix: &str) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// A backup as it arrives.
fn arrived(store: &SqlStore, bytes: &[u8]) -> BackupFile {
    let file = store.incoming().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_one_moment_of_a_database_that_is_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqlStore::open(&url(&dir.path().join("gateway.db"))).await.unwrap();
    let cloud = common::cloud(store.clone()).await;
    volume(&cloud, "v-000").await;
    let writing = async {
        for number in 1..=60 {
            volume(&cloud, &format!("v-{number:03}")).await;
        }
    };
    let copying = async {
        while volumes(&store).await.len() < 10 {
            tokio::task::yield_now().await;
        }
        store.back_up(&cloud.caller).await.unwrap()
    };
    let ((), copy) = tokio::join!(writing, copying);
    assert_eq!(volumes(&store).await.len(), 61, "nobody was kept from writing");
    let path = copy.path();
    let copied = SqlStore::open(&url(&path)).await.unwrap();
    assert_eq!(copied.identity(), store.identity());
    let mut names = volumes(&copied).await;
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    let expected: Vec<_> = (0..names.len()).map(|number| format!("v-{number:03}")).collect();
    assert_eq!(names, expected, "all that was committed before the moment, and nothing after it");
    copied.close().await;
    let query = EventQuery { kind: Some("database".into()), limit: 9, ..EventQuery::default() };
    let events = store.list_events(&query).await.unwrap();
    assert_eq!((events.len(), events[0].action.as_str()), (1, "database.backup"));
    assert_eq!(events[0].actor, cloud.caller.key_name);
    drop(copy);
    assert_eq!(files(dir.path(), ".backup-"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_decided_is_carried_out_by_whoever_opens_the_database_next() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("gateway.db");
    let store = SqlStore::open(&url(&database)).await.unwrap();
    let cloud = common::cloud(store.clone()).await;
    volume(&cloud, "before").await;
    let copy = store.back_up(&cloud.caller).await.unwrap();
    volume(&cloud, "after").await;
    let (id, epoch) = store.identity();
    let restored = store.restore(&cloud.caller, copy, false).await.unwrap();
    assert_eq!(restored.cloud, id.to_string());
    assert!(restored.epoch > epoch);
    assert_eq!(volumes(&store).await.len(), 2, "until then nothing has changed");
    // What a killed gateway leaves.
    let leftover = store.incoming().unwrap();
    fs::write(leftover.path(), "half").unwrap();
    std::mem::forget(leftover);
    assert_eq!(files(dir.path(), ".backup-").len(), 1);
    drop((cloud, store));

    let store = SqlStore::open(&url(&database)).await.unwrap();
    assert_eq!(store.identity(), (id, restored.epoch));
    assert_eq!(volumes(&store).await, ["before"]);
    let query = EventQuery { kind: Some("database".into()), limit: 9, ..EventQuery::default() };
    let events: Vec<_> = store.list_events(&query).await.unwrap().into_iter().map(|event| event.action).collect();
    assert_eq!(events, ["database.restore"]);
    assert_eq!(files(dir.path(), ".backup-"), Vec::<String>::new());
    assert!(!dir.path().join("gateway.db.restore").exists());
    let kept = files(dir.path(), "gateway.db.before-restore-");
    let old = kept.iter().find(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).unwrap();
    store.close().await;
    let old = SqlStore::open(&url(&dir.path().join(old))).await.unwrap();
    assert_eq!((old.identity(), volumes(&old).await.len()), ((id, epoch), 2), "the database before it is kept");
    old.close().await;

    let store = SqlStore::open(&url(&database)).await.unwrap();
    assert_eq!(store.identity().1, restored.epoch, "it is carried out once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_backup_of_this_cloud_is_refused_and_nothing_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqlStore::open(&url(&dir.path().join("gateway.db"))).await.unwrap();
    let cloud = common::cloud(store.clone()).await;
    for number in 0..60 {
        volume(&cloud, &format!("v-{number:03}")).await;
    }
    let copy = store.back_up(&cloud.caller).await.unwrap();
    let whole = fs::read(copy.path()).unwrap();
    drop(copy);
    let mut damaged = whole.clone();
    let middle = whole.len() / 2;
    damaged[middle..middle + 8192].fill(0xa5);
    for bytes in [&damaged[..], &whole[..middle], b"not a database".repeat(1000).as_slice(), b""] {
        let refused = store.restore(&cloud.caller, arrived(&store, bytes), false).await.unwrap_err();
        assert!(matches!(refused, BackupError::NotOurs(_)), "{refused:?}");
    }

    let newer = arrived(&store, &whole);
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", newer.path().display())).await.unwrap();
    let sql = "INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, execution_time FROM _sqlx_migrations LIMIT 1";
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let refused = store.restore(&cloud.caller, newer, false).await.unwrap_err();
    assert!(matches!(refused, BackupError::Newer), "{refused:?}");

    let elsewhere = tempfile::tempdir().unwrap();
    let other = SqlStore::open(&url(&elsewhere.path().join("gateway.db"))).await.unwrap();
    let theirs = common::cloud(other.clone()).await;
    let foreign = fs::read(other.back_up(&theirs.caller).await.unwrap().path()).unwrap();
    let refused = store.restore(&cloud.caller, arrived(&store, &foreign), false).await.unwrap_err();
    assert!(matches!(refused, BackupError::OtherCloud { .. }), "{refused:?}");
    assert_eq!(files(dir.path(), ".backup-"), Vec::<String>::new());
    assert_eq!(files(dir.path(), "gateway.db.restore"), Vec::<String>::new());
    let restored = store.restore(&cloud.caller, arrived(&store, &foreign), true).await.unwrap();
    assert_eq!(restored.cloud, other.identity().0.to_string());
    assert_eq!(files(dir.path(), "gateway.db.restore"), ["gateway.db.restore"]);
}
