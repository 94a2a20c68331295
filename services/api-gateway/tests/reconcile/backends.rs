//! The core's backend ports, as a host in memory keeps them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use cloud_core::{
    model::{ImageFormat, ImageSource, VolumeSource},
    ports::{
        BackendError, ComputeBackend, DiskSpec, Fencer, FetchError, FoundSnapshot, FoundVolume, FoundVpc, Guest,
        GuestPower, GuestReason, GuestSpec, GuestTarget, HeldImage, ImageFile, ImageStore, NetworkBackend, PluggedPort,
        SnapshotSpec, StorageBackend, StoredVolume, VolumeSpec, VpcSlice,
    },
};
use cloud_domain::{HostId, ImageId, InstanceId, PortId, SnapshotId, VolumeId, VpcId};
use futures::{StreamExt, stream::BoxStream};
use tokio_stream::wrappers::BroadcastStream;

use super::{Answer, FakeHost};

#[async_trait]
impl ComputeBackend for FakeHost {
    async fn ensure(&self, target: GuestTarget, spec: GuestSpec) -> Answer<Guest> {
        let done = self.call("compute.ensure", |state| {
            state.fence(*target.id.as_uuid(), target.version)?;
            state.ensure(target, &spec)?;
            state.guest(target.id).ok_or_else(|| BackendError::Failed("it is gone".into()))
        });
        let done = done.await;
        // Defining a guest is a change, whatever comes of it.
        self.changed(target.id);
        done
    }

    async fn stop(&self, target: GuestTarget, force: bool) -> Answer<Option<Guest>> {
        let done = self.call("compute.stop", |state| {
            state.fence(*target.id.as_uuid(), target.version)?;
            let deaf = state.deaf;
            if let Some(domain) = state.domains.get_mut(&target.id).filter(|d| d.is_active() && (force || !deaf)) {
                domain.power = GuestPower::Shutoff;
                domain.reason = if force { GuestReason::Destroyed } else { GuestReason::GuestShutdown };
            }
            Ok(state.guest(target.id))
        });
        let done = done.await;
        self.changed(target.id);
        done
    }

    async fn remove(&self, target: GuestTarget) -> Answer<()> {
        self.call("compute.remove", |state| {
            state.fence(*target.id.as_uuid(), target.version)?;
            state.domains.remove(&target.id);
            Ok(())
        })
        .await
    }

    async fn resize_disk(&self, target: GuestTarget, volume: VolumeId, size_bytes: u64) -> Answer<()> {
        self.call("compute.resize_disk", |state| {
            state.fence(*target.id.as_uuid(), target.version)?;
            if !state.in_use(volume) {
                return Err(BackendError::Precondition("it does not run".into()));
            }
            state.grown.insert(volume, size_bytes);
            state.told.insert(volume, size_bytes);
            Ok(())
        })
        .await
    }

    async fn attach_disk(&self, target: GuestTarget, disk: DiskSpec, record: String) -> Answer<Guest> {
        self.call("compute.attach_disk", |state| {
            state.fence(*target.id.as_uuid(), target.version)?;
            state.attach(target.id, &disk, &record)?;
            state.guest(target.id).ok_or_else(|| BackendError::Failed("it is gone".into()))
        })
        .await
    }

    async fn detach_disk(&self, target: GuestTarget, volume: VolumeId, record: String) -> Answer<Option<Guest>> {
        self.call("compute.detach_disk", |state| {
            state.fence(*target.id.as_uuid(), target.version)?;
            state.detach(target.id, volume, &record);
            Ok(state.guest(target.id))
        })
        .await
    }

    async fn get(&self, _: HostId, id: InstanceId) -> Answer<Option<Guest>> {
        self.call("compute.get", |state| Ok(state.guest(id))).await
    }

    async fn record(&self, _: HostId, id: InstanceId) -> Answer<Option<String>> {
        self.call("compute.record", |state| Ok(state.domains.get(&id).map(|domain| domain.record.clone()))).await
    }

    async fn list(&self, _: HostId) -> Answer<Vec<Guest>> {
        let state = self.listable()?;
        Ok(state.domains.keys().filter_map(|id| state.guest(*id)).collect())
    }

    async fn watch(&self, _: HostId) -> Answer<BoxStream<'static, InstanceId>> {
        let changes = BroadcastStream::new(self.changes.subscribe());
        Ok(changes.filter_map(|id| std::future::ready(id.ok())).boxed())
    }

    async fn console_log(&self, _: HostId, _: InstanceId, _: u32) -> Answer<Vec<u8>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl StorageBackend for FakeHost {
    async fn has_image(&self, _: HostId, _: &str, image: ImageId) -> Answer<bool> {
        self.call("storage.has_image", |state| Ok(state.images.contains(&image))).await
    }

    async fn put_image(&self, _: HostId, _: &str, image: ImageId, version: u64, _: ImageFile) -> Answer<()> {
        if self.state().images_stall {
            self.state().calls.push("storage.put_image");
            return std::future::pending().await;
        }
        self.call("storage.put_image", |state| {
            state.fence(*image.as_uuid(), version)?;
            state.images.insert(image);
            Ok(())
        })
        .await
    }

    async fn remove_image(&self, _: HostId, image: ImageId, version: u64) -> Answer<()> {
        self.call("storage.remove_image", |state| {
            state.fence(*image.as_uuid(), version)?;
            if !state.volumes.is_empty() {
                return Err(BackendError::Precondition("disks stand on it".into()));
            }
            state.images.remove(&image);
            Ok(())
        })
        .await
    }

    async fn ensure_volume(&self, spec: VolumeSpec) -> Answer<StoredVolume> {
        self.call("storage.ensure_volume", |state| {
            state.fence(*spec.id.as_uuid(), spec.version)?;
            if !state.volumes.contains_key(&spec.id) {
                if !spec.may_create {
                    return Err(BackendError::DataMissing(format!("volume {} is gone", spec.id)));
                }
                state.stumble("storage.ensure_volume")?;
                match spec.source {
                    VolumeSource::Image(image) if !state.images.contains(&image) => {
                        return Err(BackendError::Precondition("its image is not cached".into()));
                    }
                    VolumeSource::Snapshot(id) if !state.snapshots.contains_key(&id) => {
                        return Err(BackendError::NotFound(format!("snapshot {id} is gone")));
                    }
                    VolumeSource::Volume(id) if !state.volumes.contains_key(&id) => {
                        return Err(BackendError::NotFound(format!("volume {id} is gone")));
                    }
                    _ => {}
                }
                if state.written.contains(&spec.id) {
                    state.violations.push(format!("volume {} was made anew over what a guest wrote", spec.id));
                }
                state.volumes.insert(spec.id, false);
            }
            let path = format!("/volumes/{}", spec.id);
            Ok(StoredVolume { id: spec.id, path, format: "qcow2".into(), pool: spec.pool.clone() })
        })
        .await
    }

    async fn remove_volume(&self, _: HostId, id: VolumeId, version: u64) -> Answer<()> {
        self.call("storage.remove_volume", |state| {
            state.fence(*id.as_uuid(), version)?;
            if state.domains.values().any(|d| d.is_active() && d.disks.contains(&id)) {
                state.violations.push(format!("volume {id} was to be removed from a running guest"));
                return Err(BackendError::Precondition("it is in use".into()));
            }
            state.volumes.remove(&id);
            Ok(())
        })
        .await
    }

    async fn resize_volume(&self, _: HostId, id: VolumeId, version: u64, size_bytes: u64) -> Answer<()> {
        self.call("storage.resize_volume", |state| {
            state.fence(*id.as_uuid(), version)?;
            if !state.volumes.contains_key(&id) {
                return Err(BackendError::NotFound(format!("volume {id} is gone")));
            }
            if state.full {
                return Err(BackendError::Exhausted("the pool is full".into()));
            }
            if state.grown.get(&id) == Some(&size_bytes) {
                return Ok(());
            }
            if state.in_use(id) {
                return Err(BackendError::Precondition("it is in use".into()));
            }
            state.grown.insert(id, size_bytes);
            Ok(())
        })
        .await
    }

    async fn ensure_snapshot(&self, spec: SnapshotSpec) -> Answer<FoundSnapshot> {
        self.call("storage.ensure_snapshot", |state| {
            state.fence(*spec.id.as_uuid(), spec.version)?;
            if !state.snapshots.contains_key(&spec.id) {
                if !spec.may_create {
                    return Err(BackendError::DataMissing(format!("snapshot {} is gone", spec.id)));
                }
                state.stumble("storage.ensure_snapshot")?;
                if !state.volumes.contains_key(&spec.volume) {
                    return Err(BackendError::NotFound(format!("volume {} is gone", spec.volume)));
                }
                state.snapshots.insert(spec.id, spec.volume);
            }
            let size_bytes = state.grown.get(&spec.volume).copied().unwrap_or(1 << 30);
            Ok(FoundSnapshot { id: spec.id, volume: spec.volume, size_bytes, pool: spec.pool.clone() })
        })
        .await
    }

    async fn remove_snapshot(&self, _: HostId, id: SnapshotId, version: u64) -> Answer<()> {
        self.call("storage.remove_snapshot", |state| {
            state.fence(*id.as_uuid(), version)?;
            state.snapshots.remove(&id);
            Ok(())
        })
        .await
    }

    async fn list_snapshots(&self, _: HostId) -> Answer<Vec<FoundSnapshot>> {
        let found = |(id, volume): (&SnapshotId, &VolumeId)| FoundSnapshot {
            id: *id,
            volume: *volume,
            size_bytes: 1 << 30,
            pool: "default".into(),
        };
        Ok(self.listable()?.snapshots.iter().map(found).collect())
    }

    async fn list_volumes(&self, _: HostId) -> Answer<Vec<FoundVolume>> {
        let found = |id: &VolumeId| FoundVolume {
            id: *id,
            size_bytes: 1 << 30,
            image: None,
            copied: None,
            pool: "default".into(),
            path: format!("/volumes/{id}"),
            format: "qcow2".into(),
        };
        Ok(self.listable()?.volumes.keys().map(found).collect())
    }
}

#[async_trait]
impl NetworkBackend for FakeHost {
    async fn apply(&self, _: HostId, slice: &VpcSlice) -> Answer<Vec<PluggedPort>> {
        let local: BTreeSet<PortId> = slice.ports.iter().filter(|p| p.local).map(|p| p.id).collect();
        self.call("network.apply", |state| {
            state.fence(*slice.vpc.as_uuid(), slice.generation)?;
            if state.left.get(&slice.vpc).is_some_and(|left| slice.generation <= *left) {
                return Err(BackendError::Stale("the VPC was removed after that".into()));
            }
            state.plug(slice.vpc, slice.generation, local.clone());
            state.subnets.insert(slice.vpc, slice.subnets.len());
            Ok(local.iter().map(|id| PluggedPort { id: *id, device: id.tap_device() }).collect())
        })
        .await
    }

    async fn remove(&self, _: HostId, vpc: VpcId, generation: u64) -> Answer<()> {
        self.call("network.remove", |state| {
            state.fence(*vpc.as_uuid(), generation)?;
            state.plug(vpc, generation, BTreeSet::new());
            state.left.insert(vpc, generation);
            Ok(())
        })
        .await
    }

    async fn list_vpcs(&self, _: HostId) -> Answer<Vec<FoundVpc>> {
        let found = |(id, (generation, ports)): (&VpcId, &(u64, BTreeSet<PortId>))| FoundVpc {
            id: *id,
            vni: 5000,
            order: (1, *generation),
            ports: ports.clone(),
        };
        Ok(self.listable()?.vpcs.iter().map(found).collect())
    }
}

#[async_trait]
impl Fencer for FakeHost {
    async fn power_off(&self, _: HostId, _: &str) -> Result<String, String> {
        let done = self.call("fencer.power_off", |state| {
            state.stumble("fencer.power_off")?;
            for domain in state.domains.values_mut() {
                (domain.power, domain.reason) = (GuestPower::Shutoff, GuestReason::Unknown);
            }
            Ok("off".to_owned())
        });
        done.await.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl ImageStore for FakeHost {
    async fn fetch(
        &self,
        _: ImageId,
        source: &ImageSource,
        _: Option<ImageFormat>,
        _: &str,
    ) -> Result<ImageFile, FetchError> {
        self.call("images.fetch", |_| Ok(())).await.map_err(|error| FetchError::Later(error.to_string()))?;
        match source {
            ImageSource::Url(_) => Ok(ImageFile {
                path: "/images/fetched".into(),
                format: ImageFormat::Qcow2,
                sha256: "00".repeat(32),
                size_bytes: 1,
                virtual_size_bytes: 1 << 20,
            }),
            _ => Err(FetchError::Refused("nothing else is fetched here".into())),
        }
    }

    async fn hold(&self, _: ImageId, _: &str, _: u64) -> Result<Option<HeldImage>, FetchError> {
        Ok(Some(HeldImage::new("/images/tiny".into())))
    }

    async fn remove(&self, _: ImageId) -> Result<(), FetchError> {
        let done = self.call("images.remove", |_| Ok(())).await;
        done.map_err(|error| FetchError::Later(error.to_string()))
    }
}
