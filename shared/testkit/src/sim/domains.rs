//! Guests: the rules of `cloud.agent.v1.ComputeService` on the model.

use std::time::SystemTime;

use cloud_contracts::agent::{DiskSpec, InstanceSpec, InstanceState, Owner, PowerState, StateReason};
use tonic::Status;

use super::{
    model::{Domain, Model},
    status::{differs, invalid, missing, precondition},
};

/// What a stop request came to.
pub(crate) struct Stopped {
    pub state: Option<InstanceState>,
    /// The guest was asked to shut down now, and will have after its shutdown time.
    pub asked: bool,
}

impl Model {
    pub fn ensure_domain(&mut self, owner: Owner, spec: &InstanceSpec) -> Result<InstanceState, Status> {
        check(spec)?;
        if let Some(is) = self.is.domains.get(&spec.id) {
            self.check_owner("instance", &is.owner)?;
            check_same(is, spec)?;
        }
        match self.is.domains.get_mut(&spec.id) {
            Some(domain) if domain.is_active() => {
                if domain.boot_generation < spec.boot_generation {
                    domain.reboots += 1;
                    domain.boot_generation = spec.boot_generation;
                    domain.console.extend_from_slice(format!("boot {}\n", spec.boot_generation).as_bytes());
                }
                // Those of a guest that runs change one by one.
                let disks = std::mem::take(&mut domain.spec.disks);
                domain.spec = InstanceSpec { disks, ..spec.clone() };
            }
            Some(domain) if domain.spec.incarnation == spec.incarnation && domain.has_ended() => {}
            _ => {
                self.check_parts(spec)?;
                self.start(owner, spec);
            }
        }
        self.domain_state(&spec.id)
    }

    fn start(&mut self, owner: Owner, spec: &InstanceSpec) {
        let was = self.is.domains.remove(&spec.id);
        let starts = was.as_ref().map_or(0, |d| d.starts) + 1;
        let mut console = was.map(|d| d.console).unwrap_or_default();
        console.extend_from_slice(format!("{} starts\n", spec.name).as_bytes());
        let domain = Domain {
            owner,
            power: PowerState::Running,
            reason: StateReason::Unspecified,
            boot_generation: spec.boot_generation,
            started_at: Some(SystemTime::now()),
            starts,
            reboots: 0,
            shutting_down: false,
            console,
            grown: std::collections::BTreeMap::new(),
            spec: spec.clone(),
        };
        self.is.domains.insert(spec.id.clone(), domain);
        self.check_overcommit();
        self.changed(&spec.id);
    }

    /// What QEMU needs to start: its disks and its tap devices.
    fn check_parts(&mut self, spec: &InstanceSpec) -> Result<(), Status> {
        for disk in &spec.disks {
            self.check_disk(&spec.id, disk)?;
        }
        for nic in &spec.nics {
            let plugged =
                self.is.vpcs.values().any(|v| v.plugged.get(&nic.port_id).is_some_and(|(tap, _)| *tap == nic.device));
            if !plugged {
                let text = format!("cannot start instance {}: there is no tap device `{}`", spec.id, nic.device);
                return Err(precondition("TAP_MISSING", text));
            }
        }
        Ok(())
    }

    /// What QEMU needs to open a disk of an instance: its file, which no other one has open.
    fn check_disk(&mut self, id: &str, disk: &DiskSpec) -> Result<(), Status> {
        let there = self.is.volumes.get(&disk.volume_id).is_some_and(|v| v.path == disk.path);
        if !there {
            let text = format!("cannot give instance {id} a disk: there is none at `{}`", disk.path);
            return Err(precondition("DISK_MISSING", text));
        }
        let other =
            self.is.domains.values().find(|d| {
                d.spec.id != id && d.is_active() && d.spec.disks.iter().any(|o| o.volume_id == disk.volume_id)
            });
        if let Some(other) = other {
            let text = format!("volume {} is used by {} and by {id}", disk.volume_id, other.spec.id);
            self.violation(text);
        }
        Ok(())
    }

    pub fn attach_disk(&mut self, id: &str, disk: DiskSpec, record: String) -> Result<InstanceState, Status> {
        let domain = self.is.domains.get(id).ok_or_else(|| missing("instance", id))?;
        self.check_owner("instance", &domain.owner)?;
        if !domain.is_active() {
            return Err(precondition("NOT_RUNNING", format!("instance {id} does not run")));
        }
        let is = |other: &DiskSpec| other.volume_id == disk.volume_id && other.path == disk.path;
        if !domain.spec.disks.iter().any(is) {
            self.check_disk(id, &disk)?;
        }
        if let Some(domain) = self.is.domains.get_mut(id) {
            match domain.spec.disks.iter_mut().find(|other| is(other)) {
                // With other limits, perhaps.
                Some(there) => *there = disk,
                None => domain.spec.disks.push(disk),
            }
            domain.spec.record = record;
        }
        self.domain_state(id)
    }

    pub fn detach_disk(&mut self, id: &str, volume: &str, record: String) -> Result<Option<InstanceState>, Status> {
        let Some(domain) = self.is.domains.get(id) else { return Ok(None) };
        self.check_owner("instance", &domain.owner)?;
        let holds = self.hold_disks && domain.is_active();
        if let Some(domain) = self.is.domains.get_mut(id).filter(|_| !holds) {
            domain.spec.disks.retain(|disk| disk.volume_id != volume);
            domain.grown.remove(volume);
            domain.spec.record = record;
        }
        self.domain_state(id).map(Some)
    }

    fn check_overcommit(&mut self) {
        let active = || self.is.domains.values().filter(|d| d.is_active());
        let vcpus: u64 = active().map(|d| u64::from(d.spec.vcpus)).sum();
        let memory: u64 = active().map(|d| d.spec.memory_mib).sum();
        let promised = u64::from(self.capacity.vcpus) * u64::from(self.cpu_overcommit);
        if vcpus > promised || memory > self.capacity.memory_mib {
            let text = format!("overcommitted: {vcpus} vCPUs and {memory} MiB run on {:?}", self.capacity);
            self.violation(text);
        }
    }

    pub fn stop_domain(&mut self, id: &str, force: bool) -> Stopped {
        let Some(domain) = self.is.domains.get_mut(id).filter(|d| d.is_active()) else {
            return Stopped { state: self.is.domains.get(id).map(Domain::state), asked: false };
        };
        let asked = !force && !domain.shutting_down;
        if force {
            domain.end(PowerState::Shutoff, StateReason::Destroyed);
        } else {
            domain.shutting_down = true;
        }
        let state = Some(domain.state());
        if force {
            self.changed(id);
        }
        Stopped { state, asked }
    }

    /// The guest ends by itself; `only_if_asked` where that is the end of a shutdown it was asked for.
    pub fn end_domain(&mut self, id: &str, power: PowerState, reason: StateReason, only_if_asked: bool) -> bool {
        let ended = match self.is.domains.get_mut(id) {
            Some(domain) if domain.is_active() && (domain.shutting_down || !only_if_asked) => {
                domain.end(power, reason);
                true
            }
            _ => false,
        };
        if ended {
            self.changed(id);
        }
        ended
    }

    pub fn remove_domain(&mut self, id: &str) -> Result<(), Status> {
        if let Some(domain) = self.is.domains.get(id) {
            self.check_owner("instance", &domain.owner)?;
            self.is.domains.remove(id);
            self.changed(id);
        }
        Ok(())
    }

    pub fn domain_state(&self, id: &str) -> Result<InstanceState, Status> {
        self.is.domains.get(id).map(Domain::state).ok_or_else(|| missing("instance", id))
    }

    pub(crate) fn check_owner(&self, what: &str, owner: &Owner) -> Result<(), Status> {
        if self.is_ours(owner) {
            return Ok(());
        }
        Err(precondition("NOT_OURS", format!("{what} {} belongs to cloud `{}`", owner.resource_id, owner.cloud_id)))
    }
}

fn check(spec: &InstanceSpec) -> Result<(), Status> {
    if spec.incarnation.is_empty() {
        return Err(invalid("spec.incarnation", "is required"));
    }
    if spec.vcpus == 0 || spec.memory_mib == 0 {
        return Err(invalid("spec", "needs processors and memory"));
    }
    if spec.disks.is_empty() {
        return Err(invalid("spec.disks", "needs a boot disk"));
    }
    Ok(())
}

/// A guest of the same incarnation must be asked for with the same spec. A new incarnation may differ, and starts only what does not run.
fn check_same(is: &Domain, spec: &InstanceSpec) -> Result<(), Status> {
    let (old, id) = (&is.spec, &spec.id);
    if old.incarnation != spec.incarnation {
        return if is.is_active() {
            Err(differs("instance", id, "incarnation", &old.incarnation, &spec.incarnation))
        } else {
            Ok(())
        };
    }
    if old.name != spec.name {
        return Err(differs("instance", id, "name", &old.name, &spec.name));
    }
    if old.seed != spec.seed {
        return Err(differs("instance", id, "seed", &"as before", &"another"));
    }
    if old.vcpus != spec.vcpus {
        return Err(differs("instance", id, "number of processors", &old.vcpus, &spec.vcpus));
    }
    if old.memory_mib != spec.memory_mib {
        return Err(differs("instance", id, "memory", &old.memory_mib, &spec.memory_mib));
    }
    if !is.is_active() && unlimited(&old.disks) != unlimited(&spec.disks) {
        return Err(differs("instance", id, "disks", &debug(&old.disks), &debug(&spec.disks)));
    }
    if old.nics != spec.nics {
        return Err(differs("instance", id, "NICs", &debug(&old.nics), &debug(&spec.nics)));
    }
    Ok(())
}

/// Limits are no difference.
fn unlimited(disks: &[DiskSpec]) -> Vec<DiskSpec> {
    disks.iter().map(|disk| DiskSpec { total_iops_sec: 0, total_bytes_sec: 0, ..disk.clone() }).collect()
}

fn debug(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}
