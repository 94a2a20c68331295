//! Placement: on which host an instance starts.
//!
//! # Theory of operation
//!
//! It happens inside the launch's transaction, in three steps.
//!
//! 1. **Filters** look at what is in memory of every host ([`HostRegistry::each`]): no row is read. Each host passes or has one reason why not.
//!    Where many pass, that so many did is remembered for a moment ([`Recent`]); who is chosen is looked at again.
//! 2. **Room** is a question to the store: of the hosts that passed, those that have enough unpromised, the emptiest (or the fullest) first. A
//!    few ([`FIRST`]) are looked at before all are. Instances are never looked at; which hosts have some of an anti-affinity group is an index.
//! 3. **The best** of them by score is claimed. The claim is exact: it takes the host's row, and its room and mode are part of the statement.
//!    What was in memory is compared with the row then; where they differ the next one is tried.
//!
//! What is in memory may be a second old where several gateways share a database. It never places an instance wrongly, because of the third
//! step; so that it refuses none wrongly either, all rows are read before a launch is refused.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cloud_domain::{HostId, ImageId};
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::{Facts, HostRegistry, HostState};
use crate::{
    CoreError,
    model::{Caller, DEFAULT_POOL, Host, Image, InstanceType, Labels, Placed, PlacedCandidate, Volume},
    ports::{Fill, Query, Store, Tx},
};

/// Hosts with room that are looked at first.
const FIRST: u32 = 16;
/// Hosts that are asked for by their ids, where no more than these pass the filters.
const WINDOW: usize = 64;
/// How long what the filters came to is taken for what they would come to.
const RECENT: Duration = Duration::from_millis(100);
/// All of them.
const ALL: u32 = 100_000;
/// Hosts that a refusal lists.
const LISTED: usize = 20;
/// Hosts of each sort that are remembered with an instance.
const REMEMBERED: usize = 5;
/// What it costs, in thousandths of a host's memory, that the image has to be sent there first.
const SENDING: u64 = 5;
/// And that an instance of the group is there already: more than anything else.
const CROWDED: u64 = 1_000_000;
/// Launches at once through several gateways take one of the hosts that are within this of the best, so that not all wait for one row.
const ALIKE: u64 = 100;
/// And of so many.
const SHUFFLED: usize = 16;

/// How hosts that pass every filter are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// The emptiest first.
    #[default]
    Spread,
    /// The fullest first.
    Pack,
}

impl Strategy {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Pack => "pack",
        }
    }
}

/// Where a caller wants an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Labels that the host must have.
    pub host_labels: Labels,
    /// Instances of one group go to different hosts; empty: it is in none.
    pub group: String,
    /// Whether they must.
    pub group_required: bool,
    /// The host, by id or name (operators); empty: any.
    pub host: String,
    /// What guests must run under, `kvm` or `tcg`; empty: either.
    pub accelerator: String,
}

impl Placement {
    /// Refuses what can never be.
    pub(super) fn check(&self, caller: &Caller) -> Result<(), CoreError> {
        super::lookup::labels(&self.host_labels).map_err(|e| CoreError::invalid("placement.host_labels", e))?;
        if !self.group.is_empty() {
            let valid = self.group.parse::<cloud_domain::ResourceName>();
            valid.map_err(|e| CoreError::invalid("placement.anti_affinity_group", e))?;
        } else if self.group_required {
            return Err(CoreError::invalid("placement.anti_affinity_required", "needs an anti_affinity_group"));
        }
        if !matches!(self.accelerator.as_str(), "" | "kvm" | "tcg") {
            let problem = format!("`{}` is neither kvm nor tcg", self.accelerator);
            return Err(CoreError::invalid("placement.accelerator", problem));
        }
        if !self.host.is_empty() {
            super::lookup::operator(caller, "choose the host of an instance")?;
        }
        Ok(())
    }
}

/// What a launch needs of its host.
pub(super) struct Ask<'a> {
    /// The type, for people.
    pub kind: &'a str,
    pub vcpus: u32,
    pub memory_mib: u32,
    pub image: ImageId,
    /// Whose machine code the image has.
    pub architecture: &'a str,
    /// What the image's data take in a pool at once.
    pub pool_bytes: u64,
    pub placement: &'a Placement,
    /// The pools that data volumes without a host are in.
    pub pools: Vec<String>,
    /// Where the others are.
    pub pinned: Option<HostId>,
}

impl<'a> Ask<'a> {
    /// Of an instance of this type, from this image, with these data volumes.
    pub(super) fn new(
        kind: &'a InstanceType,
        image: &'a Image,
        data: &[Volume],
        placement: &'a Placement,
    ) -> Result<Self, CoreError> {
        Ok(Self {
            kind: &kind.meta.name,
            vcpus: kind.vcpus,
            memory_mib: kind.memory_mib,
            image: image.id(),
            architecture: &image.architecture,
            pool_bytes: image.size_bytes,
            placement,
            pools: data.iter().filter(|v| v.host.is_none()).map(|v| v.pool.clone()).collect(),
            pinned: pinned(data)?,
        })
    }
}

/// What the database says of an ask.
struct Asked<'a> {
    ask: &'a Ask<'a>,
    named: Option<HostId>,
    group: HashMap<HostId, u64>,
}

/// The host that all bound volumes are on; none where none is bound.
fn pinned(data: &[Volume]) -> Result<Option<HostId>, CoreError> {
    let mut bound = data.iter().filter_map(|v| v.host.map(|h| (h, v)));
    let Some((host, first)) = bound.next() else { return Ok(None) };
    if let Some((_, other)) = bound.find(|(h, _)| *h != host) {
        let message = format!(
            "volume `{}` is on host {} and volume `{}` on host {}: an instance can have volumes of one host only",
            first.meta.name, first.host_name, other.meta.name, other.host_name
        );
        return Err(CoreError::precondition("VOLUMES_ON_DIFFERENT_HOSTS", message));
    }
    Ok(Some(host))
}

impl Asked<'_> {
    /// The filter that a host does not pass, but for that of room; none: it passes.
    fn refuses(&self, host: &Facts<'_>) -> Option<String> {
        let (ask, capacity) = (self.ask, host.capacity);
        if self.named.is_some_and(|named| named != host.id) {
            return Some("another host was asked for".to_owned());
        }
        if ask.pinned.is_some_and(|pinned| pinned != host.id) {
            return Some("a volume is on another host".to_owned());
        }
        if host.state != HostState::Up {
            return Some(host.state.as_str().to_owned());
        }
        if let Some(problem) = mismatch(&ask.placement.host_labels, host.labels) {
            return Some(problem);
        }
        if capacity.architecture != ask.architecture {
            return Some(format!("it is {}, the image is for {}", capacity.architecture, ask.architecture));
        }
        let accelerator = ask.placement.accelerator.as_str();
        if !accelerator.is_empty() && accelerator != capacity.accelerator {
            return Some(format!("its guests run under {}, not {accelerator}", capacity.accelerator));
        }
        let pool = |name: &str| capacity.pools.iter().find(|pool| pool.name == name);
        if let Some(missing) = ask.pools.iter().find(|name| pool(name).is_none()) {
            return Some(format!("it has no pool `{missing}`"));
        }
        match pool(DEFAULT_POOL) {
            None => return Some(format!("it has no pool `{DEFAULT_POOL}`")),
            Some(pool) if pool.free_bytes < ask.pool_bytes => {
                let (free, needs) = (pool.free_bytes >> 20, ask.pool_bytes.div_ceil(1 << 20));
                return Some(format!("its pool `{DEFAULT_POOL}` has {free} MiB free: the image needs {needs}"));
            }
            Some(_) => {}
        }
        let group = self.group.get(&host.id).copied().unwrap_or_default();
        if ask.placement.group_required && group > 0 {
            return Some(format!("it has an instance of group `{}`", ask.placement.group));
        }
        None
    }

    /// What it says of any host; none where it names some.
    fn shape(&self) -> Option<Shape> {
        let Ask { architecture, pool_bytes, placement, pools, pinned, .. } = self.ask;
        if self.named.is_some() || pinned.is_some() || !self.group.is_empty() {
            return None;
        }
        Some(Shape {
            architecture: (*architecture).to_owned(),
            accelerator: placement.accelerator.clone(),
            labels: placement.host_labels.clone(),
            pools: pools.clone(),
            pool_bytes: *pool_bytes,
        })
    }

    fn no_room(&self) -> String {
        format!("fewer than {} vCPUs or {} MiB unpromised", self.ask.vcpus, self.ask.memory_mib)
    }
}

fn mismatch(wanted: &Labels, has: &Labels) -> Option<String> {
    wanted.iter().find_map(|(key, value)| match has.get(key) {
        Some(is) if is == value => None,
        Some(is) => Some(format!("its label {key} is `{is}`, not `{value}`")),
        None => Some(format!("it has no label {key}")),
    })
}

/// Chooses a host and claims its capacity.
pub(super) async fn place<S: Store>(
    tx: &mut S::Tx,
    store: &S,
    registry: &HostRegistry,
    strategy: Strategy,
    caller: &Caller,
    ask: &Ask<'_>,
) -> Result<(Host, Placed), CoreError> {
    let named = match ask.placement.host.as_str() {
        "" => None,
        text => Some(super::lookup::live::<Host, _>(tx, super::hosts::nobody(), text).await?.id()),
    };
    let group = match ask.placement.group.as_str() {
        "" => HashMap::new(),
        group => tx.group_hosts(caller.project, group).await?.into_iter().collect(),
    };
    let asked = Asked { ask, named, group };
    let shuffle = strategy == Strategy::Spread && !store.is_exclusive();
    if let Some(placed) = choose(tx, registry, strategy, shuffle, &asked).await? {
        return Ok(placed);
    }
    if !store.is_exclusive() {
        // Another gateway may have changed a host in this second.
        for row in tx.list::<Host>(&Query::default()).await? {
            registry.learn(&row);
        }
        if let Some(placed) = choose(tx, registry, strategy, shuffle, &asked).await? {
            return Ok(placed);
        }
    }
    Err(nowhere(registry, &asked))
}

/// A host with room, as the store says, and what was known of it in memory.
struct Candidate {
    id: HostId,
    shown: PlacedCandidate,
}

/// What the filters came to.
#[derive(Debug, Default, Clone)]
struct Filtered {
    hosts: u32,
    fitting: u32,
    /// Those that fit, where they are no more than [`WINDOW`].
    few: Vec<HostId>,
    /// A few of those that do not, and why.
    refused: Vec<(String, String)>,
}

impl Filtered {
    fn by(registry: &HostRegistry, asked: &Asked<'_>) -> Self {
        let mut this = Self::default();
        registry.each(|host| {
            this.hosts += 1;
            match asked.refuses(&host) {
                None => {
                    this.fitting += 1;
                    if this.few.len() < WINDOW {
                        this.few.push(host.id);
                    }
                }
                Some(why) if this.refused.len() < REMEMBERED => this.refused.push((host.name.to_owned(), why)),
                Some(_) => {}
            }
        });
        if this.fitting as usize > WINDOW {
            this.few.clear();
        }
        this
    }

    /// As [`Self::by`], or as it was a moment ago.
    fn lately(registry: &HostRegistry, asked: &Asked<'_>) -> Self {
        let Some(shape) = asked.shape() else { return Self::by(registry, asked) };
        let mut recent = registry.recent().0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, of, filtered)) = &*recent
            && at.elapsed() < RECENT
            && *of == shape
        {
            return filtered.clone();
        }
        let filtered = Self::by(registry, asked);
        // Few are asked for by their ids: one that fits only since then would be missing.
        *recent = (filtered.fitting as usize > WINDOW).then(|| (Instant::now(), shape, filtered.clone()));
        filtered
    }
}

/// What an ask says of any host.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    architecture: String,
    accelerator: String,
    labels: Labels,
    pools: Vec<String>,
    pool_bytes: u64,
}

/// What the filters came to lately, where many hosts passed. Looking at a thousand takes a third of a millisecond, most of it waiting for memory.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Option<(Instant, Shape, Filtered)>>);

async fn choose<T: Tx>(
    tx: &mut T,
    registry: &HostRegistry,
    strategy: Strategy,
    shuffle: bool,
    asked: &Asked<'_>,
) -> Result<Option<(Host, Placed)>, CoreError> {
    let filtered = Filtered::lately(registry, asked);
    if filtered.fitting == 0 {
        return Ok(None);
    }
    let order = match strategy {
        Strategy::Spread => Fill::Emptiest,
        Strategy::Pack => Fill::Fullest,
    };
    let few = (filtered.fitting as usize <= WINDOW).then_some(filtered.few.as_slice());
    let windows: &[u32] = if few.is_some() { &[ALL] } else { &[FIRST, ALL] };
    for limit in windows {
        let (vcpus, memory) = (asked.ask.vcpus, asked.ask.memory_mib);
        let rooms = tx.hosts_with_room(vcpus, memory, order, few, *limit).await?;
        let mut found = candidates(registry, strategy, asked, rooms);
        let crowded = found.first().is_none_or(|best| best.shown.group > 0);
        if crowded && *limit != ALL {
            continue;
        }
        if shuffle {
            let best = found.first().map(|c| c.shown.score).unwrap_or_default();
            let alike = found.iter().take(SHUFFLED).take_while(|c| c.shown.score <= best + ALIKE).count();
            if let Some(alike) = found.get_mut(..alike) {
                alike.shuffle(&mut rand::rng());
            }
        }
        for at in 0..found.len() {
            if let Some(row) = claim(tx, asked, found[at].id).await? {
                found[at].shown.chosen = true;
                return Ok(Some((row, remember(registry, strategy, found, at, filtered))));
            }
        }
    }
    Ok(None)
}

/// The best first.
fn candidates(
    registry: &HostRegistry,
    strategy: Strategy,
    asked: &Asked<'_>,
    rooms: Vec<(HostId, u64)>,
) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::with_capacity(rooms.len());
    registry.each_of(
        rooms,
        |(id, _)| *id,
        |host, (id, fill)| {
            if asked.refuses(&host).is_some() {
                return;
            }
            let cached = host.has_image(asked.ask.image);
            let group = asked.group.get(&id).copied().unwrap_or_default();
            let full = match strategy {
                Strategy::Spread => fill,
                Strategy::Pack => 1000_u64.saturating_sub(fill),
            };
            let score = full + if cached { 0 } else { SENDING } + group.saturating_mul(CROWDED);
            let shown = PlacedCandidate { host: String::new(), score, fill, cached, group, chosen: false };
            found.push(Candidate { id, shown });
        },
    );
    found.sort_by_key(|c| c.shown.score);
    found
}

/// The host's row, with the capacity claimed; none where it has no room any more, or is not what it was thought to be.
async fn claim<T: Tx>(tx: &mut T, asked: &Asked<'_>, host: HostId) -> Result<Option<Host>, CoreError> {
    let ask = asked.ask;
    let Some(row) = tx.claim_capacity(host, ask.vcpus, ask.memory_mib).await? else { return Ok(None) };
    if mismatch(&ask.placement.host_labels, &row.meta.labels).is_none() {
        return Ok(Some(row));
    }
    tx.release_capacity(host, ask.vcpus, ask.memory_mib).await?;
    Ok(None)
}

/// The decision as it is kept with the instance: a few hosts of each sort.
fn remember(
    registry: &HostRegistry,
    strategy: Strategy,
    mut found: Vec<Candidate>,
    chosen: usize,
    filtered: Filtered,
) -> Placed {
    found.swap(0, chosen);
    found.truncate(REMEMBERED);
    for candidate in &mut found {
        candidate.shown.host = registry.name(candidate.id);
    }
    Placed {
        strategy: strategy.as_str().to_owned(),
        hosts: filtered.hosts,
        fitting: filtered.fitting,
        candidates: found.into_iter().map(|c| c.shown).collect(),
        refused: filtered.refused,
    }
}

fn nowhere(registry: &HostRegistry, asked: &Asked<'_>) -> CoreError {
    let mut all: Vec<(String, HostId, String)> = Vec::new();
    registry.each(|host| {
        let why = asked.refuses(&host).unwrap_or_else(|| asked.no_room());
        all.push((host.name.to_owned(), host.id, why));
    });
    all.sort();
    let more = all.len().saturating_sub(LISTED);
    let line = |(name, id, why): (String, HostId, String)| match why.as_str() {
        "UNREACHABLE" => format!("{name}: UNREACHABLE, {}", registry.state(id).1),
        _ => format!("{name}: {why}"),
    };
    let mut lines: Vec<String> = all.into_iter().take(LISTED).map(line).collect();
    if more > 0 {
        lines.push(format!("and {more} more hosts"));
    }
    let list = if lines.is_empty() { "no host has joined".to_owned() } else { lines.join("; ") };
    CoreError::Exhausted { reason: "NO_HOST", message: format!("no host for type `{}`: {list}", asked.ask.kind) }
}

#[cfg(test)]
mod tests;
