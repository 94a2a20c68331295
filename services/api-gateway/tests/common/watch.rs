//! Watching: complete, in order, resumable, and only what a caller may see.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cloud_core::{
    CoreError,
    model::{ApiKey, Caller, Image, Labels, Meta, Project, Role, Timestamp, Visibility, Volume},
    ports::{Store, Tx},
    services::{
        ChangeKind::{self, Created, Current, Deleted, Synced, Updated},
        EventFilter, HeartbeatInput, HostState, KeyHash, NewSubnet, NewVolume, NewVpc, Told, Watch, WatchRequest,
    },
};
use cloud_domain::ApiKeyId;
use futures::StreamExt;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Cloud, request};

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn all(c: &Cloud) {
    // A key of its own: a watch lives as long as the secret that opened it, and others rotate the first one.
    let project = c.services.projects.get(&c.caller, "default").await.unwrap();
    let secret = key(c, "watcher", Role::Operator, &project, None).await;
    let caller = c.services.identity.authenticate(&secret, "").await.unwrap();
    let (store, services, registry) = (c.store.clone(), c.services.clone(), Arc::clone(&c.registry));
    let c = &Cloud { store, services, registry, caller, host: c.host };
    every_kind_is_told(c).await;
    whoever_watches_believes_what_is_true(c).await;
    tokens_of_other_times_are_refused(c).await;
    only_what_a_caller_may_see(c).await;
    a_host_s_agents_are_told(c).await;
    a_watch_ends_with_its_key(c).await;
    a_watch_ends_with_the_server(c).await;
}

async fn next<T>(watch: &mut Watch<T>) -> Result<Told<T>, CoreError> {
    timeout(PATIENCE, watch.next()).await.expect("nothing is told").expect("it goes on until an error")
}

/// Reads the current state; answers with it and the token.
async fn synced<T>(watch: &mut Watch<T>) -> (Vec<T>, String) {
    let mut rows = Vec::new();
    loop {
        let told = next(watch).await.unwrap();
        match told.kind {
            Current => rows.extend(told.row),
            Synced => return (rows, told.resume_token),
            other => panic!("{other:?} within the current state"),
        }
    }
}

/// Waits for a change that is the right one.
async fn until<T: std::fmt::Debug>(watch: &mut Watch<T>, right: impl Fn(ChangeKind, &T) -> bool) -> T {
    loop {
        let told = next(watch).await.unwrap();
        let row = told.row.expect("a change has a row");
        if right(told.kind, &row) {
            return row;
        }
    }
}

fn all_of() -> WatchRequest {
    WatchRequest::default()
}

async fn every_kind_is_told(c: &Cloud) {
    let (watch, caller, all) = (&c.services.watch, &c.caller, all_of());
    let mut instances = watch.instances(caller, &all).await.unwrap();
    let mut volumes = watch.volumes(caller, &all).await.unwrap();
    let mut ports = watch.ports(caller, &all).await.unwrap();
    let mut images = watch.images(caller, &all).await.unwrap();
    let mut types = watch.instance_types(caller, &all).await.unwrap();
    let mut projects = watch.projects(caller, &all).await.unwrap();
    let mut hosts = watch.hosts(caller, &all).await.unwrap();
    let mut vpcs = watch.vpcs(caller, &all).await.unwrap();
    let mut subnets = watch.subnets(caller, "default", &all).await.unwrap();
    let mut events = watch.events(caller, EventFilter::default(), &all).await.unwrap();
    synced(&mut instances).await;
    synced(&mut volumes).await;
    synced(&mut ports).await;
    assert!(synced(&mut images).await.0.iter().any(|i| i.meta.name == "tiny"));
    assert_eq!(synced(&mut types).await.0.len(), 5);
    assert!(synced(&mut projects).await.0.iter().any(|p| p.meta.name == "default"));
    let hosts_now = synced(&mut hosts).await.0;
    assert_eq!((hosts_now.len(), hosts_now[0].state), (1, HostState::Up));
    synced(&mut vpcs).await;
    assert_eq!(synced(&mut subnets).await.0.len(), 1);
    assert_eq!(synced(&mut events).await.0.len(), 0, "events begin now");

    // One transaction writes rows of three kinds and an event.
    let made = c.services.instances.launch(caller, request("watched")).await.unwrap();
    let told = until(&mut instances, |kind, _| kind == Created).await;
    assert_eq!((told.meta.id, told.meta.name.as_str()), (made.meta.id, "watched"));
    let volume = until(&mut volumes, |kind, v| kind == Created && v.instance == Some(made.id())).await;
    assert!(volume.root);
    until(&mut ports, |kind, p| kind == Created && p.instance == made.id()).await;
    until(&mut events, |kind, e| kind == Created && e.action == "instance.launch").await;

    let vpc = c.services.vpcs.create(caller, NewVpc { name: "seen".into(), ..NewVpc::default() }).await.unwrap();
    until(&mut vpcs, |kind, v| kind == Created && v.meta.id == vpc.meta.id).await;
    let new =
        NewSubnet { vpc: "default".into(), name: "seen".into(), cidr: "10.0.200.0/24".into(), ..NewSubnet::default() };
    let subnet = c.services.vpcs.create_subnet(caller, new).await.unwrap();
    until(&mut subnets, |kind, s| kind == Created && s.meta.id == subnet.meta.id).await;
    c.services.vpcs.delete_subnet(caller, "default", "seen", "").await.unwrap();
    until(&mut subnets, |kind, s| kind == Deleted && s.meta.id == subnet.meta.id).await;
    c.services.vpcs.delete(caller, "seen", "").await.unwrap();
    until(&mut vpcs, |kind, v| kind == Deleted && v.meta.id == vpc.meta.id).await;

    // One resource alone, by name; by id also once it is deleted.
    let only = WatchRequest { id: "watched".into(), ..all_of() };
    let mut one = watch.instances(caller, &only).await.unwrap();
    assert_eq!(synced(&mut one).await.0.len(), 1);
    c.services.instances.launch(caller, request("watched-too")).await.unwrap();
    for name in ["watched", "watched-too"] {
        c.services.instances.delete(caller, name, "").await.unwrap();
    }
    let deleting = until(&mut one, |kind, _| kind == Updated).await;
    assert_eq!((deleting.meta.id, deleting.status.as_str()), (made.meta.id, "DELETING"));
    for name in ["watched", "watched-too"] {
        gone(c, name).await;
    }
    assert_eq!(until(&mut one, |kind, _| kind == Deleted).await.meta.id, made.meta.id);
    let only = WatchRequest { id: made.meta.id.to_string(), ..all_of() };
    let mut one = watch.instances(caller, &only).await.unwrap();
    assert_eq!(next(&mut one).await.unwrap().kind, Deleted);
    let missing = WatchRequest { id: "nobody".into(), ..all_of() };
    assert!(matches!(watch.instances(caller, &missing).await, Err(CoreError::NotFound { .. })));
}

/// Ends an instance, as its reconciler would.
async fn gone(c: &Cloud, name: &str) {
    let mut row = c.services.instances.get(&c.caller, name).await.unwrap();
    let mut tx = c.store.begin().await.unwrap();
    for mut volume in tx.list::<Volume>(&cloud_core::ports::Query::by("instance_id", &row.id())).await.unwrap() {
        volume.meta.deleted_at = Some(Timestamp::now());
        tx.update(&mut volume).await.unwrap();
    }
    for mut port in
        tx.list::<cloud_core::model::Port>(&cloud_core::ports::Query::by("instance_id", &row.id())).await.unwrap()
    {
        port.meta.deleted_at = Some(Timestamp::now());
        tx.update(&mut port).await.unwrap();
    }
    row.meta.deleted_at = Some(Timestamp::now());
    tx.update(&mut row).await.unwrap();
    tx.release_capacity(c.host, row.vcpus, row.memory_mib).await.unwrap();
    tx.commit().await.unwrap();
}

/// Writers write, watchers come and go and resume: in the end all of them know the same.
async fn whoever_watches_believes_what_is_true(c: &Cloud) {
    let name = |writer: u32, i: u32| format!("belief-{writer}-{i}");
    let writers = (0..4).map(|writer| {
        let (volumes, caller) = (c.services.volumes.clone(), c.caller.clone());
        tokio::spawn(async move {
            for i in 0..25 {
                let new = NewVolume { name: name(writer, i), size_gib: 1, ..NewVolume::default() };
                let made = volumes.create(&caller, new).await.unwrap();
                if i % 2 == 0 {
                    volumes.delete(&caller, &made.meta.id.to_string(), "").await.unwrap();
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let watchers = (0..6).map(|n: usize| {
        let (watch, caller) = (c.services.watch.clone(), c.caller.clone());
        tokio::spawn(async move {
            let mut known: HashMap<Uuid, Volume> = HashMap::new();
            let (mut token, mut quiet) = (String::new(), false);
            while !quiet {
                let request = WatchRequest { resume_token: token.clone(), ..WatchRequest::default() };
                let mut volumes = watch.volumes(&caller, &request).await.unwrap();
                // Some stay, some come again and again.
                for _ in 0..[3, 10, usize::MAX][n % 3] {
                    let Ok(told) = timeout(Duration::from_secs(3), volumes.next()).await else {
                        quiet = true;
                        break;
                    };
                    let told = told.unwrap().unwrap();
                    token = told.resume_token;
                    if let Some(row) = told.row {
                        let before = known.insert(row.meta.id, row.clone());
                        assert!(before.is_none_or(|b| b.meta.version <= row.meta.version), "from before: {row:?}");
                    }
                }
                if token.is_empty() {
                    token = loop {
                        let told = volumes.next().await.unwrap().unwrap();
                        known.extend(told.row.map(|row| (row.meta.id, row)));
                        if told.kind == Synced {
                            break told.resume_token;
                        }
                    };
                }
            }
            known
        })
    });
    let watchers: Vec<_> = watchers.collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for watcher in watchers {
        let known = watcher.await.unwrap();
        for (writer, i) in (0..4).flat_map(|w| (0..25).map(move |i| (w, i))) {
            let told = known.values().find(|v| v.meta.name == name(writer, i));
            let told = told.unwrap_or_else(|| panic!("{} was never told", name(writer, i)));
            let row: Volume = c.store.get(told.meta.id).await.unwrap().unwrap();
            assert_eq!(*told, row);
        }
    }
}

async fn tokens_of_other_times_are_refused(c: &Cloud) {
    let (_, epoch) = c.store.identity();
    let now = c.store.revision().await.unwrap();
    let open = async |token: String| {
        let request = WatchRequest { resume_token: token, ..all_of() };
        c.services.watch.volumes(&c.caller, &request).await.err()
    };
    assert!(open(format!("{epoch}.{now}")).await.is_none());
    for token in [format!("{}.{now}", epoch + 1), format!("{epoch}.{}", now + 1_000_000)] {
        let error = open(token.clone()).await;
        assert!(matches!(error, Some(CoreError::CannotResume(_))), "{token}: {error:?}");
    }
    assert!(matches!(open("rubbish".into()).await, Some(CoreError::Invalid { field: "resume_token", .. })));
}

async fn only_what_a_caller_may_see(c: &Cloud) {
    let project = c.services.projects.create(&c.caller, "strangers", Labels::new()).await.unwrap();
    let key = key(c, "stranger", Role::Member, &project, None).await;
    let stranger = c.services.identity.authenticate(&key, "").await.unwrap();
    let watch = &c.services.watch;
    assert!(matches!(watch.hosts(&stranger, &all_of()).await, Err(CoreError::Denied(_))));
    let by_id = |id: Uuid| WatchRequest { id: id.to_string(), ..all_of() };
    let theirs = c.services.volumes.list(&c.caller, &Default::default()).await.unwrap().rows.remove(0);
    assert!(matches!(watch.volumes(&stranger, &by_id(theirs.meta.id)).await, Err(CoreError::NotFound { .. })));
    let vpc = c.services.vpcs.get(&c.caller, "default").await.unwrap().meta.id.to_string();
    assert!(matches!(watch.subnets(&stranger, &vpc, &all_of()).await, Err(CoreError::NotFound { .. })));

    let mut volumes = watch.volumes(&stranger, &all_of()).await.unwrap();
    let mut images = watch.images(&stranger, &all_of()).await.unwrap();
    let mut projects = watch.projects(&stranger, &all_of()).await.unwrap();
    let mut events = watch.events(&stranger, EventFilter::default(), &all_of()).await.unwrap();
    assert!(synced(&mut volumes).await.0.is_empty());
    let seen: Vec<_> = synced(&mut images).await.0.into_iter().map(|i| i.meta.name).collect();
    assert_eq!(seen, ["tiny"], "the public one");
    assert_eq!(synced(&mut projects).await.0.len(), 1);
    synced(&mut events).await;
    // What others do is not told; what the stranger does is.
    let new = |name: &str| NewVolume { name: name.into(), size_gib: 1, ..NewVolume::default() };
    c.services.volumes.create(&c.caller, new("not-for-strangers")).await.unwrap();
    image(c, "private", Visibility::Private).await;
    image(c, "for-all", Visibility::Public).await;
    c.services.volumes.create(&stranger, new("strange")).await.unwrap();
    let told = next(&mut volumes).await.unwrap().row.unwrap();
    assert_eq!((told.meta.name.as_str(), told.meta.project), ("strange", stranger.project));
    assert_eq!(next(&mut images).await.unwrap().row.unwrap().meta.name, "for-all");
    let event = next(&mut events).await.unwrap().row.unwrap();
    assert_eq!((event.action.as_str(), event.name.as_str()), ("volume.create", "strange"));
}

async fn image(c: &Cloud, name: &str, visibility: Visibility) {
    let mut row: Image = c.services.images.get(&c.caller, "tiny").await.unwrap();
    row.meta = Meta::new(Uuid::new_v4(), c.caller.project, "default", name, Labels::new());
    row.visibility = visibility;
    let mut tx = c.store.begin().await.unwrap();
    tx.insert(&row).await.unwrap();
    tx.commit().await.unwrap();
}

/// Makes a key.
async fn key(c: &Cloud, name: &str, role: Role, project: &Project, expires_at: Option<Timestamp>) -> String {
    let secret = format!("secret of {name}");
    let mut tx = c.store.begin().await.unwrap();
    let id = *ApiKeyId::random().as_uuid();
    let row = ApiKey {
        meta: Meta::new(id, project.meta.id.into(), &project.meta.name, name, Labels::new()),
        prefix: "secret of ".into(),
        hash: KeyHash::of(&secret),
        role,
        expires_at,
        revoked_at: None,
        old: None,
        retired: Vec::new(),
    };
    tx.insert(&row).await.unwrap();
    tx.commit().await.unwrap();
    secret
}

/// What is only in memory: UPDATED, with the token of the store.
async fn a_host_s_agents_are_told(c: &Cloud) {
    let mut hosts = c.services.watch.hosts(&c.caller, &all_of()).await.unwrap();
    let row = synced(&mut hosts).await.0.remove(0).row;
    let (role, agent) = row.agents.iter().next().unwrap();
    let heartbeat = |error: &str| HeartbeatInput {
        host: c.host,
        role: *role,
        session: agent.session,
        capacity: row.capacity.clone(),
        backend_error: error.into(),
    };
    assert!(!c.services.hosts.heartbeat(heartbeat("libvirt is down")).await.unwrap());
    let told = until(&mut hosts, |kind, host| kind == Updated && host.state == HostState::Unreachable).await;
    assert!(told.reason.contains("libvirt is down"), "{}", told.reason);
    assert!(!c.services.hosts.heartbeat(heartbeat("")).await.unwrap());
    until(&mut hosts, |kind, host| kind == Updated && host.state == HostState::Up).await;
}

async fn a_watch_ends_with_its_key(c: &Cloud) {
    let project: Project = c.services.projects.get(&c.caller, "default").await.unwrap();
    let open = async |caller: &Caller| {
        let mut volumes = c.services.watch.volumes(caller, &all_of()).await.unwrap();
        synced(&mut volumes).await;
        volumes
    };
    let ends = async |mut volumes: Watch<Volume>| {
        let begun = Instant::now();
        match timeout(PATIENCE, volumes.next()).await.expect("the watch goes on without its key") {
            Some(Err(CoreError::Unauthenticated(_))) => {}
            other => panic!("{other:?}"),
        }
        assert!(volumes.next().await.is_none(), "an error is the end");
        begun.elapsed()
    };
    let secret = key(c, "revoked", Role::Member, &project, None).await;
    let caller = c.services.identity.authenticate(&secret, "").await.unwrap();
    let volumes = open(&caller).await;
    let mut row: ApiKey = c.store.get(*caller.key.as_uuid()).await.unwrap().unwrap();
    let mut tx = c.store.begin().await.unwrap();
    row.revoked_at = Some(Timestamp::now());
    tx.update(&mut row).await.unwrap();
    tx.commit().await.unwrap();
    assert!(ends(volumes).await < Duration::from_secs(5));
    assert!(matches!(c.services.watch.volumes(&caller, &all_of()).await, Err(CoreError::Unauthenticated(_))));

    let secret = key(c, "expires", Role::Member, &project, Some(Timestamp::now().plus(Duration::from_secs(2)))).await;
    let caller = c.services.identity.authenticate(&secret, "").await.unwrap();
    let volumes = open(&caller).await;
    assert!(ends(volumes).await < Duration::from_secs(6));
}

async fn a_watch_ends_with_the_server(c: &Cloud) {
    let shutdown = CancellationToken::new();
    let request = WatchRequest { shutdown: shutdown.clone(), ..all_of() };
    let mut volumes = c.services.watch.volumes(&c.caller, &request).await.unwrap();
    synced(&mut volumes).await;
    assert_eq!(c.services.watch.open()["volumes"], 1);
    shutdown.cancel();
    assert!(matches!(next(&mut volumes).await, Err(CoreError::Unavailable { .. })));
    drop(volumes);
    assert_eq!(c.services.watch.open()["volumes"], 0);
}
