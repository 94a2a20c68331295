//! Projects, keys and quotas.

use std::time::Duration;

use cloud_api_gateway::adapters::sql::SqlStore;
use cloud_core::{
    CoreError,
    model::{
        Amounts, ApiKey, Caller, Instance, Limited, Role, Timestamp, Volume, Vpc, held_by_instance, held_by_volume,
    },
    ports::{Query, Store, Tx},
    services::{NewApiKey, NewVolume, NewVpc, PageRequest, Services, bootstrap},
};
use cloud_domain::ProjectId;

use super::{Cloud, request};

/// A key of this role in a project, and who holds it.
pub async fn key(c: &Cloud, project: &str, name: &str, role: Role) -> (String, Caller) {
    let operator = c.services.identity.authenticate("secret", project).await.unwrap();
    let new = NewApiKey { name: name.into(), role, expires_at: None };
    let (_, secret) = c.services.api_keys.create(&operator, new).await.unwrap();
    let caller = c.services.identity.authenticate(&secret, "").await.unwrap();
    (secret, caller)
}

async fn project(c: &Cloud, name: &str) {
    c.services.projects.create(&c.caller, name, cloud_core::model::Labels::new()).await.unwrap();
}

async fn opens(services: &Services<SqlStore>, secret: &str) -> bool {
    match services.identity.authenticate(secret, "").await {
        Ok(_) => true,
        Err(CoreError::Unauthenticated(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

/// The counters of a project are what its rows say.
pub async fn counters_are_right(store: &SqlStore, project: ProjectId) {
    let of = Query { project: Some(project), ..Query::default() };
    let mut sum: Amounts = Limited::ALL.into_iter().map(|of| (of, 0)).collect();
    let mut add = |held: Amounts| held.into_iter().for_each(|(of, n)| *sum.get_mut(&of).unwrap() += n);
    store.list::<Instance>(&of).await.unwrap().iter().for_each(|row| add(held_by_instance(row)));
    store.list::<Volume>(&of).await.unwrap().iter().for_each(|row| add(held_by_volume(row)));
    let vpcs = store.list::<Vpc>(&of).await.unwrap().len() as u64;
    add(Amounts::from([(Limited::Vpcs, vpcs)]));
    assert_eq!(store.quota(project).await.unwrap().unwrap().used, sum);
}

pub async fn all(c: &Cloud) {
    a_project_begins_with_a_network_and_ends_empty(c).await;
    keys_are_made_rotated_and_ended(c).await;
    nobody_makes_more_than_they_are(c).await;
    the_last_operator_stays(c).await;
    quotas_are_exact_under_concurrency(c).await;
    quotas_are_given_back(c).await;
    a_project_that_is_deleted_gets_nothing_more(c).await;
    a_secret_that_ended_stays_ended_whatever_the_file_says(c).await;
}

async fn a_project_begins_with_a_network_and_ends_empty(c: &Cloud) {
    let projects = &c.services.projects;
    for (name, part) in [("Blue", "`name`"), ("default", "already")] {
        let error = projects.create(&c.caller, name, cloud_core::model::Labels::new()).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    project(c, "blue").await;
    let (secret, blue) = key(c, "blue", "ci", Role::Admin).await;
    let vpcs = c.services.vpcs.list(&blue, &PageRequest::default()).await.unwrap().rows;
    assert_eq!((vpcs.len(), vpcs[0].is_default, vpcs[0].meta.project_name.as_str()), (1, true, "blue"));
    let made = c.services.instances.launch(&blue, request("in-blue")).await.unwrap();
    counters_are_right(&c.store, blue.project).await;

    // Nobody else sees any of it.
    assert_eq!(projects.list(&blue, &PageRequest::default()).await.unwrap().rows.len(), 1);
    let error = projects.get(&blue, "default").await.unwrap_err();
    assert!(matches!(error, CoreError::NotFound { .. }), "{error}");
    let error = c.services.instances.get(&c.caller, &made.meta.id.to_string()).await.unwrap_err();
    assert!(matches!(error, CoreError::NotFound { .. }), "{error}");

    let error = projects.delete(&c.caller, "blue", "").await.unwrap_err().to_string();
    assert!(error.contains("it has instance `in-blue`"), "{error}");
    let mut tx = c.store.begin().await.unwrap();
    for mut volume in tx.list::<Volume>(&Query::by("instance_id", &made.id())).await.unwrap() {
        volume.meta.deleted_at = Some(Timestamp::now());
        tx.update(&mut volume).await.unwrap();
    }
    let mut row: Instance = tx.get(made.meta.id).await.unwrap().unwrap();
    row.meta.deleted_at = Some(Timestamp::now());
    tx.update(&mut row).await.unwrap();
    tx.release_capacity(c.host, row.vcpus, row.memory_mib).await.unwrap();
    tx.commit().await.unwrap();
    let error = projects.delete(&c.caller, "blue", "77").await.unwrap_err();
    assert!(matches!(error, CoreError::StaleEtag { .. }), "{error}");
    let gone = projects.delete(&c.caller, "blue", "").await.unwrap();
    assert!(gone.meta.deleted_at.is_some());
    assert!(!opens(&c.services, &secret).await, "a deleted project's keys no longer authenticate");
    for name in ["blue", &gone.meta.id.to_string()] {
        let error = c.services.identity.authenticate("secret", name).await.unwrap_err();
        assert!(matches!(error, CoreError::NotFound { .. }), "{error}");
    }
    let error = projects.delete(&c.caller, "default", "").await.unwrap_err().to_string();
    assert!(error.contains("it stays"), "{error}");
    // Its name is free again.
    project(c, "blue").await;
    projects.delete(&c.caller, "blue", "").await.unwrap();
}

async fn keys_are_made_rotated_and_ended(c: &Cloud) {
    project(c, "keys").await;
    let (_, admin) = key(c, "keys", "boss", Role::Admin).await;
    let keys = &c.services.api_keys;
    let new = |name: &str| NewApiKey { name: name.into(), role: Role::Member, expires_at: None };
    let (row, first) = keys.create(&admin, new("ci")).await.unwrap();
    assert!(first.starts_with(&row.prefix) && first.len() > 60 && row.hash != first, "{row:?}");
    assert!(matches!(keys.create(&admin, new("ci")).await, Err(CoreError::AlreadyExists { .. })));
    assert!(opens(&c.services, &first).await);
    let listed = keys.list(&admin, &PageRequest::default()).await.unwrap().rows;
    assert_eq!(listed.iter().map(|k| k.meta.name.as_str()).collect::<Vec<_>>(), ["boss", "ci"]);
    let stored = serde_json::to_string(&c.store.get::<ApiKey>(row.meta.id).await.unwrap()).unwrap();
    assert!(!stored.contains(&first), "the secret is not kept");

    // Both open during the overlap, and only the new one after it; a second rotation ends the first secret.
    let (row, second) = keys.rotate(&admin, "ci", &row.meta.etag(), Duration::from_millis(1_500)).await.unwrap();
    assert!(second.starts_with(&row.prefix) && second != first);
    assert!(opens(&c.services, &first).await && opens(&c.services, &second).await);
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    assert!(!opens(&c.services, &first).await && opens(&c.services, &second).await);
    let (_, third) = keys.rotate(&admin, "ci", "", Duration::from_secs(60)).await.unwrap();
    let (row, fourth) = keys.rotate(&admin, "ci", "", Duration::ZERO).await.unwrap();
    for (secret, lives) in [(&first, false), (&second, false), (&third, false), (&fourth, true)] {
        assert_eq!(opens(&c.services, secret).await, lives);
    }
    assert!(matches!(keys.rotate(&admin, "ci", "1", Duration::ZERO).await, Err(CoreError::StaleEtag { .. })));
    let error = keys.rotate(&admin, "ci", "", Duration::from_secs(604_801)).await.unwrap_err();
    assert!(matches!(error, CoreError::Invalid { field: "overlap_seconds", .. }), "{error}");

    let ended = keys.revoke(&admin, "ci", "").await.unwrap();
    assert!(ended.revoked_at.is_some() && !opens(&c.services, &fourth).await, "at once");
    assert_eq!(keys.get(&admin, &row.meta.id.to_string()).await.unwrap().revoked_at, ended.revoked_at);
    assert!(matches!(keys.revoke(&admin, "ci", "").await, Err(CoreError::NotFound { .. })));

    let soon = Timestamp::now().plus(Duration::from_millis(700));
    let (_, brief) = keys.create(&admin, NewApiKey { expires_at: Some(soon), ..new("brief") }).await.unwrap();
    assert!(opens(&c.services, &brief).await);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!opens(&c.services, &brief).await, "a key ends when it was said to");
    let error = keys.create(&admin, NewApiKey { expires_at: Some(soon), ..new("late") }).await.unwrap_err();
    assert!(matches!(error, CoreError::Invalid { field: "expires_at", .. }), "{error}");

    let events = c.store.events(Some(admin.project), Some("api key"), None, None, 100).await.unwrap();
    for action in ["api-key.create", "api-key.rotate", "api-key.revoke"] {
        assert!(events.iter().any(|e| e.action == action && e.outcome == "OK"), "{action}");
    }
}

async fn nobody_makes_more_than_they_are(c: &Cloud) {
    let (_, admin) = key(c, "keys", "second-boss", Role::Admin).await;
    let (secret, _) = key(c, "keys", "root", Role::Operator).await;
    let keys = &c.services.api_keys;
    let new = NewApiKey { name: "more".into(), role: Role::Operator, expires_at: None };
    assert!(matches!(keys.create(&admin, new).await, Err(CoreError::Denied(_))));
    assert!(matches!(keys.rotate(&admin, "root", "", Duration::ZERO).await, Err(CoreError::Denied(_))));
    assert!(matches!(keys.revoke(&admin, "root", "").await, Err(CoreError::Denied(_))));
    assert!(opens(&c.services, &secret).await);
    // Another project's keys are not there.
    assert!(matches!(keys.get(&admin, "admin").await, Err(CoreError::NotFound { .. })));
}

/// The key `admin` of the project `default`, made to end some day or never.
async fn admin_ends(c: &Cloud, at: Option<Timestamp>) {
    let mut tx = c.store.begin().await.unwrap();
    let mut row: ApiKey = tx.find(c.caller.project, "admin").await.unwrap().unwrap();
    row.expires_at = at;
    tx.update(&mut row).await.unwrap();
    tx.commit().await.unwrap();
}

async fn the_last_operator_stays(c: &Cloud) {
    let keys = &c.services.api_keys;
    let in_keys = c.services.identity.authenticate("secret", "keys").await.unwrap();
    key(c, "keys", "other", Role::Operator).await;
    // A key that ends some day is none to rely on, so `root` and `other` are the last two: one may go, not both, also at the same time.
    admin_ends(c, Some(Timestamp::now().plus(Duration::from_secs(3_600)))).await;
    let (one, two) = tokio::join!(keys.revoke(&in_keys, "root", ""), keys.revoke(&in_keys, "other", ""));
    let refused = one.err().or(two.err()).expect("one is refused");
    assert!(matches!(refused, CoreError::Precondition { reason: "LAST_OPERATOR_KEY", .. }), "{refused}");
    let operators = keys.list(&in_keys, &PageRequest::default()).await.unwrap().rows;
    assert_eq!(operators.iter().filter(|k| k.role == Role::Operator).count(), 1);
    let error = c.services.projects.delete(&c.caller, "keys", "").await.unwrap_err();
    assert!(matches!(error, CoreError::Precondition { reason: "LAST_OPERATOR_KEY", .. }), "{error}");
    admin_ends(c, None).await;
    c.services.projects.delete(&c.caller, "keys", "").await.unwrap();
    let error = keys.revoke(&c.caller, "admin", "").await.unwrap_err();
    assert!(matches!(error, CoreError::Precondition { reason: "LAST_OPERATOR_KEY", .. }), "{error}");
}

async fn quotas_are_exact_under_concurrency(c: &Cloud) {
    project(c, "limited").await;
    let (_, caller) = key(c, "limited", "ci", Role::Member).await;
    let quotas = &c.services.quotas;
    let seen = quotas.get(&caller, "limited").await.unwrap();
    assert_eq!((seen.limits[&Limited::Instances], seen.used[&Limited::Vpcs]), (1_000, 1), "{seen:?}");
    for (limits, part) in [
        (vec![("bananas".to_owned(), 1)], "`bananas` is not limited"),
        (vec![("vcpus".to_owned(), u64::MAX)], "too large"),
        (vec![], "at least one"),
    ] {
        let error = quotas.update(&c.caller, "limited", limits).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let limits = [("instances".to_owned(), 10), ("vcpus".to_owned(), i64::MAX as u64)];
    let seen = quotas.update(&c.caller, "limited", limits).await.unwrap();
    assert_eq!((seen.limits.get(&Limited::Instances), seen.limits.get(&Limited::Vcpus)), (Some(&10), None));

    let launches = (0..64).map(|i| {
        let (instances, caller) = (c.services.instances.clone(), caller.clone());
        tokio::spawn(async move { instances.launch(&caller, request(&format!("limited-{i}"))).await })
    });
    let (mut made, mut refused) = (0, 0);
    for launch in futures::future::join_all(launches).await {
        match launch.unwrap() {
            Ok(_) => made += 1,
            Err(CoreError::QuotaExceeded { project, shortages }) => {
                assert_eq!((project.as_str(), shortages[0].limit, shortages[0].asked), ("limited", 10, 1));
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((made, refused), (10, 54));
    counters_are_right(&c.store, caller.project).await;
}

async fn quotas_are_given_back(c: &Cloud) {
    let (_, caller) = key(c, "limited", "vol", Role::Member).await;
    let limits = [("volume_gib".to_owned(), 25), ("vpcs".to_owned(), 2)];
    c.services.quotas.update(&c.caller, "limited", limits).await.unwrap();
    let volume = |name: &str, size_gib| NewVolume { name: name.into(), size_gib, ..NewVolume::default() };
    // Ten root disks of 1 GiB are there.
    c.services.volumes.create(&caller, volume("a", 15)).await.unwrap();
    let error = c.services.volumes.create(&caller, volume("b", 1)).await.unwrap_err().to_string();
    assert!(error.contains("volume_gib: the limit is 25, 25 used, 1 asked for"), "{error}");
    assert!(c.services.volumes.get(&caller, "b").await.is_err(), "nothing of it is left");
    let vpc = |name: &str| NewVpc { name: name.into(), ..NewVpc::default() };
    c.services.vpcs.create(&caller, vpc("one")).await.unwrap();
    assert!(matches!(c.services.vpcs.create(&caller, vpc("two")).await, Err(CoreError::QuotaExceeded { .. })));
    c.services.vpcs.delete(&caller, "one", "").await.unwrap();
    c.services.vpcs.create(&caller, vpc("two")).await.unwrap();
    // What is refused for another reason claims nothing.
    assert!(c.services.volumes.create(&caller, volume("a", 1)).await.is_err());
    counters_are_right(&c.store, caller.project).await;
}

async fn a_project_that_is_deleted_gets_nothing_more(c: &Cloud) {
    project(c, "brief").await;
    let (_, caller) = key(c, "brief", "ci", Role::Member).await;
    // Either the volume is there and keeps the project, or the project is gone and no volume is made in it.
    let new = NewVolume { name: "late".into(), size_gib: 1, ..NewVolume::default() };
    let (made, gone) =
        tokio::join!(c.services.volumes.create(&caller, new), c.services.projects.delete(&c.caller, "brief", ""));
    assert_ne!(made.is_ok(), gone.is_ok(), "{made:?} {gone:?}");
    let live = Query { project: Some(caller.project), ..Query::default() };
    assert_eq!(c.store.list::<Volume>(&live).await.unwrap().len(), usize::from(made.is_ok()));
}

async fn a_secret_that_ended_stays_ended_whatever_the_file_says(c: &Cloud) {
    let keys = &c.services.api_keys;
    let (_, new) = keys.rotate(&c.caller, "admin", "", Duration::ZERO).await.unwrap();
    bootstrap(&c.store, "secret").await.unwrap();
    assert!(!opens(&c.services, "secret").await && opens(&c.services, &new).await);
    // A file that was lost and made anew is the operator's.
    bootstrap(&c.store, "another secret").await.unwrap();
    let fresh = |store: SqlStore| async move {
        let services = super::services(store);
        services.identity.authenticate("another secret", "").await.is_ok()
    };
    assert!(fresh(c.store.clone()).await);
    let operator = super::services(c.store.clone()).identity.authenticate("another secret", "").await.unwrap();
    let (_, spare) = keys
        .create(&operator, NewApiKey { name: "spare".into(), role: Role::Operator, expires_at: None })
        .await
        .unwrap();
    keys.revoke(&operator, "admin", "").await.unwrap();
    bootstrap(&c.store, "another secret").await.unwrap();
    assert!(!fresh(c.store.clone()).await && opens(&c.services, &spare).await);
    bootstrap(&c.store, "a third secret").await.unwrap();
    assert!(super::services(c.store.clone()).identity.authenticate("a third secret", "").await.is_ok());
}
