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
