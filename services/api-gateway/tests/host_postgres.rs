//! The store and the services on PostgreSQL: a private server on a Unix socket, made and removed by the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/postgres.rs"]
mod postgres;

use cloud_api_gateway::adapters::sql::SqlStore;

use postgres::Server;

#[tokio::test(flavor = "multi_thread")]
async fn everything_on_postgresql() {
    let server = Server::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    common::all(store.clone()).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_one_gateway_ends_is_ended_at_the_other_at_once() {
    use cloud_core::{model::Role, services::NewApiKey};
    let server = Server::start();
    let (one, two) = (SqlStore::open(&server.url()).await.unwrap(), SqlStore::open(&server.url()).await.unwrap());
    let cloud = common::cloud(one.clone()).await;
    let other = common::services(two.clone());
    let new = NewApiKey { name: "ci".into(), role: Role::Member, expires_at: None };
    let (_, secret) = cloud.services.api_keys.create(&cloud.caller, new).await.unwrap();
    for services in [&cloud.services, &other] {
        assert_eq!(services.identity.authenticate(&secret, "").await.unwrap().key_name, "ci");
    }
    other.api_keys.revoke(&cloud.caller, "ci", "").await.unwrap();
    for services in [&cloud.services, &other] {
        assert!(services.identity.authenticate(&secret, "").await.is_err());
    }
    one.close().await;
    two.close().await;
}
