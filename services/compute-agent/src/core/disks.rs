//! Disks that come and go while their guest runs.
//!
//! A guest's tag names every disk that it may have open: a new one is written there before the guest is given it, and one that it is to release stays
//! there until the hypervisor says that it has. So whoever dies in between, what is read of the guest never lacks a disk, and the call is repeated.

use cloud_domain::{CloudId, InstanceId, VolumeId};

use super::{Compute, ComputeError, Disk, Guest, GuestSpec, HypervisorError, SpecError, Tag, decide::owned};

impl Compute {
    /// Gives a running guest a disk, unless it has it, and its limits in any case, and keeps `record`.
    ///
    /// # Errors
    /// [`ComputeError::NotRunning`], one disk too many, the domain is not this cloud's, or the hypervisor refuses.
    pub async fn attach_disk(
        &self,
        cloud: CloudId,
        id: InstanceId,
        disk: Disk,
        record: String,
    ) -> Result<Guest, ComputeError> {
        disk.check("disk")?;
        GuestSpec::check_record("record", &record)?;
        self.in_turn(id, move |this| async move { this.attach_now(cloud, id, &disk, &record).await }).await
    }

    async fn attach_now(
        &self,
        cloud: CloudId,
        id: InstanceId,
        disk: &Disk,
        record: &str,
    ) -> Result<Guest, ComputeError> {
        let hypervisor = &self.inner.hypervisor;
        let guest = self.get(cloud, id).await?;
        if !guest.is_active() {
            return Err(ComputeError::NotRunning(id));
        }
        let spec = guest.tag.spec.with_disk(disk);
        if spec.volumes().len() > GuestSpec::MAX_DISKS {
            let problem = format!("is one too many: the guest has {} disks", guest.tag.spec.volumes().len());
            return Err(SpecError::new("disk", problem).into());
        }
        if spec != guest.tag.spec {
            hypervisor.write_tag(&Tag { spec, ..guest.tag }).await?;
        }
        if let Err(error) = hypervisor.attach_disk(id, disk).await {
            return Err(self.unless_off(cloud, id, error).await);
        }
        hypervisor.keep_record(id, record).await?;
        self.get(cloud, id).await
    }

    /// Asks a running guest to release a disk; takes it from one that is off. Answers with the guest as it is then, which may have the disk still: then it is
    /// to be asked again. When it has not, `record` is kept. `None` where there is no such guest.
    ///
    /// # Errors
    /// The domain is not this cloud's, or the hypervisor refuses.
    pub async fn detach_disk(
        &self,
        cloud: CloudId,
        id: InstanceId,
        volume: VolumeId,
        record: String,
    ) -> Result<Option<Guest>, ComputeError> {
        GuestSpec::check_record("record", &record)?;
        self.in_turn(id, move |this| async move { this.detach_now(cloud, id, volume, &record).await }).await
    }

    async fn detach_now(
        &self,
        cloud: CloudId,
        id: InstanceId,
        volume: VolumeId,
        record: &str,
    ) -> Result<Option<Guest>, ComputeError> {
        let hypervisor = &self.inner.hypervisor;
        let Some(found) = hypervisor.find(id).await? else { return Ok(None) };
        owned(cloud, id, &found)?;
        match hypervisor.detach_disk(id, volume).await {
            Ok(false) => {}
            Ok(true) => {
                // Read anew: waiting for the guest takes seconds.
                let guest = self.get(cloud, id).await?;
                let spec = guest.tag.spec.without_disk(volume);
                if spec != guest.tag.spec {
                    hypervisor.write_tag(&Tag { spec, ..guest.tag }).await?;
                }
                hypervisor.keep_record(id, record).await?;
            }
            Err(HypervisorError::Gone) => return Ok(None),
            Err(error) => return Err(self.unless_off(cloud, id, error).await),
        }
        self.get(cloud, id).await.map(Some)
    }

    /// What an error means that may have come of the guest's end.
    async fn unless_off(&self, cloud: CloudId, id: InstanceId, error: HypervisorError) -> ComputeError {
        match self.get(cloud, id).await {
            Ok(guest) if guest.is_active() => error.into(),
            Ok(_) => ComputeError::NotRunning(id),
            Err(other) => other,
        }
    }
}
