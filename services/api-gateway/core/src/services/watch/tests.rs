//! Hubs and feeds over a store that can be made slow, away and wrong.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cloud_domain::ApiKeyId;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    sync::watch,
    task::yield_now,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    ChangeKind::{self, Created, Current, Deleted, Synced, Updated},
    Told,
    feed::{Scope, Tap},
    hub::Hub,
    keys::Places,
    source::Source,
};
use crate::{
    CoreError,
    model::Timestamp,
    ports::{Changed, Changes, Cursor, Key, Query, StoreError},
};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Thing {
    id: Uuid,
    version: u64,
    mine: bool,
    deleted: bool,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<Uuid, Changed<Thing>>,
    revision: u64,
    purged: u64,
    unwritten: Vec<Uuid>,
}

/// A store of things.
struct Store {
    state: Mutex<State>,
    commits: watch::Sender<u64>,
    looks: AtomicUsize,
    away: AtomicBool,
    panics: AtomicBool,
    /// Whether commits are told.
    silent: AtomicBool,
}

#[derive(Clone)]
struct Fake(Arc<Store>);

impl Fake {
    fn new() -> Self {
        Self(Arc::new(Store {
            state: Mutex::default(),
            commits: watch::Sender::new(0),
            looks: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            silent: AtomicBool::new(false),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// One transaction.
    fn write(&self, things: &[(u128, bool)]) -> u64 {
        let mut state = self.lock();
        state.revision += 1;
        let revision = state.revision;
        for (id, deleted) in things {
            let id = Uuid::from_u128(*id);
            let new = Thing { id, version: 0, mine: id.as_u128() < 1000, deleted: false };
            let row = state.rows.entry(id).or_insert(Changed { row: new, revision, created: revision });
            row.revision = revision;
            row.row.version += 1;
            // What is deleted stays so.
            row.row.deleted |= *deleted;
        }
        drop(state);
        if !self.0.silent.load(Ordering::SeqCst) {
            self.0.commits.send_modify(|n| *n += 1);
        }
        revision
    }

    fn hub(&self, buffer: usize) -> Arc<Hub<Self, Thing>> {
        Arc::new(Hub::new(self.clone(), self.0.commits.subscribe(), buffer))
    }

    async fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
        if self.0.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("away".into()));
        }
        // Others get between the read and its use.
        yield_now().await;
        Ok(answer)
    }
}

impl Source for Fake {
    type Row = Thing;

    async fn revision(&self) -> Result<u64, StoreError> {
        let revision = self.lock().revision;
        self.answer(revision).await
    }

    async fn purged(&self) -> Result<u64, StoreError> {
        let purged = self.lock().purged;
        self.answer(purged).await
    }

    async fn after(&self, after: u64) -> Result<Changes<Thing>, StoreError> {
        self.0.looks.fetch_add(1, Ordering::SeqCst);
        assert!(!self.0.panics.swap(false, Ordering::SeqCst), "as told");
        yield_now().await;
        let found = {
            let state = self.lock();
            let mut rows: Vec<_> = state.rows.values().filter(|c| c.revision > after).cloned().collect();
            rows.sort_by_key(|c| c.revision);
            let mut upto = state.revision;
            // Two transactions at a time.
            let mut revisions: Vec<_> = rows.iter().map(|c| c.revision).collect();
            revisions.dedup();
            if revisions.len() > 2 {
                upto = revisions[1];
                rows.retain(|c| c.revision <= upto);
            }
            Changes { rows, upto }
        };
        self.answer(found).await
    }

    async fn current(&self, query: &Query) -> Result<Vec<Thing>, StoreError> {
        yield_now().await;
        let rows = {
            let state = self.lock();
            let after = query.after.as_ref().map(|c| c.id);
            let rows = state.rows.values().map(|c| &c.row).filter(|t| !t.deleted && Some(t.id) > after);
            rows.take(query.limit.unwrap() as usize).cloned().collect()
        };
        self.answer(rows).await
    }

    async fn unwritten(&self) -> Result<Vec<Thing>, StoreError> {
        let mut state = self.lock();
        let ids = std::mem::take(&mut state.unwritten);
        Ok(ids.into_iter().map(|id| state.rows[&id].row.clone()).collect())
    }

    fn place(row: &Thing) -> (Cursor, u64) {
        (Cursor { key: Key::CreatedAt(Timestamp(0)), id: row.id }, row.version)
    }

    fn is_deleted(row: &Thing) -> bool {
        row.deleted
    }
}

fn mine() -> Scope<Thing> {
    Scope { query: Query::default(), sees: Box::new(|thing: &Thing| thing.mine) }
}

async fn open(hub: &Arc<Hub<Fake, Thing>>, token: &str) -> Result<Tap<Fake>, CoreError> {
    Tap::open(Arc::clone(hub), 7, mine(), token).await
}

/// What is told within a while: kind, id and token.
async fn told(tap: &mut Tap<Fake>, count: usize) -> Vec<(ChangeKind, u128, String)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let told = timeout(Duration::from_secs(5), tap.next()).await.expect("nothing is told").unwrap();
        all.push((told.kind, told.row.map_or(0, |t| t.id.as_u128()), told.resume_token));
    }
    all
}

async fn is_silent(tap: &mut Tap<Fake>) -> bool {
    timeout(Duration::from_secs(5), tap.next()).await.is_err()
}

fn as_told(expected: &[(ChangeKind, u128, &str)]) -> Vec<(ChangeKind, u128, String)> {
    expected.iter().map(|(kind, id, token)| (*kind, *id, (*token).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn the_current_state_then_changes_in_their_order() {
    let fake = Fake::new();
    fake.write(&[(1, false), (2, false), (1001, false)]);
    fake.write(&[(3, false)]);
    let hub = fake.hub(16);
    let mut tap = open(&hub, "").await.unwrap();
    let current = told(&mut tap, 4).await;
    assert_eq!(current, as_told(&[(Current, 1, ""), (Current, 2, ""), (Current, 3, ""), (Synced, 0, "7.2")]));
    assert!(is_silent(&mut tap).await);
    fake.write(&[(4, false)]);
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Created, 4, "7.3")]));
    fake.write(&[(1002, false)]);
    fake.write(&[(1, false)]);
    fake.write(&[(1, true), (5, false)]);
    fake.write(&[(5, false)]);
    // Together: 1 once, in its latest state; 5 was made meanwhile, however often it was written.
    assert_eq!(told(&mut tap, 2).await, as_told(&[(Deleted, 1, "7.6"), (Created, 5, "7.7")]));
    fake.write(&[(5, false)]);
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Updated, 5, "7.8")]));
    fake.write(&[(6, false)]);
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Created, 6, "7.9")]));
    sleep(Duration::from_secs(200)).await;
    for token in ["7.10", "7.11"] {
        fake.write(&[(6, false)]);
        assert_eq!(told(&mut tap, 1).await, as_told(&[(Updated, 6, token)]), "also long after it was made");
    }
    assert!(is_silent(&mut tap).await);
}

#[tokio::test(start_paused = true)]
async fn a_token_continues_after_what_was_told() {
    let fake = Fake::new();
    let hub = fake.hub(16);
    for id in 1..=4 {
        fake.write(&[(id, false)]);
    }
    fake.write(&[(5, false), (6, false), (1001, false)]);
    let mut tap = open(&hub, "7.2").await.unwrap();
    let expected = [(Created, 3, "7.3"), (Created, 4, "7.4"), (Created, 5, "7.4"), (Created, 6, "7.5")];
    assert_eq!(told(&mut tap, 4).await, as_told(&expected));
    assert!(is_silent(&mut tap).await);
    // In the middle of a transaction: all of it again.
    let mut tap = open(&hub, "7.4").await.unwrap();
    assert_eq!(told(&mut tap, 2).await, as_told(&[(Created, 5, "7.4"), (Created, 6, "7.5")]));
    let mut tap = open(&hub, "7.5").await.unwrap();
    assert!(is_silent(&mut tap).await);
    fake.write(&[(3, true)]);
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Deleted, 3, "7.6")]));
    let refused = |token: &'static str| {
        let hub = Arc::clone(&hub);
        async move { open(&hub, token).await.err().expect("is refused") }
    };
    assert!(matches!(refused("7.7").await, CoreError::CannotResume(_)), "the future");
    assert!(matches!(refused("8.1").await, CoreError::CannotResume(_)), "another database");
    assert!(matches!(refused("rubbish").await, CoreError::Invalid { field: "resume_token", .. }));
    fake.lock().purged = 3;
    assert!(matches!(refused("7.2").await, CoreError::CannotResume(_)), "purged");
    assert!(open(&hub, "7.3").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_while_it_is_read_is_not_passed_over() {
    let fake = Fake::new();
    let hub = fake.hub(16);
    for id in 1..=6 {
        fake.write(&[(id, false)]);
    }
    let mut tap = open(&hub, "7.0").await.unwrap();
    assert_eq!(told(&mut tap, 2).await.len(), 2);
    fake.lock().purged = 4;
    assert!(matches!(tap.next().await, Err(CoreError::CannotResume(_))));
}

/// What a watcher believes.
#[derive(Default)]
struct Belief(HashMap<Uuid, Thing>);

impl Belief {
    fn hear(&mut self, told: &Told<Thing>, resumed: bool) {
        let Some(thing) = &told.row else { return };
        let before = self.0.get(&thing.id).map_or(0, |t| t.version);
        assert!(thing.version >= before, "{thing:?} after version {before}: from before");
        // A token does not say what could not be told before it because it changed again and again.
        assert!(told.kind != Updated || before > 0 || resumed, "{thing:?} was changed, and was never there");
        self.0.insert(thing.id, thing.clone());
    }

    fn is(&self, fake: &Fake) -> bool {
        fake.lock().rows.values().filter(|c| c.row.mine).all(|c| match self.0.get(&c.row.id) {
            Some(thing) => *thing == c.row,
            None => c.row.deleted,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_comes_from_before_whenever_one_begins() {
    for seed in 0..30 {
        let fake = Fake::new();
        fake.0.silent.store(seed % 3 == 0, Ordering::SeqCst);
        for id in 0..300 {
            fake.write(&[(id, false)]);
        }
        let hub = fake.hub(4096);
        let writer = tokio::spawn({
            let (fake, mut random) = (fake.clone(), StdRng::seed_from_u64(seed));
            async move {
                for _ in 0..400 {
                    let id = random.random_range(0..320);
                    fake.write(&[(id, random.random_bool(0.1)), (id + 1000, false)]);
                    match random.random_range(0..10) {
                        0 => sleep(Duration::from_millis(random.random_range(0..40))).await,
                        1..4 => yield_now().await,
                        _ => {}
                    }
                }
            }
        });
        let watchers = (0..8).map(|n| {
            let (fake, hub, mut random) = (fake.clone(), Arc::clone(&hub), StdRng::seed_from_u64(seed * 100 + n));
            tokio::spawn(async move {
                let (mut belief, mut token, mut quiet) = (Belief::default(), String::new(), 0);
                sleep(Duration::from_millis(random.random_range(0..300))).await;
                while quiet < 2 {
                    let (mut tap, resumed) = (open(&hub, &token).await.unwrap(), !token.is_empty());
                    for _ in 0..random.random_range(1..500) {
                        let Ok(told) = timeout(Duration::from_secs(10), tap.next()).await else {
                            quiet += 1;
                            break;
                        };
                        let told = told.unwrap();
                        belief.hear(&told, resumed);
                        token = told.resume_token;
                    }
                    if token.is_empty() {
                        // It left within the current state, and begins anew.
                        belief = Belief::default();
                    }
                }
                assert!(belief.is(&fake), "seed {seed}: a watcher believes something else");
            })
        });
        for watcher in watchers.collect::<Vec<_>>() {
            watcher.await.unwrap();
        }
        writer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_too_slow_is_told_and_resumes() {
    let fake = Fake::new();
    let hub = fake.hub(4);
    let mut slow = open(&hub, "").await.unwrap();
    let mut quick = open(&hub, "").await.unwrap();
    assert_eq!(told(&mut slow, 1).await, as_told(&[(Synced, 0, "7.0")]));
    assert_eq!(told(&mut quick, 1).await, as_told(&[(Synced, 0, "7.0")]));
    fake.write(&[(1, false)]);
    let first = told(&mut slow, 1).await;
    assert_eq!(told(&mut quick, 1).await, first);
    for id in 2..=10 {
        fake.write(&[(id, false)]);
        assert_eq!(told(&mut quick, 1).await[0].1, id);
    }
    assert!(matches!(slow.next().await, Err(CoreError::TooSlow)));
    let mut again = open(&hub, &first[0].2).await.unwrap();
    assert_eq!(told(&mut again, 9).await.iter().map(|t| t.1).collect::<Vec<_>>(), (2..=10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_hub_lives_while_somebody_watches_and_is_cheap() {
    let fake = Fake::new();
    let hub = fake.hub(16);
    let mut taps = Vec::new();
    for _ in 0..1000 {
        let mut tap = open(&hub, "").await.unwrap();
        told(&mut tap, 1).await;
        // Joins.
        assert!(timeout(Duration::from_millis(1), tap.next()).await.is_err());
        taps.push(tap);
    }
    let before = fake.0.looks.load(Ordering::SeqCst);
    sleep(Duration::from_secs(10)).await;
    let looks = fake.0.looks.load(Ordering::SeqCst) - before;
    assert!((8..=12).contains(&looks), "a thousand idle watchers: {looks} looks in 10 s");
    taps.clear();
    sleep(Duration::from_secs(3)).await;
    let before = fake.0.looks.load(Ordering::SeqCst);
    fake.write(&[(1, false)]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(fake.0.looks.load(Ordering::SeqCst), before, "nobody watches, nobody looks");
    let mut tap = open(&hub, "7.0").await.unwrap();
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Created, 1, "7.1")]));
    fake.write(&[(2, false)]);
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Created, 2, "7.2")]));
}

#[tokio::test(start_paused = true)]
async fn commits_are_told_at_once_and_looked_at_in_batches() {
    let fake = Fake::new();
    let hub = fake.hub(64);
    let mut tap = open(&hub, "").await.unwrap();
    told(&mut tap, 1).await;
    assert!(is_silent(&mut tap).await);
    let before = tokio::time::Instant::now();
    fake.write(&[(1, false)]);
    told(&mut tap, 1).await;
    assert!(before.elapsed() < Duration::from_millis(20), "{:?}", before.elapsed());
    let looks = fake.0.looks.load(Ordering::SeqCst);
    for _ in 0..1000 {
        fake.write(&[(1, false)]);
        sleep(Duration::from_millis(1)).await;
    }
    let looks = fake.0.looks.load(Ordering::SeqCst) - looks;
    assert!(looks < 200, "{looks} looks at 1000 commits in a second");
}

#[tokio::test(start_paused = true)]
async fn an_absent_store_and_a_broken_hub_lose_nothing() {
    let fake = Fake::new();
    let hub = fake.hub(16);
    let mut tap = open(&hub, "").await.unwrap();
    told(&mut tap, 1).await;
    assert!(is_silent(&mut tap).await);
    fake.0.away.store(true, Ordering::SeqCst);
    fake.write(&[(1, false)]);
    assert!(is_silent(&mut tap).await);
    assert!(matches!(open(&hub, "").await, Err(CoreError::Unavailable { .. })));
    fake.0.away.store(false, Ordering::SeqCst);
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Created, 1, "7.1")]));
    fake.0.panics.store(true, Ordering::SeqCst);
    fake.write(&[(2, false)]);
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Created, 2, "7.2")]));
    fake.write(&[(3, false)]);
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Created, 3, "7.3")]));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_in_the_store_is_told_too() {
    let fake = Fake::new();
    fake.write(&[(1, false), (1001, false)]);
    let hub = fake.hub(16);
    fake.lock().unwritten.push(Uuid::from_u128(1));
    let mut tap = open(&hub, "").await.unwrap();
    told(&mut tap, 2).await;
    assert!(is_silent(&mut tap).await, "how it stood before is no change");
    fake.lock().unwritten.extend([Uuid::from_u128(1001), Uuid::from_u128(1)]);
    assert_eq!(told(&mut tap, 1).await, as_told(&[(Updated, 1, "7.1")]));
}

#[test]
fn a_key_has_so_many_places() {
    let places = Arc::new(Places::new(2));
    let (key, other) = (ApiKeyId::random(), ApiKeyId::random());
    let first = places.take(key, "instances").unwrap();
    let _second = places.take(key, "hosts").unwrap();
    let error = places.take(key, "instances").err().unwrap();
    assert!(matches!(error, CoreError::Exhausted { reason: "WATCHES", .. }), "{error}");
    assert!(places.take(other, "instances").is_ok());
    assert_eq!(places.open(), BTreeMap::from([("hosts", 1), ("instances", 1)]));
    drop(first);
    assert!(places.take(key, "instances").is_ok());
    assert_eq!(places.open()["instances"], 0);
}
