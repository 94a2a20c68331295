//! How hosts join and stay known: tokens, and the certificates of their agents.

mod authorities;
mod certificates;
mod tokens;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cloud_domain::{CloudId, HostId, HostName, Identity, join};
use uuid::Uuid;

use super::{
    HostRegistry, KeyHash,
    hosts::{joined, nobody},
    lookup::insert,
};
pub use certificates::revoke_certificates;
pub use tokens::NewJoinToken;

use crate::{
    CoreError, Kind,
    model::{AgentRole, Host, HostCapacity, HostLimits, HostMode, JoinToken, Labels, Meta, Timestamp},
    ports::{AuthorityError, CertificateAuthority, Issued, Store, StoreError, Tx},
};

/// How often a join is tried again that ran into another use of its token.
const TRIES: usize = 20;

/// What operators can set.
#[derive(Debug, Clone)]
pub struct JoinSettings {
    /// Where hosts reach the gateways: `host:port`. Tokens carry them; without one, nobody can join.
    pub addresses: Vec<String>,
    /// How long the certificates of hosts count.
    pub certificate_lifetime: Duration,
}

impl Default for JoinSettings {
    fn default() -> Self {
        Self { addresses: Vec::new(), certificate_lifetime: Duration::from_secs(30 * 24 * 3600) }
    }
}

/// A host that wants to join.
#[derive(Debug, Clone)]
pub struct JoinInput {
    /// The token's text.
    pub token: String,
    /// The name that the host shall have.
    pub host_name: String,
    /// The id that it has already.
    pub host: Option<HostId>,
    /// A request for a certificate for each of its agents.
    pub requests: BTreeMap<AgentRole, String>,
    /// Where it calls from.
    pub source: String,
}

/// A host that has joined.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The cloud.
    pub cloud: CloudId,
    /// The host's id.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// Its certificates.
    pub certificates: BTreeMap<AgentRole, Issued>,
    /// The authorities to trust, in PEM.
    pub trusted: String,
}

/// How hosts join and stay known.
#[derive(Clone)]
pub struct JoinService<S> {
    store: S,
    registry: Arc<HostRegistry>,
    authority: Arc<dyn CertificateAuthority>,
    settings: Arc<JoinSettings>,
}

/// What an attempt came to.
enum Attempt {
    Done(Joined),
    /// Another use of the token was faster.
    Again,
}

impl<S: Store> JoinService<S> {
    /// The service over a store.
    pub fn new(
        store: S,
        registry: Arc<HostRegistry>,
        authority: Arc<dyn CertificateAuthority>,
        settings: JoinSettings,
    ) -> Self {
        Self { store, registry, authority, settings: Arc::new(settings) }
    }

    /// A host joins: its token is used, its row made or found, and its certificates issued, all in one transaction.
    ///
    /// # Errors
    /// Invalid; Precondition with the reasons of the contract; `AlreadyExists` where another host has the name.
    pub async fn join(&self, input: JoinInput) -> Result<Joined, CoreError> {
        input.host_name.parse::<HostName>().map_err(|e| CoreError::invalid("host_name", e))?;
        for role in AgentRole::ALL {
            if !input.requests.contains_key(&role) {
                let problem = format!("lacks the request for {}", role.as_str());
                return Err(CoreError::invalid("certificate_requests", problem));
            }
        }
        let token: join::JoinToken = input.token.parse().map_err(|e| CoreError::invalid("token", e))?;
        for _ in 0..TRIES {
            if let Attempt::Done(joined) = self.attempt(&token, &input).await? {
                return Ok(joined);
            }
        }
        Err(StoreError::Stale.into())
    }

    async fn attempt(&self, shown: &join::JoinToken, input: &JoinInput) -> Result<Attempt, CoreError> {
        let mut tx = self.store.begin().await?;
        let token: Option<JoinToken> = tx.get(shown.id).await?;
        let mut token = token
            .filter(|row| row.hash == KeyHash::of(&shown.secret))
            .ok_or_else(|| CoreError::precondition("TOKEN_UNKNOWN", "this cloud has no such join token"))?;
        usable(&token)?;
        let (host, is_new) = find_host(&mut tx, &token, input).await?;
        let certificates = self.issue(&input.requests, host.id())?;
        token.used += 1;
        match tx.update(&mut token).await {
            Ok(()) => {}
            Err(StoreError::Stale) => return Ok(Attempt::Again),
            Err(other) => return Err(other.into()),
        }
        if is_new {
            insert(&mut tx, &host).await?;
        } else {
            revoke_certificates(&mut tx, host.id()).await?;
        }
        for (role, issued) in &certificates {
            tx.insert(&certificates::row(host.id(), *role, issued)).await?;
        }
        let mut event = joined(&host);
        event.source.clone_from(&input.source);
        event.message = format!("by join token {}", token.meta.id);
        if !is_new {
            event.action = "host.rejoin";
        }
        tx.event(event).await?;
        tx.commit().await?;
        if is_new {
            self.registry.remember(&host);
        }
        let trusted = self.authority.trusted();
        let (host, name) = (host.id(), host.meta.name);
        Ok(Attempt::Done(Joined { cloud: self.store.identity().0, host, name, certificates, trusted }))
    }

    fn issue(
        &self,
        requests: &BTreeMap<AgentRole, String>,
        host: HostId,
    ) -> Result<BTreeMap<AgentRole, Issued>, CoreError> {
        let cloud = self.store.identity().0;
        let issue = |(role, request): (&AgentRole, &String)| {
            let identity = Identity::Agent { cloud, host, daemon: (*role).into() };
            let issued = self.authority.issue(request, identity, self.settings.certificate_lifetime);
            Ok((*role, issued.map_err(|e| refusal("certificate_requests", e))?))
        };
        requests.iter().map(issue).collect()
    }
}

fn refusal(field: &'static str, error: AuthorityError) -> CoreError {
    match error {
        AuthorityError::Request(problem) => CoreError::invalid(field, problem),
        AuthorityError::Closed(why) => CoreError::precondition("NO_AUTHORITY", why),
        AuthorityError::Fault(source) => CoreError::Internal(source),
    }
}

/// Why a token lets nobody in, each with its own reason.
fn usable(token: &JoinToken) -> Result<(), CoreError> {
    let id = token.meta.id;
    let make = "make a new one with `cloud host token create`";
    if token.revoked_at.is_some() {
        return Err(CoreError::precondition("TOKEN_REVOKED", format!("join token {id} was revoked: {make}")));
    }
    if token.used >= token.uses {
        let times = if token.uses == 1 { "its one time".to_owned() } else { format!("its {} times", token.uses) };
        return Err(CoreError::precondition("TOKEN_USED_UP", format!("join token {id} was used {times}: {make}")));
    }
    if token.expires_at <= Timestamp::now() || token.meta.deleted_at.is_some() {
        return Err(CoreError::precondition("TOKEN_EXPIRED", format!("join token {id} has expired: {make}")));
    }
    Ok(())
}

/// The host that joins, and whether it is new.
async fn find_host<T: Tx>(tx: &mut T, token: &JoinToken, input: &JoinInput) -> Result<(Host, bool), CoreError> {
    if let Some(bound) = token.host {
        let name = &token.host_name;
        if input.host.is_some_and(|own| own != bound) || (input.host.is_none() && input.host_name != *name) {
            let message = format!("join token {} is for host `{name}` alone, and this is another host", token.meta.id);
            return Err(CoreError::precondition("TOKEN_OF_ANOTHER_HOST", message));
        }
        return Ok((held(tx, bound).await?.ok_or_else(|| CoreError::not_found(Kind::Host, name))?, false));
    }
    let id = input.host.unwrap_or_else(HostId::random);
    if let Some(known) = tx.get::<Host>(*id.as_uuid()).await? {
        let name = &known.meta.name;
        let message = match known.meta.deleted_at {
            None => format!(
                "this host is `{name}` already: to join again, use a token bound to it (`cloud host token create --host {name}`)"
            ),
            Some(_) => format!("this host was `{name}` and was removed: it joins as a new one without its old host id"),
        };
        return Err(CoreError::precondition("HOST_KNOWN", message));
    }
    let host = Host {
        meta: Meta::new(*id.as_uuid(), nobody(), "", &input.host_name, Labels::new()),
        agents: BTreeMap::new(),
        capacity: HostCapacity::default(),
        boot_id: String::new(),
        mode: HostMode::default(),
        mode_reason: String::new(),
        mode_since: Timestamp::now(),
        limits: HostLimits::default(),
    };
    Ok((host, true))
}

/// The live host, which cannot be removed until the transaction ends: whoever removes it must see every certificate that it got.
async fn held<T: Tx>(tx: &mut T, id: HostId) -> Result<Option<Host>, CoreError> {
    match tx.lock_capacity_used(id).await {
        Ok(_) => {}
        Err(StoreError::Stale) => return Ok(None),
        Err(other) => return Err(other.into()),
    }
    let host: Option<Host> = tx.get(*id.as_uuid()).await?;
    Ok(host.filter(|row| row.meta.deleted_at.is_none()))
}

/// A new row's meta that belongs to the cloud and is called by its id.
fn own_meta(name: impl FnOnce(&Uuid) -> String) -> Meta {
    let id = Uuid::new_v4();
    Meta::new(id, nobody(), "", &name(&id), Labels::new())
}
