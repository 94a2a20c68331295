//! A hypervisor of maps and channels.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use cloud_domain::{CloudId, DiskLimits, Incarnation, InstanceId, Mib, VolumeId};
use tokio::sync::broadcast;

use crate::core::{
    ByteStream, Disk, DiskFormat, Ended, Found, Guest, GuestSpec, Hypervisor, HypervisorError, HypervisorEvent, Power,
    Reason, Seed, Tag,
};

pub const GRACE: Duration = Duration::from_secs(15);

pub struct Fake {
    pub domains: Mutex<HashMap<InstanceId, Found>>,
    /// What was done, in order.
    pub done: Mutex<Vec<&'static str>>,
    /// That were attached, to whatever guest.
    pub disks: Mutex<HashSet<VolumeId>>,
    /// Guests do not release disks.
    pub holds: AtomicBool,
    /// Of whoever was defined last.
    pub record: Mutex<String>,
    /// Steps that fail once.
    pub fail: Mutex<Vec<&'static str>>,
    pub events: broadcast::Sender<HypervisorEvent>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            domains: Mutex::default(),
            done: Mutex::default(),
            disks: Mutex::default(),
            holds: AtomicBool::new(false),
            record: Mutex::default(),
            fail: Mutex::default(),
            events: broadcast::Sender::new(64),
        }
    }
}

pub fn spec() -> GuestSpec {
    GuestSpec {
        id: InstanceId::random(),
        incarnation: Incarnation::random(),
        boot_generation: 1,
        name: "web-01".parse().unwrap(),
        vcpus: 1,
        memory: 128.try_into().unwrap(),
        disks: vec![Disk {
            volume: VolumeId::random(),
            path: "/pool/a.qcow2".into(),
            format: DiskFormat::Qcow2,
            read_only: false,
            limits: DiskLimits::default(),
        }],
        nics: vec![],
        seed: Seed { hostname: "web-01".parse().unwrap(), ssh_keys: vec![], user_data: String::new() },
        record: "launched as web-01".into(),
    }
}

pub fn guest(cloud: CloudId, spec: &GuestSpec, power: Power, hypervisor_reason: Reason) -> Guest {
    let tag = Tag { started_at: Some(std::time::SystemTime::UNIX_EPOCH), ..Tag::new(cloud, spec) };
    Guest { tag, power, hypervisor_reason, limits: BTreeMap::new() }
}

impl Fake {
    pub fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Found>> {
        self.domains.lock().unwrap()
    }

    pub fn tagged(&self, id: InstanceId) -> Option<Guest> {
        match self.lock().get(&id) {
            Some(Found::Tagged(guest)) => Some(guest.clone()),
            _ => None,
        }
    }

    pub fn steps(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    fn step(&self, name: &'static str) -> Result<(), HypervisorError> {
        self.done.lock().unwrap().push(name);
        let mut fail = self.fail.lock().unwrap();
        match fail.iter().position(|it| *it == name) {
            None => Ok(()),
            Some(at) => {
                fail.remove(at);
                Err(HypervisorError::Failed { action: name, message: "as the test wants".into() })
            }
        }
    }

    /// Changes a guest and tells.
    pub fn change(&self, id: InstanceId, change: impl FnOnce(&mut Guest)) -> Result<(), HypervisorError> {
        match self.lock().get_mut(&id) {
            Some(Found::Tagged(guest)) => change(guest),
            _ => return Err(HypervisorError::Gone),
        }
        let _ = self.events.send(HypervisorEvent::Changed(id));
        Ok(())
    }

    pub fn ends(&self, id: InstanceId, ended: Ended) {
        self.change(id, |guest| (guest.power, guest.hypervisor_reason) = (Power::Shutoff, Reason::Ended(ended)))
            .unwrap();
    }
}

#[async_trait]
impl Hypervisor for Fake {
    async fn find(&self, id: InstanceId) -> Result<Option<Found>, HypervisorError> {
        Ok(self.lock().get(&id).cloned())
    }

    async fn list(&self) -> Result<Vec<Guest>, HypervisorError> {
        let tagged = |found: &Found| match found {
            Found::Tagged(guest) => Some(guest.clone()),
            Found::Foreign(_) => None,
        };
        Ok(self.lock().values().filter_map(tagged).collect())
    }

    async fn define(&self, spec: &GuestSpec, tag: &Tag) -> Result<(), HypervisorError> {
        self.step("define")?;
        self.record.lock().unwrap().clone_from(&spec.record);
        let limits = spec.disks.iter().map(|disk| (disk.volume, disk.limits)).collect();
        let guest = Guest { tag: tag.clone(), power: Power::Shutoff, hypervisor_reason: Reason::Unknown, limits };
        self.lock().insert(spec.id, Found::Tagged(guest));
        Ok(())
    }

    async fn start(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step("start").inspect_err(|_| {
            let _ = self.change(id, |guest| guest.hypervisor_reason = Reason::StartFailed);
        })?;
        self.change(id, |guest| (guest.power, guest.hypervisor_reason) = (Power::Running, Reason::Unknown))
    }

    async fn write_tag(&self, tag: &Tag) -> Result<(), HypervisorError> {
        self.step("tag")?;
        self.change(tag.instance, |guest| guest.tag = tag.clone())
    }

    async fn shutdown(&self, _: InstanceId) -> Result<(), HypervisorError> {
        self.step("shutdown")
    }

    async fn reboot(&self, _: InstanceId) -> Result<(), HypervisorError> {
        self.step("reboot")
    }

    async fn reset(&self, _: InstanceId) -> Result<(), HypervisorError> {
        self.step("reset")
    }

    async fn power_off(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step("power off")?;
        self.ends(id, Ended::Destroyed);
        Ok(())
    }

    async fn resize_disk(&self, _: InstanceId, _: VolumeId, _: Mib) -> Result<(), HypervisorError> {
        self.step("resize disk")
    }

    async fn attach_disk(&self, id: InstanceId, disk: &Disk) -> Result<(), HypervisorError> {
        // Whoever looks at the guest in this moment is told of the disk.
        let told = self.tagged(id).unwrap().tag.spec.volumes();
        assert!(told.contains(&disk.volume.to_string()), "{told:?}");
        self.step("attach disk")?;
        self.disks.lock().unwrap().insert(disk.volume);
        self.change(id, |guest| _ = guest.limits.insert(disk.volume, disk.limits))
    }

    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<bool, HypervisorError> {
        self.step("detach disk")?;
        let mut disks = self.disks.lock().unwrap();
        if !self.holds.load(Relaxed) || !self.tagged(id).is_some_and(|guest| guest.is_active()) {
            disks.remove(&volume);
        }
        Ok(!disks.contains(&volume))
    }

    async fn undefine(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.step("undefine")?;
        self.lock().remove(&id).map(drop).ok_or(HypervisorError::Gone)
    }

    async fn record(&self, _: InstanceId) -> Result<String, HypervisorError> {
        Ok(self.record.lock().unwrap().clone())
    }

    async fn keep_record(&self, _: InstanceId, record: &str) -> Result<(), HypervisorError> {
        self.step("record")?;
        record.clone_into(&mut *self.record.lock().unwrap());
        Ok(())
    }

    async fn remove_files(&self, _: InstanceId) -> Result<(), HypervisorError> {
        self.step("remove files")
    }

    async fn console_log(&self, _: InstanceId, _: usize) -> Result<Vec<u8>, HypervisorError> {
        Ok(Vec::new())
    }

    async fn open_serial(&self, _: InstanceId) -> Result<Box<dyn ByteStream>, HypervisorError> {
        Ok(Box::new(tokio::io::empty()))
    }

    async fn open_screen(&self, _: InstanceId) -> Result<Box<dyn ByteStream>, HypervisorError> {
        Ok(Box::new(tokio::io::empty()))
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.events.subscribe()
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn reboot_grace(&self) -> Duration {
        GRACE
    }
}
