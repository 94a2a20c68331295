//! Volumes and cached images: the rules of `cloud.agent.v1.StorageService` on the model.

use cloud_contracts::agent::{CachedImage, ImageHeader, Owner, Volume, VolumeSpec, volume_spec::Source};
use tonic::{Code, Status};

use super::{
    model::{Model, SimImage, SimVolume},
    status::{differs, invalid, missing, precondition, with_reason},
};

/// The only pool of a simulated host.
pub(crate) const POOL: &str = "default";

const MIB: u64 = 1 << 20;

/// What a fresh copy-on-write file takes.
pub(super) const EMPTY_VOLUME_BYTES: u64 = 196_624;

impl Model {
    pub fn ensure_volume(&mut self, owner: Owner, spec: &VolumeSpec, may_create: bool) -> Result<Volume, Status> {
        self.check_volume(spec)?;
        let pool = if spec.pool.is_empty() { POOL } else { &spec.pool };
        if let Some(is) = self.is.volumes.get(&spec.id) {
            self.check_owner("volume", &is.owner)?;
            // Between its first size and its present one lies every size that it had.
            if !(is.created_size_bytes..=is.size_bytes).contains(&spec.size_bytes) {
                return Err(differs("volume", &spec.id, "size", &is.size_bytes, &spec.size_bytes));
            }
            if is.source != spec.source {
                return Err(differs(
                    "volume",
                    &spec.id,
                    "source",
                    &text(is.source.as_ref()),
                    &text(spec.source.as_ref()),
                ));
            }
            return self.volume(&spec.id);
        }
        if !may_create {
            return Err(data_missing(&spec.id));
        }
        let (least, image_id) = self.source(spec.source.as_ref())?;
        if spec.size_bytes < least {
            return Err(invalid("spec.size_bytes", format!("must be at least its source's {least}")));
        }
        if self.free_bytes() < EMPTY_VOLUME_BYTES {
            return Err(with_reason(Code::ResourceExhausted, "POOL_FULL", format!("pool `{pool}` is full")));
        }
        let made = self.made_volumes.entry(spec.id.clone()).or_default();
        *made += 1;
        let volume = SimVolume {
            owner,
            size_bytes: spec.size_bytes,
            created_size_bytes: spec.size_bytes,
            source: spec.source.clone(),
            image_id,
            pool: pool.to_owned(),
            path: format!("/sim/{}/volumes/{}.qcow2", self.host, spec.id),
            created: *made,
        };
        self.is.volumes.insert(spec.id.clone(), volume);
        self.volume(&spec.id)
    }

    fn check_volume(&self, spec: &VolumeSpec) -> Result<(), Status> {
        if spec.size_bytes == 0 || !spec.size_bytes.is_multiple_of(MIB) {
            return Err(invalid("spec.size_bytes", format!("must be a multiple of 1 MiB, is {}", spec.size_bytes)));
        }
        if !spec.pool.is_empty() && spec.pool != POOL {
            return Err(invalid("spec.pool", format!("`{}` does not exist on this host", spec.pool)));
        }
        Ok(())
    }

    /// Bytes that a source has, and the image that it stands on.
    fn source(&self, source: Option<&Source>) -> Result<(u64, Option<String>), Status> {
        match source {
            None => Ok((0, None)),
            Some(Source::ImageId(id)) => {
                let image = self.is.images.get(id).ok_or_else(|| {
                    precondition("IMAGE_NOT_CACHED", format!("image {id} is not cached on this host: put it first"))
                })?;
                Ok((image.virtual_size_bytes, Some(id.clone())))
            }
            Some(Source::SnapshotId(id)) => {
                let snapshot = self.is.snapshots.get(id).ok_or_else(|| missing("snapshot", id))?;
                self.check_owner("snapshot", &snapshot.owner)?;
                Ok((snapshot.size_bytes, snapshot.image_id.clone()))
            }
            Some(Source::VolumeId(id)) => {
                let volume = self.is.volumes.get(id).ok_or_else(|| missing("volume", id))?;
                self.check_owner("volume", &volume.owner)?;
                Ok((volume.size_bytes, volume.image_id.clone()))
            }
        }
    }

    pub fn remove_volume(&mut self, id: &str) -> Result<(), Status> {
        let Some(volume) = self.is.volumes.get(id) else { return Ok(()) };
        self.check_owner("volume", &volume.owner)?;
        if let Some(user) = self.user_of(id) {
            let text = format!("volume {id} was to be removed while instance {user} runs on it");
            self.violation(text.clone());
            return Err(precondition("VOLUME_IN_USE", text));
        }
        self.is.volumes.remove(id);
        Ok(())
    }

    pub fn resize_volume(&mut self, id: &str, size_bytes: u64) -> Result<Volume, Status> {
        if size_bytes == 0 || !size_bytes.is_multiple_of(MIB) {
            return Err(invalid("size_bytes", format!("must be a multiple of 1 MiB, is {size_bytes}")));
        }
        let is = self.is.volumes.get(id).ok_or_else(|| data_missing(id))?;
        self.check_owner("volume", &is.owner)?;
        if size_bytes < is.size_bytes {
            return Err(invalid("size_bytes", format!("must be at least the present {}", is.size_bytes)));
        }
        if size_bytes > is.size_bytes && self.user_of(id).is_some() {
            return Err(precondition("VOLUME_IN_USE", format!("volume {id} is used by a running guest")));
        }
        if let Some(volume) = self.is.volumes.get_mut(id) {
            volume.size_bytes = size_bytes;
        }
        self.volume(id)
    }

    /// What a hypervisor does to a disk of a running guest: tells it, and grows a file that has not grown yet.
    pub fn resize_disk(&mut self, instance: &str, volume: &str, size_bytes: u64) -> Result<(), Status> {
        let domain = self.is.domains.get_mut(instance).ok_or_else(|| missing("instance", instance))?;
        if !domain.is_active() {
            return Err(precondition("NOT_RUNNING", format!("instance {instance} does not run")));
        }
        if !domain.spec.disks.iter().any(|disk| disk.volume_id == volume) {
            return Err(missing("disk", volume));
        }
        let is = self.is.volumes.get_mut(volume).ok_or_else(|| data_missing(volume))?;
        if size_bytes < is.size_bytes {
            return Err(invalid("size_bytes", format!("must be at least the present {}", is.size_bytes)));
        }
        is.size_bytes = size_bytes;
        domain.grown.insert(volume.to_owned(), size_bytes);
        Ok(())
    }

    fn user_of(&self, volume: &str) -> Option<String> {
        let uses =
            |d: &&super::model::Domain| d.is_active() && d.spec.disks.iter().any(|disk| disk.volume_id == volume);
        self.is.domains.values().find(uses).map(|d| d.spec.id.clone())
    }

    pub fn volume(&self, id: &str) -> Result<Volume, Status> {
        self.is.volumes.get(id).map(SimVolume::wire).ok_or_else(|| missing("volume", id))
    }

    pub fn free_bytes(&self) -> u64 {
        let images: u64 = self.is.images.values().map(|i| i.size_bytes).sum();
        let volumes = (self.is.volumes.len() + self.is.snapshots.len()) as u64 * EMPTY_VOLUME_BYTES;
        self.capacity.pool_bytes.saturating_sub(images + volumes)
    }

    /// The image of this header, if it is cached already.
    pub fn cached_as(&self, header: &ImageHeader) -> Result<Option<CachedImage>, Status> {
        match self.is.images.get(&header.id) {
            None => Ok(None),
            Some(is) if is.sha256 != header.sha256 => {
                Err(differs("image", &header.id, "SHA-256", &is.sha256, &header.sha256))
            }
            Some(_) => self.image(&header.id).map(Some),
        }
    }

    pub fn put_image(&mut self, header: &ImageHeader, virtual_size_bytes: u64) -> Result<CachedImage, Status> {
        if self.free_bytes() < header.size_bytes {
            return Err(with_reason(Code::ResourceExhausted, "POOL_FULL", "the image cache is full"));
        }
        let image = SimImage {
            format: header.format.clone(),
            size_bytes: header.size_bytes,
            virtual_size_bytes,
            sha256: header.sha256.clone(),
        };
        self.is.images.insert(header.id.clone(), image);
        self.image(&header.id)
    }

    pub fn remove_image(&mut self, id: &str) -> Result<(), Status> {
        if let Some((volume, _)) = self.is.volumes.iter().find(|(_, v)| v.image_id.as_deref() == Some(id)) {
            return Err(precondition("IMAGE_IN_USE", format!("volume {volume} stands on image {id}")));
        }
        if let Some((snapshot, _)) = self.is.snapshots.iter().find(|(_, s)| s.image_id.as_deref() == Some(id)) {
            return Err(precondition("IMAGE_IN_USE", format!("snapshot {snapshot} stands on image {id}")));
        }
        self.is.images.remove(id);
        Ok(())
    }

    pub fn image(&self, id: &str) -> Result<CachedImage, Status> {
        let image = self.is.images.get(id).ok_or_else(|| missing("cached image", id))?;
        Ok(CachedImage {
            id: id.to_owned(),
            size_bytes: image.size_bytes,
            virtual_size_bytes: image.virtual_size_bytes,
            sha256: image.sha256.clone(),
            pool: POOL.to_owned(),
        })
    }
}

impl SimVolume {
    pub(crate) fn wire(&self) -> Volume {
        Volume {
            owner: Some(self.owner.clone()),
            size_bytes: self.size_bytes,
            allocated_bytes: EMPTY_VOLUME_BYTES,
            path: self.path.clone(),
            format: "qcow2".into(),
            pool: self.pool.clone(),
            image_id: if let Some(Source::ImageId(id)) = &self.source { id.clone() } else { String::new() },
            snapshot_id: if let Some(Source::SnapshotId(id)) = &self.source { id.clone() } else { String::new() },
            volume_id: if let Some(Source::VolumeId(id)) = &self.source { id.clone() } else { String::new() },
        }
    }
}

fn text(source: Option<&Source>) -> String {
    match source {
        None => "blank".into(),
        Some(Source::ImageId(id)) => format!("image {id}"),
        Some(Source::SnapshotId(id)) => format!("snapshot {id}"),
        Some(Source::VolumeId(id)) => format!("volume {id}"),
    }
}

fn data_missing(id: &str) -> Status {
    with_reason(Code::NotFound, "DATA_MISSING", format!("volume {id} is missing on this host"))
}
