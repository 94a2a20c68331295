//! Databases of earlier releases are opened, brought up to date, and keep what they hold.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    filter::Filter,
    model::{
        Amounts, ApiKey, Host, Image, Instance, InstanceType, Limited, Port, Project, Resource, Subnet, Volume, Vpc,
        held_by_instance, held_by_volume,
    },
    ports::{Query, Store},
    services::bootstrap,
};
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

/// How many rows of a kind there are; each is read as this release reads it.
async fn rows<R: Resource>(store: &SqlStore) -> usize {
    store.list::<R>(&Query { deleted: true, ..Query::default() }).await.unwrap().len()
}

async fn restored(dump: &Path, file: &Path) -> SqlStore {
    let url = format!("sqlite://{}?mode=rwc", file.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    connection.execute(AssertSqlSafe(fs::read_to_string(dump).unwrap())).await.unwrap();
    connection.close().await.unwrap();
    SqlStore::open(&format!("sqlite:{}", file.display())).await.unwrap()
}

/// Quotas count what was there before there were any.
async fn counters_hold_what_the_rows_hold(store: &SqlStore, name: &str) {
    let project = store.list::<Project>(&Query::default()).await.unwrap().remove(0).meta.id.into();
    let mut held: Amounts = Limited::ALL.into_iter().map(|of| (of, 0)).collect();
    let mut add = |more: Amounts| more.into_iter().for_each(|(of, n)| *held.get_mut(&of).unwrap() += n);
    store.list::<Instance>(&Query::default()).await.unwrap().iter().for_each(|row| add(held_by_instance(row)));
    store.list::<Volume>(&Query::default()).await.unwrap().iter().for_each(|row| add(held_by_volume(row)));
    add(Amounts::from([(Limited::Vpcs, 1)]));
    assert!(Limited::ALL[..4].iter().all(|of| held[of] > 0), "{name} has something to count: {held:?}");
    assert_eq!(store.quota(project).await.unwrap().unwrap().used, held, "{name}");
    let keys: Vec<ApiKey> = store.list(&Query::by("role", &"operator")).await.unwrap();
    assert_eq!(keys.len(), 1, "{name}: a key's role can be asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_every_release_is_still_there() {
    let releases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released");
    let mut dumps: Vec<_> = fs::read_dir(releases).unwrap().map(|e| e.unwrap().path()).collect();
    dumps.sort();
    assert!(!dumps.is_empty(), "every release leaves a database here");
    for dump in dumps {
        let dir = tempfile::tempdir().unwrap();
        let store = restored(&dump, &dir.path().join("gateway.db")).await;
        let name = dump.display();
        assert_eq!(rows::<Instance>(&store).await, 2, "{name}");
        assert_eq!(rows::<Volume>(&store).await, 2, "{name}");
        assert_eq!(rows::<Port>(&store).await, 2, "{name}");
        assert_eq!((rows::<Vpc>(&store).await, rows::<Subnet>(&store).await), (1, 1), "{name}");
        assert_eq!((rows::<Image>(&store).await, rows::<Host>(&store).await), (1, 1), "{name}");
        assert_eq!((rows::<Project>(&store).await, rows::<ApiKey>(&store).await), (1, 1), "{name}");
        assert_eq!(rows::<InstanceType>(&store).await, 5, "{name}");
        let events = store.events(None, None, None, None, 500).await.unwrap();
        assert_eq!((events.len(), events[0].revision), (8, 8), "{name}");
        counters_hold_what_the_rows_hold(&store, &name.to_string()).await;
        for filter in ["iops=0", "mb_per_second=0", "limits_pending=false"] {
            let filter = Filter::parse(Volume::FIELDS, filter).unwrap();
            let found = store.list::<Volume>(&Query { deleted: true, filter, ..Query::default() }).await.unwrap();
            assert_eq!(found.len(), 2, "{name}: volumes of before have no limits");
        }
        // And it can be written.
        bootstrap(&store, "another secret").await.unwrap();
        let instances: Vec<Instance> = store.list(&Query::default()).await.unwrap();
        let web = instances.iter().find(|i| i.meta.name == "web-01").unwrap();
        assert_eq!((web.status.as_str(), web.nics[0].ip.to_string().as_str()), ("STOPPED", "10.0.0.3"), "{name}");
    }
}
