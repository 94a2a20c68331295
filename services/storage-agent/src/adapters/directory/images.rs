//! Images as files. The functions block.

use std::io;

use cloud_domain::ImageId;

use super::{
    pool::Pool,
    record::{ImageRecord, Record as _},
};
use crate::{
    adapters::files,
    core::{
        StorageError,
        backend::FoundImage,
        model::{Format, Image},
    },
};

pub(super) fn find(pool: &Pool, id: ImageId) -> Result<FoundImage, StorageError> {
    let failed = |e: io::Error| StorageError::backend(format!("look at image {id}"), e);
    let Some(record) = ImageRecord::read(&pool.image_record(id), id)? else {
        for path in [Format::Qcow2, Format::Raw].map(|format| pool.image(id, format)) {
            if files::metadata(&path).map_err(failed)?.is_some() {
                return Ok(FoundImage::Foreign(path));
            }
        }
        return Ok(FoundImage::Nothing);
    };
    let path = pool.image(id, record.format);
    match files::metadata(&path).map_err(failed)? {
        None => Ok(FoundImage::Lost(record.into())),
        Some(data) if data.len() == record.size_bytes => Ok(FoundImage::Whole(record.into())),
        Some(data) => {
            let cause = format!("`{}` has {} bytes, its record says {}", path.display(), data.len(), record.size_bytes);
            Err(StorageError::backend(format!("use image {id}"), cause))
        }
    }
}

pub(super) fn all(pool: &Pool) -> Result<Vec<Image>, StorageError> {
    let names = files::names(&pool.images()).map_err(|e| StorageError::backend("list the images", e))?;
    let mut images = Vec::new();
    for id in names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()) {
        if let FoundImage::Whole(image) = find(pool, id)? {
            images.push(image);
        }
    }
    Ok(images)
}

/// Data first, then the record: what is left in between is a lost image, which may be removed again or brought again.
pub(super) fn remove(pool: &Pool, id: ImageId) -> Result<(), StorageError> {
    let failed = |e: io::Error| StorageError::backend(format!("remove image {id}"), e);
    let record_path = pool.image_record(id);
    let Some(record) = ImageRecord::read(&record_path, id)? else { return Ok(()) };
    files::remove(&pool.image(id, record.format)).map_err(failed)?;
    files::sync_directory(&record_path).map_err(failed)?;
    files::remove(&record_path).map_err(failed)?;
    files::sync_directory(&record_path).map_err(failed)
}
