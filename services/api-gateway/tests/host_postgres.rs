//! The store and the services on PostgreSQL: a private server on a Unix socket, made and removed by the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/postgres.rs"]
mod postgres;

use std::time::{Duration, Instant};

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    model::Host,
    ports::{Query, Store, StoreError, Tx},
};
use sqlx::Connection;

use postgres::Server;

#[tokio::test(flavor = "multi_thread")]
async fn everything_on_postgresql() {
    let server = Server::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    common::all(store.clone()).await;
    let refused = cloud_api_gateway::handlers::Backups::incoming(&store);
    assert!(matches!(refused, Err(cloud_api_gateway::adapters::sql::BackupError::NotSqlite)));
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

#[tokio::test(flavor = "multi_thread")]
async fn launches_at_once_through_two_gateways_never_overcommit() {
    let server = Server::start();
    let (one, two) = (SqlStore::open(&server.url()).await.unwrap(), SqlStore::open(&server.url()).await.unwrap());
    let cloud = common::cloud(one.clone()).await;
    common::places::two_gateways_never_overcommit(&cloud, two.clone()).await;
    one.close().await;
    two.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_outlives_its_host() {
    let server = Server::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    common::certificates::no_certificate_outlives_its_host(&common::cloud(store.clone()).await).await;
    store.close().await;
}

/// The server answers that it has rolled back, which is no error to it: it must be one to us.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_which_a_statement_failed_is_not_committed() {
    let server = Server::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    common::cloud(store.clone()).await;
    let mut tx = store.begin().await.unwrap();
    let host: Host = tx.list(&Query::default()).await.unwrap().remove(0);
    assert!(matches!(tx.insert(&host).await, Err(StoreError::Taken)));
    assert!(matches!(tx.commit().await, Err(StoreError::Stale)));
    store.close().await;
}

/// How many transactions are open and nobody's, once none is being ended any more.
async fn left_open(watcher: &mut sqlx::PgConnection) -> i64 {
    let mut open = 0;
    for _ in 0..200 {
        let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
        open = sqlx::query_scalar(sql).fetch_one(&mut *watcher).await.unwrap();
        if open == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_given_up_while_it_begins_is_not_left_open() {
    let server = Server::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    let mut watcher = sqlx::PgConnection::connect(&server.url()).await.unwrap();
    let vpc = cloud_domain::VpcId::random();
    for round in 0..300 {
        // A connection is there: what is given up while one is looked at closes it.
        drop(store.begin().await.unwrap());
        assert_eq!(left_open(&mut watcher).await, 0, "in order");
        // Given up at one moment of its beginning or another, as the call of a client who goes away.
        let (begun, patience) = (Instant::now(), Duration::from_micros(round * 5));
        let given_up = async {
            while begun.elapsed() < patience {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = given_up => {}
            tx = store.begin(), if round % 2 == 0 => drop(tx),
            found = store.vpc_snapshot(vpc), if round % 2 == 1 => drop(found),
        }
        assert_eq!(left_open(&mut watcher).await, 0, "in round {round}");
    }
    store.close().await;
}
