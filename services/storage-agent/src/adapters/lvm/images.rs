//! Images as thin volumes: written once, and never activated after that.
//!
//! An image's bytes come into a file beside the agent's state first: what it is, a probe says of the whole file, and a qcow2
//! file cannot be unpacked before it is there.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use cloud_domain::{ImageId, Mib};
use cloud_image_probe::{ImageInfo, Limits};

use super::{
    LvmPlace, LvmThin, Report,
    commands::{self, Lvm, Refusal},
    report::Lv,
    tags::{self, Tags, What},
};
use crate::{
    adapters::{incoming::Incoming, qemu_img::QemuImg},
    core::{
        StorageError,
        backend::{FoundImage, ImageUpload},
        model::{Image, ImageSpec},
    },
};

impl LvmThin {
    pub(super) fn found_image(&self, report: &Report, id: ImageId) -> Result<FoundImage, StorageError> {
        let name = tags::image_name(id);
        let Some(lv) = report.get(&name) else { return Ok(FoundImage::Nothing) };
        let tags = self.tags_of(lv)?.filter(|tags| tags.id == *id.as_uuid());
        Ok(match tags.and_then(|tags| image(&tags)) {
            Some((image, false)) => FoundImage::Whole(image),
            // Its bytes never came; they may be brought again.
            Some((image, true)) => FoundImage::Lost(image),
            None => FoundImage::Foreign(self.device(&name)),
        })
    }

    pub(super) fn all_images(&self, report: &Report) -> Vec<Image> {
        let named = |lv: &Lv, tags: &Tags| lv.name == tags::image_name(tags.id.into());
        let whole = |tags: Tags| image(&tags).filter(|(_, creating)| !creating).map(|(image, _)| image);
        self.ours(report).filter(|(lv, tags)| named(lv, tags)).filter_map(|(_, tags)| whole(tags)).collect()
    }

    pub(super) async fn receive(&self, spec: &ImageSpec) -> Result<Upload, StorageError> {
        self.fresh().await?;
        let (directory, id) = (self.incoming.clone(), spec.id);
        let file = tokio::task::spawn_blocking(move || Incoming::begin(&directory, id))
            .await
            .map_err(|e| StorageError::backend("begin an image's file", e))??;
        Ok(Upload {
            size_bytes: spec.size_bytes,
            file,
            limits: self.probe,
            lvm: Arc::clone(&self.lvm),
            qemu_img: Arc::clone(&self.qemu_img),
            at: self.place.clone(),
        })
    }
}

/// The image that tags describe, and whether its bytes are still to come.
fn image(tags: &Tags) -> Option<(Image, bool)> {
    let What::Image { format, size_bytes, sha256, virtual_size_bytes, creating } = tags.what else { return None };
    let spec = ImageSpec { id: tags.id.into(), format, size_bytes, sha256 };
    Some((Image { spec, virtual_size_bytes, owner: tags.owner }, creating))
}

/// An image on its way.
pub(super) struct Upload {
    size_bytes: u64,
    file: Incoming,
    limits: Limits,
    lvm: Arc<Lvm>,
    qemu_img: Arc<QemuImg>,
    at: LvmPlace,
}

#[async_trait]
impl ImageUpload for Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.file.write(bytes).await
    }

    async fn seal(&mut self) -> Result<ImageInfo, StorageError> {
        self.file.seal(self.size_bytes, &self.limits).await
    }

    async fn commit(self: Box<Self>, image: &Image) -> Result<(), StorageError> {
        let name = tags::image_name(image.spec.id);
        let size = Mib::try_from(image.virtual_size_bytes.div_ceil(1 << 20))
            .map_err(|e| StorageError::backend("make an image's volume", e))?;
        let make = commands::create_blank(&self.at, &name, size, &Tags::image(image));
        let doing = "make an image's volume";
        match self.lvm.attempt(doing, &make).await? {
            Ok(_) => {}
            // The caller knows that no image of ours is whole there: what has its name is what an earlier attempt left, or foreign.
            Err((Refusal::Exists, error)) => {
                if !self.is_left_over(&name).await? {
                    return Err(StorageError::backend(doing, error));
                }
                self.lvm.run("remove what was left of an image", &commands::remove(&self.at, &name)).await?;
                self.lvm.run(doing, &make).await?;
            }
            Err((_, error)) => return Err(StorageError::backend(doing, error)),
        }
        let filled = self.fill(image, &name).await;
        if filled.is_err()
            && let Err(error) =
                self.lvm.run("remove what was left of an image", &commands::remove(&self.at, &name)).await
        {
            // It stays `creating`: the next call for it, or the next start, removes it.
            tracing::warn!(image = %image.spec.id, error = &error as &dyn std::error::Error, "failed to clear an image that was not written");
        }
        filled
    }
}

impl Upload {
    async fn fill(&self, image: &Image, name: &str) -> Result<(), StorageError> {
        let device: PathBuf = self.at.device(name);
        self.qemu_img.unpack(self.file.path(), image.spec.format, &device).await?;
        self.lvm.run("put an image's volume aside", &commands::deactivate(&self.at, name)).await?;
        self.lvm.run("finish an image", &commands::finish_image(&self.at, name)).await.map(drop)
    }

    /// Whether what has the image's name is an image of ours that never became whole.
    async fn is_left_over(&self, name: &str) -> Result<bool, StorageError> {
        let doing = "read the state of the volume group";
        let output = self.lvm.run(doing, &commands::report(&self.at)).await?;
        let report = Report::parse(&output.stdout).map_err(|e| StorageError::backend(doing, e))?;
        let tags = report.get(name).and_then(|lv| Tags::read(&lv.tags).ok().flatten());
        Ok(matches!(tags, Some(Tags { what: What::Image { creating: true, .. }, .. })))
    }
}
