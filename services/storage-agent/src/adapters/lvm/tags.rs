//! The tags of our logical volumes. LVM allows letters, digits and `_+.-/=!:#&` in them (lvm(8)), and keeps them in the
//! group's metadata, where there is room for some hundred volumes only: what can be told otherwise is not in them.

use std::str::FromStr;

use cloud_domain::{CloudId, ImageId, SnapshotId, VolumeId};
use uuid::Uuid;

use crate::core::model::{Format, Image, ImageSpec, Owner, Sha256, SnapshotSpec, Source, VolumeSpec};

/// What a logical volume is, by the tags that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) id: Uuid,
    pub(super) owner: Owner,
    pub(super) what: What,
}

/// What it is, beside its id and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Volume {
        source: Source,
        /// Bytes it shall have at least; smaller, it is unfinished.
        created_size_bytes: u64,
    },
    Snapshot {
        volume: VolumeId,
    },
    Image {
        format: Format,
        size_bytes: u64,
        sha256: Sha256,
        virtual_size_bytes: u64,
        /// Its bytes are on their way.
        creating: bool,
    },
}

/// Tags of ours that do not say what they should.
#[derive(Debug, thiserror::Error)]
#[error("its tags `{tags}` are not understood: {why}")]
pub(super) struct TagError {
    tags: String,
    why: String,
}

pub(super) const CREATING: &str = "cloud.state=creating";

pub(super) fn volume_name(id: VolumeId) -> String {
    format!("vol-{id}")
}

pub(super) fn snapshot_name(id: SnapshotId) -> String {
    format!("snap-{id}")
}

pub(super) fn image_name(id: ImageId) -> String {
    format!("img-{id}")
}

impl Tags {
    pub(super) fn volume(spec: &VolumeSpec, owner: &Owner) -> Self {
        let what = What::Volume { source: spec.source, created_size_bytes: spec.size.bytes() };
        Self { id: *spec.id.as_uuid(), owner: *owner, what }
    }

    pub(super) fn snapshot(spec: &SnapshotSpec, owner: &Owner) -> Self {
        Self { id: *spec.id.as_uuid(), owner: *owner, what: What::Snapshot { volume: spec.volume } }
    }

    /// Of an image whose bytes are still to come.
    pub(super) fn image(image: &Image) -> Self {
        let ImageSpec { id, format, size_bytes, sha256 } = image.spec;
        let virtual_size_bytes = image.virtual_size_bytes;
        let what = What::Image { format, size_bytes, sha256, virtual_size_bytes, creating: true };
        Self { id: *id.as_uuid(), owner: image.owner, what }
    }

    /// As LVM gets them.
    pub(super) fn write(&self) -> Vec<String> {
        let Owner { cloud_id, epoch, version, incarnation } = self.owner;
        let mut tags = vec![format!("cloud.id={cloud_id}"), format!("cloud.order={epoch}.{version}")];
        tags.extend(incarnation.map(|i| format!("cloud.incarnation={i}")));
        let id = self.id;
        match &self.what {
            What::Volume { source, created_size_bytes } => {
                tags.push(format!("cloud.volume={id}"));
                tags.push(format!("cloud.size={created_size_bytes}"));
                tags.extend(match source {
                    Source::Blank => None,
                    Source::Image { image_id } => Some(format!("cloud.source=image:{image_id}")),
                    Source::Snapshot { snapshot_id } => Some(format!("cloud.source=snapshot:{snapshot_id}")),
                    Source::Volume { volume_id } => Some(format!("cloud.source=volume:{volume_id}")),
                });
            }
            What::Snapshot { volume } => {
                tags.push(format!("cloud.snapshot={id}"));
                tags.push(format!("cloud.source=volume:{volume}"));
            }
            What::Image { format, size_bytes, sha256, virtual_size_bytes, creating } => {
                tags.push(format!("cloud.image={id}"));
                tags.push(format!("cloud.file={format}:{size_bytes}:{sha256}"));
                tags.push(format!("cloud.size={virtual_size_bytes}"));
                tags.extend(creating.then(|| CREATING.to_owned()));
            }
        }
        tags
    }

    /// Reads a list as LVM reports it; none where there is no tag of ours.
    pub(super) fn read(list: &str) -> Result<Option<Self>, TagError> {
        let wrong = |why: &str| TagError { tags: list.to_owned(), why: why.to_owned() };
        let value = |name: &str| list.split(',').find_map(|tag| tag.strip_prefix(name)?.strip_prefix('='));
        fn parsed<T: FromStr>(list: &str, name: &str, text: &str) -> Result<T, TagError> {
            text.parse().map_err(|_| TagError { tags: list.to_owned(), why: format!("{name} is `{text}`") })
        }
        let Some(cloud_id) = value("cloud.id") else { return Ok(None) };
        let need = |name: &str| value(name).ok_or_else(|| wrong(&format!("{name} is missing")));
        let (epoch, version) = need("cloud.order")?.split_once('.').ok_or_else(|| wrong("cloud.order"))?;
        let owner = Owner {
            cloud_id: parsed::<CloudId>(list, "cloud.id", cloud_id)?,
            epoch: parsed(list, "cloud.order", epoch)?,
            version: parsed(list, "cloud.order", version)?,
            incarnation: value("cloud.incarnation").map(|i| parsed(list, "cloud.incarnation", i)).transpose()?,
        };
        let source = match value("cloud.source").map(|s| s.split_once(':').unwrap_or((s, ""))) {
            None => Source::Blank,
            Some(("image", id)) => Source::Image { image_id: parsed(list, "cloud.source", id)? },
            Some(("snapshot", id)) => Source::Snapshot { snapshot_id: parsed(list, "cloud.source", id)? },
            Some(("volume", id)) => Source::Volume { volume_id: parsed(list, "cloud.source", id)? },
            Some(_) => return Err(wrong("cloud.source")),
        };
        let size = || parsed::<u64>(list, "cloud.size", need("cloud.size")?);
        let (id, what) = if let Some(id) = value("cloud.volume") {
            (id, What::Volume { source, created_size_bytes: size()? })
        } else if let Some(id) = value("cloud.snapshot") {
            let Source::Volume { volume_id } = source else { return Err(wrong("a snapshot is of a volume")) };
            (id, What::Snapshot { volume: volume_id })
        } else if let Some(id) = value("cloud.image") {
            let file = need("cloud.file")?;
            let [format, size_bytes, sha256] =
                <[&str; 3]>::try_from(file.split(':').collect::<Vec<_>>()).map_err(|_| wrong("cloud.file"))?;
            let what = What::Image {
                format: parsed(list, "cloud.file", format)?,
                size_bytes: parsed(list, "cloud.file", size_bytes)?,
                sha256: parsed(list, "cloud.file", sha256)?,
                virtual_size_bytes: size()?,
                creating: list.split(',').any(|tag| tag == CREATING),
            };
            (id, what)
        } else {
            return Err(wrong("it does not say what it is"));
        };
        Ok(Some(Self { id: parsed(list, "its id", id)?, owner, what }))
    }
}
