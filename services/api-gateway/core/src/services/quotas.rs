//! Quotas: what projects may have.
//!
//! Each project has one row of exact counters. What a call makes is claimed in its transaction, what is gone from the hosts is given back in
//! the transaction that says so: `model::quota` says what a row holds.

use std::sync::Arc;

use cloud_domain::ProjectId;

use super::{Settings, projects::visible};
use crate::{
    CoreError, Kind,
    model::{Amounts, Caller, Limited, NO_LIMIT, NewEvent, Project},
    ports::{Claim, Store, Tx},
};

/// A project's limits and what it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaView {
    /// The project's name.
    pub project: String,
    /// The limits that hold; what is not named has none.
    pub limits: Amounts,
    /// What is used; all of them.
    pub used: Amounts,
}

/// Limits of projects.
#[derive(Clone)]
pub struct QuotaService<S> {
    store: S,
    settings: Arc<Settings>,
}

/// Claims what a call makes in the caller's project.
///
/// **The last thing before the commit**, as giving back is: all that is made in a project waits for its one row, and so only for each other's
/// flush. Every transaction takes what it locks in this order: the work that it carries out, hosts, VPCs, rows, the work of others, the quota; two that
/// took it in different orders could wait for each other.
pub(super) async fn claim<T: Tx>(
    tx: &mut T,
    settings: &Settings,
    caller: &Caller,
    amounts: &Amounts,
) -> Result<(), CoreError> {
    match tx.claim_quota(caller.project, amounts, &settings.quota).await? {
        Claim::Held => Ok(()),
        Claim::Short(shortages) => Err(CoreError::QuotaExceeded { project: caller.project_name.clone(), shortages }),
        Claim::NoProject => Err(CoreError::not_found(Kind::Project, &caller.project_name)),
    }
}

/// Keeps a project from being deleted until the transaction ends.
pub(super) async fn hold<T: Tx>(tx: &mut T, project: ProjectId, name: &str) -> Result<(), CoreError> {
    match tx.claim_quota(project, &Amounts::new(), &Amounts::new()).await? {
        Claim::NoProject => Err(CoreError::not_found(Kind::Project, name)),
        Claim::Held | Claim::Short(_) => Ok(()),
    }
}

impl<S: Store> QuotaService<S> {
    pub(super) fn new(store: S, settings: Arc<Settings>) -> Self {
        Self { store, settings }
    }

    /// The quota of a project that the caller may see.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, caller: &Caller, project: &str) -> Result<QuotaView, CoreError> {
        let row = visible(&self.store, caller, project).await?;
        self.view(&row).await
    }

    /// Changes limits; what is not named stays.
    ///
    /// # Errors
    /// `NotFound`, Invalid.
    pub async fn update(
        &self,
        caller: &Caller,
        project: &str,
        limits: impl IntoIterator<Item = (String, u64)>,
    ) -> Result<QuotaView, CoreError> {
        let limits = limits.into_iter().map(|(name, limit)| limited(&name, limit)).collect::<Result<Amounts, _>>()?;
        let row = visible(&self.store, caller, project).await?;
        if limits.is_empty() {
            return Err(CoreError::invalid("limits", format!("name at least one of {}", names())));
        }
        let mut tx = self.store.begin().await?;
        if !tx.set_limits(row.meta.id.into(), &limits).await? {
            return Err(CoreError::not_found(Kind::Project, project));
        }
        let words: Vec<_> = limits.iter().map(|(of, limit)| format!("{}={}", of.as_str(), word(*limit))).collect();
        tx.event(NewEvent {
            project: row.meta.id.into(),
            kind: Kind::Quota,
            resource: row.meta.id,
            name: row.meta.name.clone(),
            action: "quota.update",
            actor: caller.key_name.clone(),
            source: caller.source.clone(),
            outcome: NewEvent::OK,
            message: words.join(" "),
            request_id: caller.request_id.clone(),
            once: caller.once.clone(),
        })
        .await?;
        tx.commit().await?;
        self.view(&row).await
    }

    async fn view(&self, row: &Project) -> Result<QuotaView, CoreError> {
        let found = self.store.quota(row.meta.id.into()).await?;
        let quota = found.ok_or_else(|| CoreError::not_found(Kind::Project, &row.meta.name))?;
        let limit = |of: Limited| quota.limits.get(&of).or(self.settings.quota.get(&of)).copied();
        let limits = Limited::ALL.into_iter().filter_map(|of| Some((of, limit(of)?)));
        let limits = limits.filter(|(_, limit)| *limit != NO_LIMIT).collect();
        Ok(QuotaView { project: row.meta.name.clone(), limits, used: quota.used })
    }
}

fn names() -> String {
    Limited::ALL.map(Limited::as_str).join(", ")
}

fn word(limit: u64) -> String {
    if limit == NO_LIMIT { "none".to_owned() } else { limit.to_string() }
}

fn limited(name: &str, limit: u64) -> Result<(Limited, u64), CoreError> {
    let of = Limited::parse(name).ok_or_else(|| {
        let name: String = name.chars().take(80).collect();
        CoreError::invalid("limits", format!("`{name}` is not limited: use {}", names()))
    })?;
    if limit > NO_LIMIT {
        return Err(CoreError::invalid("limits", format!("{name}: {limit} is too large: {NO_LIMIT} is no limit")));
    }
    Ok((of, limit))
}
