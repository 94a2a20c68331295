//! Hosts: what operators see of them, and what their agents say.

mod modes;
mod pace;
mod skew;
mod update;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cloud_domain::{CloudId, HostId, HostName, ProjectId, SessionId};
use uuid::Uuid;

use super::{
    AgentHealth, AgentRef, HostRegistry, HostState, Page, PageRequest, Settings,
    lookup::{any, operator},
    tunnels,
};
use crate::{
    CoreError, Kind,
    filter::{Filter, Term},
    model::{
        Agent, AgentRole, Caller, Host, HostCapacity, HostLimits, HostMode, Instance, Labels, Meta, NewEvent, Orphan,
        Resource, STATE, Timestamp, Volume,
    },
    ports::{HeardAgent, Query, Store, Tx},
};

pub(crate) use modes::{declare_dead, wake_all};
pub use update::HostChange;

/// An agent announces itself.
#[derive(Debug, Clone)]
pub struct RegisterInput {
    /// The host's id.
    pub host: HostId,
    /// The host's name.
    pub host_name: String,
    /// Which agent.
    pub role: AgentRole,
    /// This run of it.
    pub session: SessionId,
    /// Where it listens.
    pub endpoint: String,
    /// Its release.
    pub version: String,
    /// The machine's boot.
    pub boot_id: String,
    /// What it offers: its own part is filled in.
    pub capacity: HostCapacity,
}

/// A sign of life.
#[derive(Debug, Clone)]
pub struct HeartbeatInput {
    /// The host's id.
    pub host: HostId,
    /// Which agent.
    pub role: AgentRole,
    /// This run of it.
    pub session: SessionId,
    /// What it offers: its own part is filled in.
    pub capacity: HostCapacity,
    /// What is wrong with its backend; empty: nothing.
    pub backend_error: String,
}

/// A host, as operators see it.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Its row.
    pub row: Host,
    /// What it is.
    pub state: HostState,
    /// Why.
    pub reason: String,
    /// How its agents do.
    pub agents: Vec<AgentHealth>,
    /// Virtual processors promised.
    pub vcpus_used: u64,
    /// Memory promised, in MiB.
    pub memory_used_mib: u64,
    /// Live instances.
    pub instances: u64,
    /// When what it has was last compared with what it shall have.
    pub inventoried_at: Option<Timestamp>,
    /// What it has that no row knows there.
    pub orphans: u64,
    /// Whether its agents answer.
    pub answers: bool,
    /// Load averages over one, five and fifteen minutes, in hundredths.
    pub load: [u32; 3],
    /// What of it may be promised, with what the gateway is told for all hosts filled in.
    pub limits: HostLimits,
    /// Virtual processors and memory (MiB) that may be promised in all.
    pub promisable: (u64, u64),
}

/// The machines under the cloud.
#[derive(Clone)]
pub struct HostService<S> {
    store: S,
    registry: Arc<HostRegistry>,
    settings: Arc<Settings>,
}

/// The most memory that a host may say it has, in MiB: an exbibyte. More is a broken agent, and no number that a database adds to.
const MOST_MEMORY_MIB: u64 = 1 << 40;

fn plausible(capacity: &HostCapacity) -> Result<(), CoreError> {
    if capacity.memory_mib > MOST_MEMORY_MIB {
        let problem = format!("{} is more than {MOST_MEMORY_MIB}: no machine has so much", capacity.memory_mib);
        return Err(CoreError::invalid("capacity.memory_mib", problem));
    }
    Ok(())
}

/// Hosts belong to the cloud.
pub(super) fn nobody() -> ProjectId {
    ProjectId::from(Uuid::nil())
}

impl<S: Store> HostService<S> {
    /// The service over a store.
    pub fn new(store: S, registry: Arc<HostRegistry>, settings: Arc<Settings>) -> Self {
        Self { store, registry, settings }
    }

    /// Takes over what the database remembers of the hosts, at start.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(&self) -> Result<(), CoreError> {
        let hosts: Vec<Host> = self.store.list(&Query::default()).await?;
        hosts.iter().for_each(|h| self.registry.remember(h));
        Ok(())
    }

    /// Refuses a host that did not join, or was removed: of one on another machine, it is not the agent's registration that makes it known.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn is_known(&self, host: HostId) -> Result<(), CoreError> {
        let row: Option<Host> = self.store.get(*host.as_uuid()).await?;
        match row.filter(|row| row.meta.deleted_at.is_none()) {
            Some(_) => Ok(()),
            None => Err(CoreError::not_found(Kind::Host, host.to_string())),
        }
    }

    /// An agent announces itself. Answers with the cloud's id and how often to send a heartbeat.
    ///
    /// # Errors
    /// Invalid; `AlreadyExists` where another host has the name.
    pub async fn register(&self, input: RegisterInput) -> Result<(CloudId, Duration), CoreError> {
        input.host_name.parse::<HostName>().map_err(|e| CoreError::invalid("host_name", e))?;
        plausible(&input.capacity)?;
        let mut tx = self.store.begin().await?;
        let known: Option<Host> = tx.get(*input.host.as_uuid()).await?;
        if known.as_ref().is_some_and(|row| row.meta.deleted_at.is_some()) {
            return Err(CoreError::Denied(format!(
                "host `{}` ({}) was removed from the cloud: join it anew, under another id",
                input.host_name, input.host
            )));
        }
        skew::check(&input.host_name, input.role, &input.version)?;
        let is_new = known.is_none();
        let mut host = known.unwrap_or_else(|| Host {
            meta: Meta::new(*input.host.as_uuid(), nobody(), "", &input.host_name, Labels::new()),
            agents: BTreeMap::new(),
            capacity: HostCapacity::default(),
            boot_id: String::new(),
            mode: HostMode::default(),
            mode_reason: String::new(),
            mode_since: Timestamp::now(),
            limits: HostLimits::default(),
        });
        let agent = Agent {
            endpoint: input.endpoint.clone(),
            session: input.session,
            version: input.version.clone(),
            registered_at: Timestamp::now(),
        };
        host.agents.insert(input.role, agent);
        host.boot_id.clone_from(&input.boot_id);
        host.meta.name.clone_from(&input.host_name);
        let load = input.capacity.load;
        let before = host.capacity.tunnel_address.clone();
        host.capacity.take(input.role, input.capacity);
        if is_new {
            super::lookup::insert(&mut tx, &host).await?;
            tx.event(joined(&host)).await?;
        } else {
            super::lookup::rename(&mut tx, &mut host).await?;
        }
        self.set_capacity(&mut tx, &host).await?;
        tunnels::moved(&mut tx, &host, &before).await?;
        // Where the commit fails, the agent registers again.
        if !self.store.is_exclusive() {
            let heard = HeardAgent {
                host: input.host,
                role: input.role,
                session: input.session,
                endpoint: input.endpoint.clone(),
                version: input.version.clone(),
                age: Duration::ZERO,
                backend_error: String::new(),
                load: [0; 3],
            };
            tx.register_agent(&heard).await?;
        }
        let reference = AgentRef { endpoint: input.endpoint, session: input.session };
        self.registry.registered(input.host, &input.host_name, input.role, reference, &input.version);
        tx.commit().await?;
        self.registry.learn(&host);
        if input.role == AgentRole::Compute {
            self.registry.loaded(input.host, load);
        }
        // What may have happened on the host while the agent was away is found by taking its inventory. One that only tells a gateway about
        // itself again that was started anew has been asked already.
        let inventories = self.registry.inventories();
        if !inventories.is_taken(input.host, input.role, input.session) {
            inventories.again(input.host);
        }
        Ok((self.store.identity().0, pace::interval(&self.settings, self.registry.count())))
    }

    async fn set_capacity(&self, tx: &mut S::Tx, host: &Host) -> Result<(), CoreError> {
        let (vcpus, memory) = update::promisable(&host.capacity, update::filled(&host.limits, &self.settings));
        Ok(tx.set_capacity(host.id(), vcpus, memory).await?)
    }

    /// A sign of life. True: the agent must register again.
    ///
    /// # Errors
    /// The store's, where the capacity has changed.
    pub async fn heartbeat(&self, input: HeartbeatInput) -> Result<bool, CoreError> {
        plausible(&input.capacity)?;
        let was_up = self.registry.is_up(input.host);
        if !self.registry.heartbeat(input.host, input.role, input.session, &input.backend_error) {
            return Ok(true);
        }
        if input.role == AgentRole::Compute {
            self.registry.loaded(input.host, input.capacity.load);
        }
        if !was_up && self.registry.is_up(input.host) {
            self.registry.inventories().again(input.host);
        }
        if !self.registry.differs(input.host, input.role, &input.capacity) {
            return Ok(false);
        }
        let mut tx = self.store.begin().await?;
        let Some(mut host) = tx.get::<Host>(*input.host.as_uuid()).await? else { return Ok(true) };
        let before = host.capacity.tunnel_address.clone();
        host.capacity.take(input.role, input.capacity);
        tx.update(&mut host).await?;
        self.set_capacity(&mut tx, &host).await?;
        tunnels::moved(&mut tx, &host, &before).await?;
        tx.commit().await?;
        // Not before: what could not be written is written at the next sign of life.
        self.registry.learn(&host);
        Ok(false)
    }

    /// A host by id or name (operators).
    ///
    /// # Errors
    /// `NotFound`, Denied.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<HostView, CoreError> {
        operator(caller, "see hosts")?;
        self.view(any(&self.store, nobody(), id).await?).await
    }

    /// All hosts (operators). Filtered by state, a page may have fewer rows than was asked for, and more pages after it.
    ///
    /// # Errors
    /// Denied, invalid filter, order or page token.
    pub async fn list(&self, caller: &Caller, page: &PageRequest) -> Result<Page<HostView>, CoreError> {
        operator(caller, "see hosts")?;
        let (states, others): (Vec<Term>, Vec<Term>) =
            Filter::parse(Host::FIELDS, &page.filter)?.terms().iter().cloned().partition(|t| t.field.name == STATE);
        let states = Filter::of(states);
        let mut page = PageRequest { filter: Filter::of(others).to_string(), ..page.clone() };
        loop {
            let found: Page<Host> = page.list(&self.store, None, Query::default()).await?;
            let state = |row: &Host| HostState::of(row.mode, self.registry.is_up(row.id()));
            let meant = |row: &Host| states.matches_by(|_| state(row).as_str().to_owned());
            let mut rows = Vec::new();
            for row in found.rows.into_iter().filter(meant) {
                rows.push(self.view(row).await?);
            }
            // A page of nothing says nothing: on to the next one.
            if !rows.is_empty() || found.next.is_empty() {
                return Ok(Page { rows, next: found.next });
            }
            page.token = found.next;
        }
    }

    /// A host's row with what is known beside it.
    pub(super) async fn view(&self, row: Host) -> Result<HostView, CoreError> {
        let id = row.id();
        let (answers, why) = self.registry.answers(id);
        let state = HostState::of(row.mode, answers);
        let (vcpus_used, memory_used_mib) = self.store.capacity_used(id).await?;
        let instances = self.store.count::<Instance>("host_id", &id.to_string()).await?;
        let orphans = self.store.count::<Orphan>("host_id", &id.to_string()).await?;
        let mut reasons = vec![row.mode_reason.clone()];
        match row.mode {
            HostMode::Draining => {
                let volumes = self.store.count::<Volume>("host_id", &id.to_string()).await?;
                reasons.push(modes::holds(instances, volumes));
            }
            // Its reason says the state that does not show.
            HostMode::Cordoned if !answers => reasons.push("cordoned".to_owned()),
            _ => {}
        }
        if row.mode != HostMode::Removed {
            reasons.push(why);
        }
        reasons.retain(|part| !part.is_empty());
        let limits = update::filled(&row.limits, &self.settings);
        Ok(HostView {
            state,
            reason: reasons.join("; "),
            agents: self.registry.health(id),
            vcpus_used,
            memory_used_mib,
            instances,
            inventoried_at: self.registry.inventories().at(id),
            orphans,
            answers,
            load: self.registry.load(id),
            limits,
            promisable: update::promisable(&row.capacity, limits),
            row,
        })
    }
}

pub(super) fn joined(host: &Host) -> NewEvent {
    NewEvent {
        project: nobody(),
        kind: Kind::Host,
        resource: host.meta.id,
        name: host.meta.name.clone(),
        action: "host.join",
        actor: "system".to_owned(),
        source: String::new(),
        outcome: NewEvent::OK,
        message: String::new(),
        request_id: String::new(),
        once: None,
    }
}
