//! An image that is being written: hashed and measured on the way, verified at the end.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use cloud_core::{
    model::ImageFormat,
    ports::{FetchError, ImageFile},
};
use cloud_domain::ImageId;
use cloud_image_probe::{Format, ImageInfo, Limits, ProbeError, inspect, probe};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{Probing, machine};

/// Bytes gathered before they are hashed and written: one visit to a blocking thread for many small chunks.
const BATCH: usize = 1 << 20;

/// A file under `incoming/`. Dropped without [`finish`](Self::finish), it is removed.
pub struct Incoming {
    id: ImageId,
    path: TempPath,
    state: Option<State>,
    batch: Vec<u8>,
    size: u64,
    max: u64,
}

struct State {
    file: File,
    hash: Sha256,
}

impl State {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }
}

struct TempPath(PathBuf);

impl Drop for TempPath {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "cannot remove a half-written image");
            }
            _ => {}
        }
    }
}

impl Incoming {
    pub(super) async fn create(dir: &Path, id: ImageId, max: u64) -> Result<Self, FetchError> {
        // Two attempts at one image do not write into one file.
        let path = dir.join(format!("{id}.{}", Uuid::new_v4().simple()));
        let to = path.clone();
        let file = blocking(move || File::options().write(true).create_new(true).open(to)).await;
        let file = file.map_err(|e| machine("write the image", &e))?;
        let state = Some(State { file, hash: Sha256::new() });
        Ok(Self { id, path: TempPath(path), state, batch: Vec::new(), size: 0, max })
    }

    /// The image.
    #[must_use]
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// Refuses a size that will be too large before its bytes come.
    ///
    /// # Errors
    /// Refused.
    pub fn expect(&self, bytes: u64) -> Result<(), FetchError> {
        if bytes > self.max {
            let message = format!("the image has {bytes} bytes; at most {} are allowed (--image-max-bytes)", self.max);
            return Err(FetchError::Refused(message));
        }
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Refused where they are too many; Later where the disk does not take them.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), FetchError> {
        self.size += chunk.len() as u64;
        if self.size > self.max {
            let message =
                format!("the image has more than the {} bytes that are allowed (--image-max-bytes)", self.max);
            return Err(FetchError::Refused(message));
        }
        self.batch.extend_from_slice(&chunk);
        if self.batch.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), FetchError> {
        let lost = || io::Error::other("an earlier write failed");
        let mut state = self.state.take().ok_or_else(|| machine("write the image", &lost()))?;
        let mut batch = std::mem::take(&mut self.batch);
        let written = blocking(move || {
            state.append(&batch)?;
            batch.clear();
            Ok((state, batch))
        });
        let (state, batch) = written.await.map_err(|e| machine("write the image", &e))?;
        self.state = Some(state);
        self.batch = batch;
        Ok(())
    }

    /// Verifies the file, which stays where it is.
    pub(super) async fn verify(
        mut self,
        format: Option<ImageFormat>,
        sha256: &str,
        probing: Probing,
    ) -> Result<Verified, FetchError> {
        let (file, found) = self.end().await?;
        if !sha256.is_empty() && !sha256.eq_ignore_ascii_case(&found) {
            let message = format!("its SHA-256 is {found}, and {} was expected", sha256.to_ascii_lowercase());
            return Err(FetchError::Refused(message));
        }
        let info = examine(&self.path.0, probing).await?;
        let is = match info.format {
            Format::Qcow2 => ImageFormat::Qcow2,
            Format::Raw => ImageFormat::Raw,
        };
        if let Some(wanted) = format.filter(|wanted| *wanted != is) {
            let message = format!("its bytes are {}, and {} was expected", is.as_str(), wanted.as_str());
            return Err(FetchError::Refused(message));
        }
        let image = ImageFile {
            path: self.path.0.clone(),
            format: is,
            sha256: found,
            size_bytes: self.size,
            virtual_size_bytes: info.virtual_size,
        };
        Ok(Verified { id: self.id, file, temporary: self.path, image })
    }

    /// Ends it as a copy of what was verified before, under the name `to`. `Err`: its SHA-256, where that is another one.
    pub(super) async fn copied(mut self, sha256: &str, to: &Path) -> Result<Result<(), String>, FetchError> {
        let (file, found) = self.end().await?;
        if found != sha256 {
            return Ok(Err(found));
        }
        keep(file, self.path, to).await.map(Ok)
    }

    /// The file and its SHA-256.
    async fn end(&mut self) -> Result<(File, String), FetchError> {
        self.flush().await?;
        let lost = || io::Error::other("an earlier write failed");
        let State { file, hash } = self.state.take().ok_or_else(|| machine("write the image", &lost()))?;
        Ok((file, hex::encode(hash.finalize())))
    }
}

/// A verified file that is still under `incoming/`. Dropped without [`keep`](Self::keep), it is removed.
pub(super) struct Verified {
    /// The image.
    pub(super) id: ImageId,
    /// What it is.
    pub(super) image: ImageFile,
    file: File,
    temporary: TempPath,
}

impl Verified {
    /// Renames it to `to`.
    pub(super) async fn keep(self, to: &Path) -> Result<ImageFile, FetchError> {
        keep(self.file, self.temporary, to).await?;
        Ok(ImageFile { path: to.to_owned(), ..self.image })
    }
}

async fn keep(file: File, temporary: TempPath, to: &Path) -> Result<(), FetchError> {
    let to = to.to_owned();
    blocking(move || settle(&file, &temporary.0, &to)).await.map_err(|e| machine("keep the image", &e))
}

async fn examine(path: &Path, probing: Probing) -> Result<ImageInfo, FetchError> {
    let limits = Limits::default();
    let examined = match probing {
        Probing::Full => probe(path, &limits).await,
        Probing::Header => inspect(path, limits.max_virtual_size),
    };
    examined.map_err(|error: ProbeError| match error.is_refusal() {
        true => FetchError::Refused(error.to_string()),
        false => FetchError::Later(cloud_service_kit::error::chain(&error)),
    })
}

/// Durable first, then visible, then durably visible.
fn settle(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(from, to)?;
    match to.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Runs file work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
