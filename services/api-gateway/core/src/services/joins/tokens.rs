//! Join tokens, as operators make and end them.

use std::time::Duration;

use cloud_domain::join;
use uuid::Uuid;

use super::{JoinService, own_meta};
use crate::{
    CoreError,
    model::{Caller, Host, JoinToken, Timestamp},
    ports::{Query, Store, Tx},
    services::{
        KeyHash, Page, PageRequest,
        hosts::nobody,
        lookup::{any, event, live, operator},
    },
};

/// How long a token lives where nothing is said, and at most.
const TTL: Duration = Duration::from_secs(3600);
const LONGEST_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many hosts one token may let in.
const MOST_USES: u32 = 1000;
/// How long what ended can still be looked at.
const KEEP_ENDED: Duration = Duration::from_secs(24 * 3600);

/// A token that an operator wants.
#[derive(Debug, Clone, Default)]
pub struct NewJoinToken {
    /// How long it lives; zero: an hour.
    pub ttl: Duration,
    /// How many hosts may use it; 0: one.
    pub uses: u32,
    /// The only host that may use it, by id or name; empty: any new one.
    pub host: String,
}

impl<S: Store> JoinService<S> {
    /// Makes a token, and answers with it and its text, which is not kept (operators).
    ///
    /// # Errors
    /// Denied, invalid, `NotFound` (host), Precondition where there is no address to join at.
    pub async fn create(&self, caller: &Caller, request: NewJoinToken) -> Result<(JoinToken, String), CoreError> {
        operator(caller, "make join tokens")?;
        let ttl = if request.ttl.is_zero() { TTL } else { request.ttl };
        if ttl > LONGEST_TTL {
            return Err(CoreError::invalid("ttl_seconds", format!("must be at most {}", LONGEST_TTL.as_secs())));
        }
        let uses = request.uses.max(1);
        if uses > MOST_USES {
            return Err(CoreError::invalid("uses", format!("must be at most {MOST_USES}")));
        }
        let (gateways, authorities) = (self.settings.addresses.clone(), self.authority.fingerprints());
        if gateways.is_empty() || authorities.is_empty() {
            let message = "this gateway has no address that hosts can join at: set --agents-address (and --agents-advertise, where hosts reach \
                           it by another one)";
            return Err(CoreError::precondition("NO_AGENTS_ADDRESS", message));
        }
        let host: Option<Host> = match request.host.as_str() {
            "" => None,
            text => Some(any(&self.store, nobody(), text).await?),
        };
        if host.is_some() && uses != 1 {
            return Err(CoreError::invalid("uses", "a token that is bound to a host has one use"));
        }
        let secret = secret();
        let row = JoinToken {
            meta: own_meta(Uuid::to_string),
            hash: KeyHash::of(&secret),
            uses,
            used: 0,
            expires_at: Timestamp::now().plus(ttl),
            revoked_at: None,
            host: host.as_ref().map(Host::id),
            host_name: host.map(|host| host.meta.name).unwrap_or_default(),
        };
        let mut tx = self.store.begin().await?;
        tx.insert(&row).await?;
        tx.event(event(caller, &row, "join-token.create")).await?;
        tx.commit().await?;
        let text = join::JoinToken { authorities, id: row.meta.id, secret, gateways }.to_string();
        Ok((row, text))
    }

    /// The tokens that were not revoked, and did not expire long ago (operators).
    ///
    /// # Errors
    /// Denied, invalid filter, order or page token.
    pub async fn list(&self, caller: &Caller, page: &PageRequest) -> Result<Page<JoinToken>, CoreError> {
        operator(caller, "see join tokens")?;
        page.list(&self.store, None, Query::default()).await
    }

    /// Ends a token at once (operators).
    ///
    /// # Errors
    /// Denied, `NotFound`.
    pub async fn revoke(&self, caller: &Caller, id: &str) -> Result<JoinToken, CoreError> {
        operator(caller, "revoke join tokens")?;
        let mut tx = self.store.begin().await?;
        let mut row: JoinToken = live(&mut tx, nobody(), id).await?;
        let now = Timestamp::now();
        row.revoked_at = Some(now);
        row.meta.deleted_at = Some(now);
        tx.update(&mut row).await?;
        tx.event(event(caller, &row, "join-token.revoke")).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Ends the rows of tokens that expired a day ago, and of certificates that count no more.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep(&self) -> Result<(), CoreError> {
        let now = Timestamp::now();
        let tokens: Vec<JoinToken> = self.store.list(&Query::default()).await?;
        for mut token in tokens.into_iter().filter(|t| t.expires_at.plus(KEEP_ENDED) <= now) {
            let mut tx = self.store.begin_background().await?;
            token.meta.deleted_at = Some(now);
            tx.update(&mut token).await?;
            tx.commit().await?;
        }
        self.sweep_certificates(now).await
    }
}

/// 256 random bits in hex.
fn secret() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}
