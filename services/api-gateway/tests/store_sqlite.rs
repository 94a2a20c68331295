//! The store and the services on SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use cloud_api_gateway::adapters::sql::{OpenError, SqlStore};

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
