//! Carrying out what the gateway asks, over the hypervisor port.

use std::{
    collections::HashSet,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use cloud_domain::{CloudId, InstanceId, Mib, VolumeId};
use tokio::sync::{broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ByteStream, ComputeError, EnsureStep, Guest, GuestSpec, Hypervisor, HypervisorError, HypervisorEvent, Tag,
    decide::owned, decide_ensure, serial_work::Turns,
};

/// How long a call waits for another one that works on the same instance.
const TURN_LIMIT: Duration = Duration::from_secs(5);

/// The guests of this host. Cheap to clone.
#[derive(Clone)]
pub struct Compute {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Reboots that a task looks after.
    pub reboots: Mutex<HashSet<InstanceId>>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    turns: Turns,
    cloud: watch::Sender<Option<CloudId>>,
}

impl Compute {
    /// The guests that `hypervisor` runs. Starts a task that keeps their tags up to date; [`Self::close`] ends it.
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        let compute = Self {
            inner: Arc::new(Inner {
                hypervisor,
                reboots: Mutex::default(),
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
                turns: Turns::default(),
                cloud: watch::Sender::new(None),
            }),
        };
        compute.inner.tasks.spawn(super::observe::run(compute.clone()));
        compute
    }

    /// Says which cloud this host belongs to. Nothing is written on any domain before.
    pub fn set_cloud(&self, cloud: CloudId) {
        self.inner.cloud.send_if_modified(|known| known.replace(cloud) != Some(cloud));
    }

    pub(super) fn cloud(&self) -> watch::Receiver<Option<CloudId>> {
        self.inner.cloud.subscribe()
    }

    /// Ends the tasks, work under way first, for `limit` at most. No guest is touched.
    pub async fn close(&self, limit: Duration) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(limit, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.inner.tasks.len(), "work on guests was still under way at the end");
        }
    }

    /// Runs `work` on an instance when its turn comes, to its end even if the caller goes away.
    pub(super) async fn in_turn<T, F>(
        &self,
        id: InstanceId,
        work: impl FnOnce(Self) -> F + Send + 'static,
    ) -> Result<T, ComputeError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ComputeError>> + Send + 'static,
    {
        let turn = self.inner.turns.take(id, TURN_LIMIT).await.ok_or(ComputeError::Busy(id))?;
        let this = self.clone();
        let task = self.inner.tasks.spawn(async move {
            let _turn = turn;
            work(this).await
        });
        task.await.unwrap_or_else(|error| {
            Err(HypervisorError::Failed { action: "carry out the call", message: error.to_string() }.into())
        })
    }

    /// Makes the guest exist and run as specified.
    ///
    /// # Errors
    /// See [`decide_ensure`], and what the hypervisor refuses.
    pub async fn ensure(&self, cloud: CloudId, spec: GuestSpec) -> Result<Guest, ComputeError> {
        spec.check()?;
        self.in_turn(spec.id, move |this| async move { this.ensure_now(cloud, &spec).await }).await
    }

    async fn ensure_now(&self, cloud: CloudId, spec: &GuestSpec) -> Result<Guest, ComputeError> {
        let found = self.inner.hypervisor.find(spec.id).await?;
        match decide_ensure(cloud, spec, found.as_ref())? {
            EnsureStep::Launch => self.launch(cloud, spec).await?,
            EnsureStep::Reboot => {
                if let Some(found) = &found {
                    self.begin_reboot(owned(cloud, spec.id, found)?, spec.boot_generation).await?;
                }
            }
            EnsureStep::Keep => {}
        }
        self.get(cloud, spec.id).await
    }

    async fn launch(&self, cloud: CloudId, spec: &GuestSpec) -> Result<(), ComputeError> {
        let hypervisor = &self.inner.hypervisor;
        let mut tag = Tag::new(cloud, spec);
        hypervisor.define(spec, &tag).await?;
        hypervisor.start(spec.id).await?;
        tag.started_at = Some(SystemTime::now());
        // It runs: a tag that could not be written now is written by the observer.
        if let Err(error) = hypervisor.write_tag(&tag).await {
            tracing::warn!(instance = %spec.id, %error, "the start time is not on the domain yet");
        }
        Ok(())
    }

    /// Asks a guest to stop, or with `force` powers it off. `None` where there is no such guest.
    ///
    /// # Errors
    /// The domain is not this cloud's, or the hypervisor refuses.
    pub async fn stop(&self, cloud: CloudId, id: InstanceId, force: bool) -> Result<Option<Guest>, ComputeError> {
        self.in_turn(id, move |this| async move { this.stop_now(cloud, id, force).await }).await
    }

    async fn stop_now(&self, cloud: CloudId, id: InstanceId, force: bool) -> Result<Option<Guest>, ComputeError> {
        let hypervisor = &self.inner.hypervisor;
        let Some(found) = hypervisor.find(id).await? else { return Ok(None) };
        let guest = owned(cloud, id, &found)?;
        if guest.is_active() {
            if guest.tag.reboot.is_some() {
                // A guest that is to stop is not reset on its way down.
                hypervisor.write_tag(&Tag { reboot: None, ..guest.tag.clone() }).await?;
            }
            let result = if force { hypervisor.power_off(id).await } else { hypervisor.shutdown(id).await };
            match result {
                // It ended just now, by itself.
                Ok(()) | Err(HypervisorError::WrongState(_) | HypervisorError::Gone) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self.get(cloud, id).await {
            Ok(guest) => Ok(Some(guest)),
            Err(ComputeError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has a running guest see that a disk is larger, and grows a disk that only the hypervisor may change.
    ///
    /// # Errors
    /// [`ComputeError::NotRunning`], [`ComputeError::NoDisk`], the domain is not this cloud's, or the hypervisor refuses.
    pub async fn resize_disk(
        &self,
        cloud: CloudId,
        id: InstanceId,
        volume: VolumeId,
        size: Mib,
    ) -> Result<(), ComputeError> {
        let resize = move |this: Self| async move {
            let guest = this.get(cloud, id).await?;
            if !guest.is_active() {
                return Err(ComputeError::NotRunning(id));
            }
            if !guest.tag.spec.volumes().contains(&volume.to_string()) {
                return Err(ComputeError::NoDisk { id, volume });
            }
            match this.inner.hypervisor.resize_disk(id, volume, size).await {
                // It ended just now.
                Err(HypervisorError::WrongState(_) | HypervisorError::Gone) => Err(ComputeError::NotRunning(id)),
                other => Ok(other?),
            }
        };
        self.in_turn(id, resize).await
    }

    /// Removes a guest and everything made for it here.
    ///
    /// # Errors
    /// The domain is not this cloud's, or the hypervisor refuses.
    pub async fn remove(&self, cloud: CloudId, id: InstanceId) -> Result<(), ComputeError> {
        self.in_turn(id, move |this| async move { this.remove_now(cloud, id).await }).await
    }

    async fn remove_now(&self, cloud: CloudId, id: InstanceId) -> Result<(), ComputeError> {
        let hypervisor = &self.inner.hypervisor;
        if let Some(found) = hypervisor.find(id).await? {
            let guest = owned(cloud, id, &found)?;
            if guest.is_active() {
                match hypervisor.power_off(id).await {
                    Ok(()) | Err(HypervisorError::WrongState(_) | HypervisorError::Gone) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match hypervisor.undefine(id).await {
                Ok(()) | Err(HypervisorError::Gone) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(hypervisor.remove_files(id).await?)
    }

    /// The guest as the hypervisor sees it.
    ///
    /// # Errors
    /// [`ComputeError::NotFound`] only where a working hypervisor says so.
    pub async fn get(&self, cloud: CloudId, id: InstanceId) -> Result<Guest, ComputeError> {
        match self.inner.hypervisor.find(id).await? {
            None => Err(ComputeError::NotFound(id)),
            Some(found) => owned(cloud, id, &found).cloned(),
        }
    }

    /// The record that is kept of the guest; empty where there is none.
    ///
    /// # Errors
    /// What the system says.
    pub async fn record(&self, id: InstanceId) -> Result<String, ComputeError> {
        Ok(self.inner.hypervisor.record(id).await?)
    }

    /// Every guest of this cloud.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub async fn list(&self, cloud: CloudId) -> Result<Vec<Guest>, ComputeError> {
        let mut guests = self.inner.hypervisor.list().await?;
        guests.retain(|guest| guest.tag.cloud == cloud);
        Ok(guests)
    }

    /// What the hypervisor tells by itself, from now on.
    ///
    /// # Errors
    /// There is no connection to it now.
    pub fn events(&self) -> Result<broadcast::Receiver<HypervisorEvent>, ComputeError> {
        let events = self.inner.hypervisor.events();
        if self.inner.hypervisor.is_connected() {
            Ok(events)
        } else {
            Err(HypervisorError::Unavailable("there is no connection to it".into()).into())
        }
    }

    /// The end of the serial console's log.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub async fn console_log(&self, cloud: CloudId, id: InstanceId, max: usize) -> Result<Vec<u8>, ComputeError> {
        self.get(cloud, id).await?;
        Ok(self.inner.hypervisor.console_log(id, max).await?)
    }

    /// The serial console of a guest that runs.
    ///
    /// # Errors
    /// [`ComputeError::NotRunning`], and see [`Self::get`].
    pub async fn open_serial(&self, cloud: CloudId, id: InstanceId) -> Result<Box<dyn ByteStream>, ComputeError> {
        self.running(cloud, id).await?;
        Ok(self.inner.hypervisor.open_serial(id).await?)
    }

    /// The screen of a guest that runs, speaking RFB.
    ///
    /// # Errors
    /// [`ComputeError::NotRunning`], and see [`Self::get`].
    pub async fn open_screen(&self, cloud: CloudId, id: InstanceId) -> Result<Box<dyn ByteStream>, ComputeError> {
        self.running(cloud, id).await?;
        Ok(self.inner.hypervisor.open_screen(id).await?)
    }

    async fn running(&self, cloud: CloudId, id: InstanceId) -> Result<(), ComputeError> {
        let guest = self.get(cloud, id).await?;
        if guest.is_active() { Ok(()) } else { Err(ComputeError::NotRunning(id)) }
    }
}

impl Inner {
    pub fn reboots(&self) -> std::sync::MutexGuard<'_, HashSet<InstanceId>> {
        self.reboots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
