//! What a specification was, kept on the domain, so that another one under the same incarnation can be told apart by name.

use cloud_domain::VolumeId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Disk, GuestSpec};

/// A specification without what changes by design (incarnation, boot generation, limits of disks) and without secrets (the seed's contents are digests).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecRecord {
    name: String,
    vcpus: u32,
    memory_mib: u64,
    disks: Vec<DiskRecord>,
    nics: Vec<NicRecord>,
    hostname: String,
    ssh_keys_sha256: String,
    user_data_sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DiskRecord {
    volume_id: String,
    path: String,
    format: String,
    read_only: bool,
}

impl DiskRecord {
    fn of(disk: &Disk) -> Self {
        Self {
            volume_id: disk.volume.to_string(),
            path: disk.path.display().to_string(),
            format: disk.format.as_str().to_owned(),
            read_only: disk.read_only,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NicRecord {
    port_id: String,
    mac: String,
    device: String,
    mtu: u32,
}

fn digest<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths keep ["ab", "c"] and ["a", "bc"] apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

impl SpecRecord {
    /// The record of a specification.
    pub fn of(spec: &GuestSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            vcpus: spec.vcpus,
            memory_mib: spec.memory.into(),
            disks: spec.disks.iter().map(DiskRecord::of).collect(),
            nics: spec
                .nics
                .iter()
                .map(|nic| NicRecord {
                    port_id: nic.port.to_string(),
                    mac: nic.mac.to_string(),
                    device: nic.device.as_str().to_owned(),
                    mtu: nic.mtu,
                })
                .collect(),
            hostname: spec.seed.hostname.to_string(),
            ssh_keys_sha256: digest(spec.seed.ssh_keys.iter().map(String::as_str)),
            user_data_sha256: digest(std::iter::once(spec.seed.user_data.as_str())),
        }
    }

    /// The ids of the disks' volumes, the boot disk first.
    pub fn volumes(&self) -> Vec<String> {
        self.disks.iter().map(|disk| disk.volume_id.clone()).collect()
    }

    /// The same with this disk: the last one, or in the place of the one that is the volume's already.
    #[must_use]
    pub fn with_disk(&self, disk: &Disk) -> Self {
        let mut record = self.clone();
        let new = DiskRecord::of(disk);
        match record.disks.iter_mut().find(|there| there.volume_id == new.volume_id) {
            Some(there) => *there = new,
            None => record.disks.push(new),
        }
        record
    }

    /// The same without the volume's disk.
    #[must_use]
    pub fn without_disk(&self, volume: VolumeId) -> Self {
        let mut record = self.clone();
        record.disks.retain(|there| there.volume_id != volume.to_string());
        record
    }

    /// The same with the disks of another one.
    #[must_use]
    pub fn with_disks_of(&self, other: &Self) -> Self {
        Self { disks: other.disks.clone(), ..self.clone() }
    }

    /// How `asked` differs from this record, the fields as the contract names them; `None` where it does not.
    pub fn difference(&self, asked: &Self) -> Option<String> {
        let mut found = Differences::default();
        found.compare("name", &self.name, &asked.name);
        found.compare("vcpus", &self.vcpus, &asked.vcpus);
        found.compare("memory_mib", &self.memory_mib, &asked.memory_mib);
        found.compare("disks (count)", &self.disks.len(), &asked.disks.len());
        for (index, (there, asked)) in self.disks.iter().zip(&asked.disks).enumerate() {
            found.compare(&format!("disks[{index}].volume_id"), &there.volume_id, &asked.volume_id);
            found.compare(&format!("disks[{index}].path"), &there.path, &asked.path);
            found.compare(&format!("disks[{index}].format"), &there.format, &asked.format);
            found.compare(&format!("disks[{index}].read_only"), &there.read_only, &asked.read_only);
        }
        found.compare("nics (count)", &self.nics.len(), &asked.nics.len());
        for (index, (there, asked)) in self.nics.iter().zip(&asked.nics).enumerate() {
            found.compare(&format!("nics[{index}].port_id"), &there.port_id, &asked.port_id);
            found.compare(&format!("nics[{index}].mac"), &there.mac, &asked.mac);
            found.compare(&format!("nics[{index}].device"), &there.device, &asked.device);
            found.compare(&format!("nics[{index}].mtu"), &there.mtu, &asked.mtu);
        }
        found.compare("seed.hostname", &self.hostname, &asked.hostname);
        found.secret("seed.ssh_keys", &self.ssh_keys_sha256, &asked.ssh_keys_sha256);
        found.secret("seed.user_data", &self.user_data_sha256, &asked.user_data_sha256);
        (!found.0.is_empty()).then(|| found.0.join("; "))
    }
}

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare<T: PartialEq + std::fmt::Display>(&mut self, field: &str, there: &T, asked: &T) {
        if there != asked {
            self.0.push(format!("{field} is {there}, asked for {asked}"));
        }
    }

    fn secret(&mut self, field: &str, there: &str, asked: &str) {
        if there != asked {
            self.0.push(format!("{field} differs"));
        }
    }
}
