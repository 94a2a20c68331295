//! Instances: the calls on them.

use std::{sync::Arc, time::Duration};

use cloud_domain::{Incarnation, InstanceStatus, ProjectId};
use tokio::time::{Instant, timeout_at};

use super::{
    Explanation, HostRegistry, Page, PageRequest, Settings, attachments, explain, launch,
    launch::Launch,
    lookup::{any, check_etag, event, live, member},
};
use crate::{
    CoreError,
    model::{Caller, Desired, Host, HostMode, Instance, InstanceType, Placed, Timestamp},
    ports::{Query, Store, Tx, WorkKind},
};

/// Launch, stop and the rest: the primary port of the specification.
#[derive(Clone)]
pub struct InstanceService<S> {
    store: S,
    registry: Arc<HostRegistry>,
    settings: Arc<Settings>,
}

impl<S: Store> InstanceService<S> {
    /// The service over a store.
    pub fn new(store: S, registry: Arc<HostRegistry>, settings: Arc<Settings>) -> Self {
        Self { store, registry, settings }
    }

    /// Accepts an instance: STARTING, placed, with its name, address and capacity claimed.
    ///
    /// # Errors
    /// Invalid, `NotFound` (image, type, VPC, subnet, volume), `AlreadyExists`, Exhausted, Precondition.
    pub async fn launch(&self, caller: &Caller, request: Launch) -> Result<Instance, CoreError> {
        member(caller)?;
        launch::launch(&self.store, &self.registry, &self.settings, caller, request).await
    }

    /// Where a launch would place an instance now, and how long it took to find that out. Nothing is claimed or written.
    ///
    /// # Errors
    /// As of [`Self::launch`].
    pub async fn would_be_placed(&self, caller: &Caller, request: &Launch) -> Result<(Placed, Duration), CoreError> {
        launch::would_be_placed(&self.store, &self.registry, &self.settings, caller, request).await
    }

    /// Why an instance is in its state, and why it is where it is.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn explain(&self, caller: &Caller, id: &str) -> Result<Explanation, CoreError> {
        explain::explain(&self.store, &self.registry, caller, id).await
    }

    /// An instance by id or name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Instance, CoreError> {
        any(&self.store, caller.project, id).await
    }

    /// The project's instances.
    ///
    /// # Errors
    /// Invalid filter, order or page token.
    pub async fn list(&self, caller: &Caller, page: &PageRequest) -> Result<Page<Instance>, CoreError> {
        page.list(&self.store, Some(caller.project), Query::default()).await
    }

    /// Whether the instance's host answers.
    #[must_use]
    pub fn host_reachable(&self, instance: &Instance) -> bool {
        self.registry.is_up(instance.host)
    }

    /// Starts a stopped instance. What runs or starts is success.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Precondition where it is stopping, being deleted, or was never provisioned.
    pub async fn start(&self, caller: &Caller, id: &str, etag: &str) -> Result<Instance, CoreError> {
        use InstanceStatus::{Deleted, Deleting, Error, Paused, Running, Starting, Stopped, Stopping};
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let mut row = ordered(&mut tx, caller, id).await?;
        check_etag(&row, etag)?;
        match row.status {
            Running | Starting => return Ok(row),
            Stopped => {}
            Error if row.desired != Desired::Cleaned => {}
            Error => {
                return Err(refuse(
                    &row,
                    "start",
                    "could not be provisioned and has nothing left: delete it and launch it again",
                ));
            }
            Stopping => return Err(refuse(&row, "start", "is stopping: wait until it is STOPPED")),
            Paused => return Err(refuse(&row, "start", "is paused")),
            Deleting | Deleted => return Err(refuse(&row, "start", "is being deleted")),
        }
        check_host(&mut tx, &row, "start").await?;
        row.status = Starting;
        row.status_reason.clear();
        row.desired = Desired::Running;
        row.incarnation = Incarnation::random();
        row.stop_requested_at = None;
        // Begun anew by its user: what ended before does not count, and missing data are looked for again.
        (row.quick_ends, row.restart_at) = (0, None);
        row.missing.clear();
        row.start_deadline = Some(Timestamp::now().plus(self.settings.start_timeout));
        self.commit(tx, caller, &mut row, "instance.start").await?;
        Ok(row)
    }

    /// Stops an instance and waits until it is STOPPED. Stopping a STARTING one cancels its launch.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Precondition where it is being deleted or could not be provisioned; Deadline where it takes longer than a call
    /// waits (the work goes on).
    pub async fn stop(&self, caller: &Caller, id: &str, etag: &str) -> Result<Instance, CoreError> {
        use InstanceStatus::{Deleted, Deleting, Stopped, Stopping};
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let mut row = ordered(&mut tx, caller, id).await?;
        check_etag(&row, etag)?;
        match row.status {
            Stopped if row.desired == Desired::Stopped => return Ok(row),
            Deleting | Deleted => return Err(refuse(&row, "stop", "is being deleted")),
            _ if row.desired == Desired::Cleaned => {
                return Err(refuse(&row, "stop", "could not be provisioned and does not run: delete it"));
            }
            Stopping if row.desired == Desired::Stopped => drop(tx),
            _ => {
                row.status = Stopping;
                row.status_reason.clear();
                row.desired = Desired::Stopped;
                row.restart_at = None;
                row.stop_requested_at = Some(Timestamp::now());
                self.commit(tx, caller, &mut row, "instance.stop").await?;
            }
        }
        self.wait_stopped(row).await
    }

    /// Answers a stop that repeats an earlier one, by its request id: waits as that one did. That it is answered well means that the instance
    /// is STOPPED, as for any stop: one that was given another order since is refused.
    ///
    /// # Errors
    /// `NotFound`; Precondition where another order came after it; Deadline where it takes longer than a call waits.
    pub async fn stop_again(&self, caller: &Caller, id: &str) -> Result<Instance, CoreError> {
        member(caller)?;
        self.wait_stopped(any(&self.store, caller.project, id).await?).await
    }

    async fn wait_stopped(&self, asked: Instance) -> Result<Instance, CoreError> {
        let deadline = Instant::now() + self.settings.stop_wait;
        let mut commits = self.store.commits();
        loop {
            commits.mark_unchanged();
            let row: Instance = self
                .store
                .get(asked.meta.id)
                .await?
                .ok_or_else(|| CoreError::not_found(crate::Kind::Instance, &asked.meta.name))?;
            match row.status {
                InstanceStatus::Stopped => return Ok(row),
                InstanceStatus::Error if !row.missing.is_empty() => {
                    return Err(refuse(&row, "stop", &format!("is ERROR: {}", row.status_reason)));
                }
                _ if row.desired != Desired::Stopped => {
                    return Err(refuse(&row, "stop", "was given another order meanwhile"));
                }
                _ => {}
            }
            // Other gateways' commits may come without a wake-up: look once a second anyway.
            let next = Instant::now() + std::time::Duration::from_secs(1);
            if timeout_at(next.min(deadline), commits.changed()).await.is_err() && Instant::now() >= deadline {
                let why = match self.registry.answers(row.host) {
                    (true, _) => String::new(),
                    (false, why) => format!(" (host {}: {why})", row.host_name),
                };
                return Err(CoreError::Deadline(format!(
                    "instance `{}` is still {}{why}; stopping it goes on",
                    row.meta.name, row.status
                )));
            }
        }
    }

    /// Restarts the guest of a running instance.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`, Precondition where it does not run.
    pub async fn reboot(&self, caller: &Caller, id: &str, etag: &str) -> Result<Instance, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let mut row = ordered(&mut tx, caller, id).await?;
        check_etag(&row, etag)?;
        if row.status != InstanceStatus::Running || row.desired != Desired::Running {
            return Err(refuse(&row, "reboot", &format!("is {}: only a RUNNING one can be rebooted", row.status)));
        }
        row.boot_generation += 1;
        self.commit(tx, caller, &mut row, "instance.reboot").await?;
        Ok(row)
    }

    /// Deletes an instance and its root disk; its data volumes stay.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`.
    pub async fn delete(&self, caller: &Caller, id: &str, etag: &str) -> Result<Instance, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let mut row = ordered(&mut tx, caller, id).await?;
        check_etag(&row, etag)?;
        if row.desired == Desired::Deleted {
            return Ok(row);
        }
        row.status = InstanceStatus::Deleting;
        row.status_reason.clear();
        row.desired = Desired::Deleted;
        self.commit(tx, caller, &mut row, "instance.delete").await?;
        Ok(row)
    }

    /// Makes a volume a disk of an instance. A guest that runs is given it after this; one that is stopped has it when it starts.
    ///
    /// # Errors
    /// `NotFound` (instance, volume), `StaleEtag`, Precondition where the instance is not RUNNING, PAUSED or STOPPED, or has as many disks as it may have, or where
    /// the volume is not AVAILABLE, or is on another host.
    pub async fn attach_volume(
        &self,
        caller: &Caller,
        id: &str,
        etag: &str,
        volume: &str,
    ) -> Result<Instance, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let mut row = attachments::attach(&mut tx, &self.registry, caller, (id, etag), volume).await?;
        self.commit(tx, caller, &mut row, "instance.attach-volume").await?;
        Ok(row)
    }

    /// Takes a volume from an instance. A guest that runs is asked to release it after this, and until it has the volume stays a disk of the instance.
    ///
    /// # Errors
    /// `NotFound` (instance, volume), `StaleEtag`, Precondition where the volume is no disk of the instance or its root disk, or the instance is being started,
    /// stopped or deleted.
    pub async fn detach_volume(
        &self,
        caller: &Caller,
        id: &str,
        etag: &str,
        volume: &str,
    ) -> Result<Instance, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        match attachments::detach(&mut tx, caller, (id, etag), volume).await? {
            (row, false) => Ok(row),
            (mut row, true) => {
                self.commit(tx, caller, &mut row, "instance.detach-volume").await?;
                Ok(row)
            }
        }
    }

    async fn commit(
        &self,
        mut tx: S::Tx,
        caller: &Caller,
        row: &mut Instance,
        action: &'static str,
    ) -> Result<(), CoreError> {
        tx.update(row).await?;
        tx.event(event(caller, row, action)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// An instance type by name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn instance_type(&self, id: &str) -> Result<InstanceType, CoreError> {
        any(&self.store, ProjectId::from(uuid::Uuid::nil()), id).await
    }

    /// All instance types.
    ///
    /// # Errors
    /// Invalid filter, order or page token.
    pub async fn instance_types(&self, page: &PageRequest) -> Result<Page<InstanceType>, CoreError> {
        page.list(&self.store, None, Query::default()).await
    }
}

/// Refuses what needs a host that was declared dead.
pub(super) async fn check_host<T: Tx>(tx: &mut T, row: &Instance, verb: &str) -> Result<(), CoreError> {
    let host: Option<Host> = tx.get(*row.host.as_uuid()).await?;
    if host.is_some_and(|host| host.mode == HostMode::Fenced) {
        let (name, host) = (&row.meta.name, &row.host_name);
        let message = format!("cannot {verb} instance `{name}`: host {host}, which has its disks, was declared dead");
        return Err(CoreError::precondition("HOST_FENCED", message));
    }
    Ok(())
}

/// The live instance, with its work due. The work first: a worker that is about to write the instance holds it, so that what is read after it
/// stays what it is. (Where the call is refused, neither is written.)
pub(super) async fn ordered<T: Tx>(tx: &mut T, caller: &Caller, id: &str) -> Result<Instance, CoreError> {
    let row: Instance = live(tx, caller.project, id).await?;
    tx.enqueue(WorkKind::Instance, row.meta.id).await?;
    live(tx, caller.project, &row.meta.id.to_string()).await
}

pub(super) fn refuse(row: &Instance, verb: &str, why: &str) -> CoreError {
    CoreError::precondition("INSTANCE_STATE", format!("cannot {verb} instance `{}`: it {why}", row.meta.name))
}
