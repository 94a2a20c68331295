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
const EMPTY_VOLUME_BYTES: u64 = 196_624;

impl Model {
    pub fn ensure_volume(&mut self, owner: Owner, spec: &VolumeSpec, may_create: bool) -> Result<Volume, Status> {
        let image_id = self.check_volume(spec)?;
        let pool = if spec.pool.is_empty() { POOL } else { &spec.pool };
        if let Some(is) = self.is.volumes.get(&spec.id) {
            self.check_owner("volume", &is.owner)?;
            if is.size_bytes != spec.size_bytes {
                return Err(differs("volume", &spec.id, "size", &is.size_bytes, &spec.size_bytes));
            }
            if is.image_id != image_id {
                let text = |image: &Option<String>| image.clone().unwrap_or_else(|| "blank".into());
                return Err(differs("volume", &spec.id, "source", &text(&is.image_id), &text(&image_id)));
            }
            return self.volume(&spec.id);
        }
        if !may_create {
            return Err(data_missing(&spec.id));
        }
        if let Some(id) = &image_id {
            let image = self.is.images.get(id).ok_or_else(|| {
                precondition("IMAGE_NOT_CACHED", format!("image {id} is not cached on this host: put it first"))
            })?;
            if spec.size_bytes < image.virtual_size_bytes {
                return Err(invalid(
                    "spec.size_bytes",
                    format!("must be at least the image's {}", image.virtual_size_bytes),
                ));
            }
        }
        if self.free_bytes() < EMPTY_VOLUME_BYTES {
            return Err(with_reason(Code::ResourceExhausted, "POOL_FULL", format!("pool `{pool}` is full")));
        }
        let made = self.made_volumes.entry(spec.id.clone()).or_default();
        *made += 1;
        let volume = SimVolume {
            owner,
            size_bytes: spec.size_bytes,
            image_id,
            pool: pool.to_owned(),
            path: format!("/sim/{}/volumes/{}.qcow2", self.host, spec.id),
            created: *made,
        };
        self.is.volumes.insert(spec.id.clone(), volume);
        self.volume(&spec.id)
    }

    fn check_volume(&self, spec: &VolumeSpec) -> Result<Option<String>, Status> {
        if spec.size_bytes == 0 || !spec.size_bytes.is_multiple_of(MIB) {
            return Err(invalid("spec.size_bytes", format!("must be a multiple of 1 MiB, is {}", spec.size_bytes)));
        }
        if !spec.pool.is_empty() && spec.pool != POOL {
            return Err(invalid("spec.pool", format!("`{}` does not exist on this host", spec.pool)));
        }
        match &spec.source {
            None => Ok(None),
            Some(Source::ImageId(id)) => Ok(Some(id.clone())),
            Some(Source::SnapshotId(_)) => Err(invalid("spec.snapshot_id", "is not supported yet")),
            Some(Source::VolumeId(_)) => Err(invalid("spec.volume_id", "is not supported yet")),
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
        let volumes = self.is.volumes.len() as u64 * EMPTY_VOLUME_BYTES;
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
            image_id: self.image_id.clone().unwrap_or_default(),
        }
    }
}

fn data_missing(id: &str) -> Status {
    with_reason(Code::NotFound, "DATA_MISSING", format!("volume {id} is missing on this host"))
}
