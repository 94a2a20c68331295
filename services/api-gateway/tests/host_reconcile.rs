//! Two gateways on one PostgreSQL database, under orders for the same instances at once: none is refused for nothing, all converges.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "reconcile/cloud.rs"]
mod cloud;
#[path = "reconcile/faulty.rs"]
mod faulty;
#[path = "reconcile/host.rs"]
mod host;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "reconcile/truth.rs"]
mod truth;

use std::time::Duration;

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    CoreError,
    model::{Caller, Instance},
    services::{Launch, Services, Settings},
};
use cloud_domain::InstanceStatus;

use cloud::Cloud;

/// Launched by one gateway, stopped and deleted by the other, without waiting for anything.
async fn hurry(one: Services<SqlStore>, other: Services<SqlStore>, caller: Caller, name: String) -> Instance {
    let pause = || tokio::time::sleep(Duration::from_millis(rand::random_range(0..60)));
    let request =
        Launch { name: name.clone(), image: "tiny".into(), instance_type: "tiny".into(), ..Launch::default() };
    let made = one.instances.launch(&caller, request).await.unwrap();
    pause().await;
    match other.instances.stop(&caller, &name, "").await {
        Ok(_) | Err(CoreError::Deadline(_)) => {}
        Err(refused) => panic!("{refused}"),
    }
    pause().await;
    other.instances.delete(&caller, &name, "").await.unwrap();
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_do_not_get_in_each_others_way() {
    let server = postgres::Server::start();
    let settings = Settings { heartbeat_timeout: Duration::from_secs(600), ..Settings::default() };
    let mut cloud = Cloud::on(Some(server.url()), settings).await;
    let (other, _workers) = cloud.another().await;
    for round in 0..4 {
        let tasks: Vec<_> = (0..18)
            .map(|i| {
                let (mut a, mut b) = (cloud.services().clone(), other.clone());
                if i % 2 == 0 {
                    std::mem::swap(&mut a, &mut b);
                }
                tokio::spawn(hurry(a, b, cloud.caller().clone(), format!("i-{round}-{i}")))
            })
            .collect();
        for task in tasks {
            let made = task.await.unwrap();
            cloud.becomes(&made, InstanceStatus::Deleted).await;
        }
        cloud.check().await;
        let state = cloud.host.state();
        assert!(state.domains.is_empty() && state.vpcs.is_empty() && state.volumes.is_empty(), "{state:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_compared_on_postgresql_as_on_sqlite() {
    let server = postgres::Server::start();
    let (audit_interval, heartbeat_timeout) = (Duration::from_millis(300), Duration::from_secs(600));
    let settings = Settings { audit_interval, heartbeat_timeout, ..Settings::default() };
    let mut cloud = Cloud::on(Some(server.url()), settings).await;
    truth::all(&mut cloud).await;
    truth::a_wrong_counter_is_corrected(&mut cloud).await;
}
