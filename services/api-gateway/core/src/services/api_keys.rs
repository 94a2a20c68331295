//! API keys: the calls on them. A key is its project's; whoever makes, ends or rotates one must hold a key of that role at least.

use std::time::Duration;

use cloud_domain::{ApiKeyId, ProjectId};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    KeyHash, Page, PageRequest,
    identity::{new_secret, shown},
    key_cache::KeyCache,
    lookup::{any, check_etag, event, insert, live, name},
    quotas::hold,
};
use crate::{
    CoreError,
    model::{ApiKey, Caller, Labels, Meta, OldSecret, Role, Timestamp, Value},
    ports::{Query, Store, Tx},
};

/// How long a secret that is rotated away may live on.
const LONGEST_OVERLAP: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many hashes of earlier secrets a key remembers.
const RETIRED: usize = 100;

/// A key that a caller wants.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it ends; none: never.
    pub expires_at: Option<Timestamp>,
}

/// Keys that callers authenticate with.
#[derive(Clone)]
pub struct ApiKeyService<S> {
    store: S,
    cache: KeyCache,
}

impl<S: Store> ApiKeyService<S> {
    pub(super) fn new(store: S, cache: KeyCache) -> Self {
        Self { store, cache }
    }

    /// Makes a key of the caller's project, and answers with it and its secret, which is not kept.
    ///
    /// # Errors
    /// Invalid, `AlreadyExists`, Denied where the role is above the caller's own.
    pub async fn create(&self, caller: &Caller, request: NewApiKey) -> Result<(ApiKey, String), CoreError> {
        name(&request.name)?;
        within(caller, request.role, "make")?;
        if request.expires_at.is_some_and(|at| at <= Timestamp::now()) {
            return Err(CoreError::invalid("expires_at", "is in the past: the key would never open"));
        }
        let secret = new_secret();
        let id = *ApiKeyId::random().as_uuid();
        let row = ApiKey {
            meta: Meta::new(id, caller.project, &caller.project_name, &request.name, Labels::new()),
            prefix: shown(&secret),
            hash: KeyHash::of(&secret),
            role: request.role,
            expires_at: request.expires_at,
            revoked_at: None,
            old: None,
            retired: Vec::new(),
        };
        let mut tx = self.store.begin().await?;
        hold(&mut tx, caller.project, &caller.project_name).await?;
        insert(&mut tx, &row).await?;
        let mut made = event(caller, &row, "api-key.create");
        made.message = format!("role {}", row.role.as_str());
        tx.event(made).await?;
        tx.commit().await?;
        Ok((row, secret))
    }

    /// A key by id or name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<ApiKey, CoreError> {
        any(&self.store, caller.project, id).await
    }

    /// The project's keys.
    ///
    /// # Errors
    /// Invalid page token.
    pub async fn list(&self, caller: &Caller, page: &PageRequest) -> Result<Page<ApiKey>, CoreError> {
        page.list(&self.store, Some(caller.project), Query::default()).await
    }

    /// Ends a key at once: when this answers, no gateway lets it in any more.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Denied where its role is above the caller's own, Precondition where it is the last operator's key.
    pub async fn revoke(&self, caller: &Caller, id: &str, etag: &str) -> Result<ApiKey, CoreError> {
        let (this, caller) = (self.clone(), caller.clone());
        let (id, etag) = (id.to_owned(), etag.to_owned());
        to_the_end(async move {
            let mut tx = this.store.begin().await?;
            let mut row: ApiKey = live(&mut tx, caller.project, &id).await?;
            check_etag(&row, &etag)?;
            within(&caller, row.role, "revoke")?;
            if row.role == Role::Operator {
                keep_an_operator(&mut tx, |other| other.meta.id == row.meta.id).await?;
            }
            end(&mut tx, &mut row).await?;
            tx.event(event(&caller, &row, "api-key.revoke")).await?;
            tx.commit().await?;
            this.cache.clear();
            Ok(row)
        })
        .await
    }

    /// Gives a key a new secret, and answers with it. The old one opens for `overlap` more, and not beyond the key's own end; one that was
    /// still open from a rotation before ends now.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Invalid overlap, Denied where its role is above the caller's own.
    pub async fn rotate(
        &self,
        caller: &Caller,
        id: &str,
        etag: &str,
        overlap: Duration,
    ) -> Result<(ApiKey, String), CoreError> {
        if overlap > LONGEST_OVERLAP {
            let most = LONGEST_OVERLAP.as_secs();
            return Err(CoreError::invalid("overlap_seconds", format!("{} is more than {most}", overlap.as_secs())));
        }
        let (this, caller) = (self.clone(), caller.clone());
        let (id, etag) = (id.to_owned(), etag.to_owned());
        to_the_end(async move {
            let secret = new_secret();
            let mut tx = this.store.begin().await?;
            let mut row: ApiKey = live(&mut tx, caller.project, &id).await?;
            check_etag(&row, &etag)?;
            within(&caller, row.role, "rotate")?;
            let hash = std::mem::replace(&mut row.hash, KeyHash::of(&secret));
            let prefix = std::mem::replace(&mut row.prefix, shown(&secret));
            row.retired.push(hash.clone());
            let surplus = row.retired.len().saturating_sub(RETIRED);
            row.retired.drain(..surplus);
            row.old = (!overlap.is_zero()).then(|| OldSecret { prefix, hash, ends_at: Timestamp::now().plus(overlap) });
            tx.update(&mut row).await?;
            let mut rotated = event(&caller, &row, "api-key.rotate");
            rotated.message = format!("the old secret opens for {} s more", overlap.as_secs());
            tx.event(rotated).await?;
            tx.commit().await?;
            this.cache.clear();
            Ok((row, secret))
        })
        .await
    }
}

/// Nobody makes, ends or takes over a key that may do more than their own.
fn within(caller: &Caller, role: Role, verb: &str) -> Result<(), CoreError> {
    if role <= caller.role {
        return Ok(());
    }
    let (wanted, own) = (role.as_str(), caller.role.as_str());
    Err(CoreError::Denied(format!("a key of the role {own} cannot {verb} one of the role {wanted}")))
}

/// Ends a key's row: its name is free again.
pub(super) async fn end<T: Tx>(tx: &mut T, row: &mut ApiKey) -> Result<(), CoreError> {
    let now = Timestamp::now();
    row.revoked_at = Some(now);
    row.meta.deleted_at = Some(now);
    Ok(tx.update(row).await?)
}

/// Sees that an operator's key that opens is left beside those that `goes` names, and lets no other transaction end one meanwhile.
pub(super) async fn keep_an_operator<T: Tx>(tx: &mut T, goes: impl Fn(&ApiKey) -> bool) -> Result<(), CoreError> {
    hold(tx, ProjectId::from(Uuid::nil()), "").await?;
    let columns = vec![("role", Value::Text(Role::Operator.as_str().to_owned()))];
    let operators: Vec<ApiKey> = tx.list(&Query { columns, ..Query::default() }).await?;
    if !operators.iter().any(&goes) {
        return Ok(());
    }
    let now = Timestamp::now();
    // A key with an end is none to rely on.
    let stays = |key: &ApiKey| !goes(key) && key.expires_at.is_none() && key.opens(&key.hash, now);
    if operators.iter().any(stays) {
        return Ok(());
    }
    let message = "it is the last operator's key that does not expire: nobody could operate the cloud any more; make another one first";
    Err(CoreError::precondition("LAST_OPERATOR_KEY", message))
}

/// Carries work to its end even where the caller goes away: between its commit and what must follow there is no gap.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, CoreError>> + Send + 'static,
) -> Result<T, CoreError> {
    let ended = tokio::spawn(work.in_current_span()).await;
    ended.unwrap_or_else(|lost| Err(CoreError::Internal(Box::new(lost))))
}
