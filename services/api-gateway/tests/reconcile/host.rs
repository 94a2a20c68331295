//! A host in memory behind the core's backend ports. It keeps the agents' contract (ensure, fence, refuse), can fail or fall silent at any
//! call, before or after the call took effect, and writes down what must never happen.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use cloud_core::{
    model::{ImageFormat, ImageSource, Timestamp, VolumeSource},
    ports::{
        BackendError, ComputeBackend, FetchError, FoundSnapshot, FoundVolume, FoundVpc, Guest, GuestPower, GuestReason,
        GuestSpec, GuestTarget, ImageFile, ImageStore, NetworkBackend, PluggedPort, SnapshotSpec, StorageBackend,
        StoredVolume, VolumeSpec, VpcSlice,
    },
};
use cloud_domain::{HostId, ImageId, Incarnation, InstanceId, PortId, SnapshotId, VolumeId, VpcId};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::{Notify, broadcast};
use tokio_stream::wrappers::BroadcastStream;
use uuid::Uuid;

/// What goes wrong at a call, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call does not arrive.
    Lost,
    /// It is carried out, and its answer does not arrive.
    AnswerLost,
    /// The gateway is killed before the call arrives.
    KilledBefore,
    /// The gateway is killed after the call is carried out, before it hears of it.
    KilledAfter,
}

impl Fault {
    pub const ALL: [Self; 4] = [Self::Lost, Self::AnswerLost, Self::KilledBefore, Self::KilledAfter];
}

#[derive(Debug, Clone)]
pub struct Domain {
    pub incarnation: Incarnation,
    pub power: GuestPower,
    pub reason: GuestReason,
    pub boot_generation: u64,
    pub disks: Vec<VolumeId>,
    pub ports: Vec<PortId>,
    pub started_at: Timestamp,
}

impl Domain {
    fn is_active(&self) -> bool {
        matches!(self.power, GuestPower::Running | GuestPower::Paused)
    }
}

#[derive(Debug, Default)]
pub struct State {
    pub domains: BTreeMap<InstanceId, Domain>,
    /// Whether a guest was ever started on it.
    pub volumes: BTreeMap<VolumeId, bool>,
    /// Snapshots, by the volumes that they are of.
    pub snapshots: BTreeMap<SnapshotId, VolumeId>,
    /// What volumes have grown to, in bytes.
    pub grown: BTreeMap<VolumeId, u64>,
    /// What guests were told of it.
    pub told: BTreeMap<VolumeId, u64>,
    /// Calls that are refused once, each for something that passes.
    pub stumbles: Vec<&'static str>,
    /// Its pool is full: nothing grows.
    pub full: bool,
    pub images: BTreeSet<ImageId>,
    pub vpcs: BTreeMap<VpcId, (u64, BTreeSet<PortId>)>,
    /// How many subnets it was last told of.
    pub subnets: BTreeMap<VpcId, usize>,
    /// Calls that change something or ask for one guest, in order.
    pub calls: Vec<&'static str>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// At which call what goes wrong.
    pub fault: Option<(usize, Fault)>,
    /// The background's commits, in order: where each was made.
    pub commits: Vec<String>,
    /// At which commit of those made in a place what goes wrong.
    pub commit_fault: Option<(String, usize, Fault)>,
    /// At the next call of this name.
    pub call_fault: Option<(&'static str, Fault)>,
    /// Every change is asked for twice.
    pub twice: bool,
    /// Guests do not follow a request to shut down.
    pub deaf: bool,
    /// What starting a guest comes to instead.
    pub start: Option<Start>,
    /// Images never arrive.
    pub images_stall: bool,
    /// The host does not say what it has.
    pub silent: bool,
    newest: HashMap<Uuid, u64>,
    left: HashMap<VpcId, u64>,
    written: BTreeSet<VolumeId>,
}

/// What starting a guest comes to.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    Fails,
    Pauses,
}

/// A host.
pub struct FakeHost {
    state: Mutex<State>,
    changes: broadcast::Sender<InstanceId>,
    /// The gateway is to be killed.
    pub kill: Notify,
}

type Answer<T> = Result<T, BackendError>;

impl FakeHost {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changes: broadcast::Sender::new(1024), kill: Notify::new() })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What a list is made of. Lists are not counted as calls: how many there are depends on time alone.
    fn listable(&self) -> Answer<MutexGuard<'_, State>> {
        let state = self.state();
        if state.silent {
            return Err(BackendError::Unreachable("the host does not say what it has".into()));
        }
        Ok(state)
    }

    pub fn changed(&self, id: InstanceId) {
        let _ = self.changes.send(id);
    }

    /// What goes wrong at a commit made in this place.
    pub fn strikes(&self, place: String) -> Option<Fault> {
        let mut state = self.state();
        let before = state.commits.iter().filter(|p| **p == place).count();
        let fault = state.commit_fault.take_if(|(at, nth, _)| *at == place && *nth == before);
        state.commits.push(place);
        fault.map(|(_, _, fault)| fault)
    }

    async fn call<T>(&self, name: &'static str, work: impl Fn(&mut State) -> Answer<T> + Send) -> Answer<T> {
        let lost = || Err(BackendError::Unreachable("the host does not answer".into()));
        let fault = {
            let mut state = self.state();
            state.calls.push(name);
            let now = state.calls.len() - 1;
            let named = state.call_fault.take_if(|(at, _)| *at == name).map(|(_, fault)| fault);
            state.fault.take_if(|(at, _)| *at == now).map(|(_, fault)| fault).or(named)
        };
        match fault {
            Some(Fault::Lost) => return lost(),
            Some(Fault::KilledBefore) => {}
            _ => {
                let mut state = self.state();
                if state.twice {
                    let _ = work(&mut state);
                }
                let done = work(&mut state);
                match fault {
                    None => return done,
                    Some(Fault::AnswerLost) => return lost(),
                    Some(_) => {}
                }
            }
        }
        self.kill.notify_one();
        std::future::pending().await
    }
}

impl State {
    fn fence(&mut self, id: Uuid, version: u64) -> Answer<()> {
        let newest = self.newest.entry(id).or_default();
        if version < *newest {
            return Err(BackendError::Stale(format!("version {version} came after {newest}")));
        }
        *newest = version;
        Ok(())
    }

    /// Whether this call is to be refused now.
    fn stumble(&mut self, name: &'static str) -> Answer<()> {
        match self.stumbles.iter().position(|call| *call == name) {
            None => Ok(()),
            Some(at) => {
                self.stumbles.remove(at);
                Err(BackendError::Precondition("not now".into()))
            }
        }
    }

    fn in_use(&self, id: VolumeId) -> bool {
        self.domains.values().any(|domain| domain.is_active() && domain.disks.contains(&id))
    }

    fn guest(&self, id: InstanceId) -> Option<Guest> {
        let domain = self.domains.get(&id)?;
        Some(Guest {
            id,
            incarnation: domain.incarnation,
            power: domain.power,
            reason: domain.reason,
            boot_generation: domain.boot_generation,
            started_at: Some(domain.started_at),
            volumes: domain.disks.clone(),
        })
    }

    fn ensure(&mut self, target: GuestTarget, spec: &GuestSpec) -> Answer<()> {
        if let Some(domain) = self.domains.get_mut(&target.id) {
            if domain.incarnation == target.incarnation && domain.is_active() {
                domain.boot_generation = domain.boot_generation.max(spec.boot_generation);
                return Ok(());
            }
            if domain.is_active() {
                return Err(BackendError::Precondition("another incarnation runs".into()));
            }
            if domain.incarnation == target.incarnation
                && matches!(domain.reason, GuestReason::GuestShutdown | GuestReason::Destroyed | GuestReason::Crashed)
            {
                return Ok(());
            }
        }
        let (power, reason) = match self.start {
            Some(Start::Fails) => return Err(BackendError::Failed("the hypervisor cannot start it".into())),
            Some(Start::Pauses) => (GuestPower::Paused, GuestReason::IoError),
            None => (GuestPower::Running, GuestReason::Unknown),
        };
        for disk in &spec.disks {
            let Some(written) = self.volumes.get_mut(&disk.volume) else {
                return Err(BackendError::Precondition(format!("disk {} is missing", disk.volume)));
            };
            *written = true;
            self.written.insert(disk.volume);
        }
        let plugged = |port: &PortId| self.vpcs.values().any(|(_, ports)| ports.contains(port));
        if let Some(nic) = spec.nics.iter().find(|n| !plugged(&n.port)) {
            return Err(BackendError::Precondition(format!("port {} is missing", nic.port)));
        }
        let domain = Domain {
            incarnation: target.incarnation,
            power,
            reason,
            boot_generation: spec.boot_generation,
            disks: spec.disks.iter().map(|d| d.volume).collect(),
            ports: spec.nics.iter().map(|n| n.port).collect(),
            started_at: Timestamp::now(),
        };
        self.domains.insert(target.id, domain);
        Ok(())
    }

    fn plug(&mut self, vpc: VpcId, generation: u64, ports: BTreeSet<PortId>) {
        let before = self.vpcs.get(&vpc).map(|(_, p)| p.clone()).unwrap_or_default();
        for gone in before.difference(&ports) {
            if self.domains.values().any(|d| d.is_active() && d.ports.contains(gone)) {
                self.violations.push(format!("port {gone} was unplugged from a running guest"));
            }
        }
        if ports.is_empty() {
            self.vpcs.remove(&vpc);
        } else {
            self.vpcs.insert(vpc, (generation, ports));
        }
    }
}

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

    async fn get(&self, _: HostId, id: InstanceId) -> Answer<Option<Guest>> {
        self.call("compute.get", |state| Ok(state.guest(id))).await
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

    async fn path(&self, _: ImageId) -> Result<Option<PathBuf>, FetchError> {
        Ok(Some("/images/tiny".into()))
    }

    async fn remove(&self, _: ImageId) -> Result<(), FetchError> {
        let done = self.call("images.remove", |_| Ok(())).await;
        done.map_err(|error| FetchError::Later(error.to_string()))
    }
}
