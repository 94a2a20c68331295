//! The rules of cached images.

use bytes::Bytes;
use cloud_domain::ImageId;
use futures::{Stream, StreamExt as _};
use sha2::Digest as _;
use tokio::time::timeout;

use super::{
    Storage,
    backend::{FoundImage, ImageUpload},
    call::Call,
    error::StorageError,
    model::{Image, ImageSpec, Sha256},
};

/// How often the space is looked at while bytes come.
const SPACE_CHECK_BYTES: u64 = 64 << 20;

impl Storage {
    /// A cached image.
    ///
    /// # Errors
    /// [`StorageError::NoSuchImage`] where it is not cached.
    pub async fn image(&self, id: ImageId) -> Result<Image, StorageError> {
        self.run(format!("reading image {id}"), std::future::ready(()), |storage| async move {
            match storage.parts.backend.find_image(id).await? {
                FoundImage::Whole(image) => Ok(image),
                FoundImage::Nothing | FoundImage::Lost(_) | FoundImage::Foreign(_) => {
                    Err(StorageError::NoSuchImage(id))
                }
            }
        })
        .await
    }

    /// Every cached image.
    ///
    /// # Errors
    /// Where the pool cannot be read as a whole.
    pub async fn images(&self) -> Result<Vec<Image>, StorageError> {
        self.run(
            "listing images",
            std::future::ready(()),
            |storage| async move { storage.parts.backend.images().await },
        )
        .await
    }

    /// Brings an image into the cache; `bytes` are its bytes in order. An equal image that is there already is the answer
    /// without reading them. The bytes' own error type passes through.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] and [`StorageError::BadImage`] where the bytes are not what was announced,
    /// [`StorageError::Differs`] where another image has the id. Nothing is left then.
    pub async fn put_image<E: From<StorageError>>(
        &self,
        call: Call,
        spec: ImageSpec,
        mut bytes: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
    ) -> Result<Image, E> {
        let lock = self.parts.images.write(spec.id);
        let first = call.clone();
        let there = self.run(format!("looking for image {}", spec.id), lock, move |storage| async move {
            storage.parts.admission.admit(*spec.id.as_uuid(), &first)?;
            let there = storage.cached(&first, &spec).await?;
            if there.is_none() {
                storage.has_space(spec.size_bytes, 0).await?;
            }
            Ok(there)
        });
        if let Some(image) = there.await? {
            return Ok(image);
        }
        let mut upload = self.parts.backend.begin_image(&spec).await?;
        let mut verifier = Verifier::new(spec);
        let mut unchecked = 0;
        while let Some(part) = self.next(&spec, &mut bytes).await? {
            let part = part?;
            verifier.take(&part)?;
            unchecked += part.len() as u64;
            if unchecked >= SPACE_CHECK_BYTES {
                unchecked = 0;
                self.has_space(0, 0).await?;
            }
            upload.write(part).await?;
        }
        verifier.finish()?;
        let lock = self.parts.images.write(spec.id);
        let finish = self.run(format!("putting image {}", spec.id), lock, move |storage| async move {
            storage.commit(&call, spec, upload).await
        });
        Ok(finish.await?)
    }

    async fn next<T>(
        &self,
        spec: &ImageSpec,
        bytes: &mut (impl Stream<Item = T> + Unpin),
    ) -> Result<Option<T>, StorageError> {
        let stall = self.parts.rules.stall;
        let seconds = stall.as_secs();
        timeout(stall, bytes.next()).await.map_err(|_| StorageError::Stalled { image: spec.id, seconds })
    }

    /// With the image's lock held alone.
    async fn commit(
        &self,
        call: &Call,
        spec: ImageSpec,
        mut upload: Box<dyn ImageUpload>,
    ) -> Result<Image, StorageError> {
        // Another call may have brought it meanwhile,
        if let Some(image) = self.cached(call, &spec).await? {
            return Ok(image);
        }
        // or a newer one have removed it.
        self.parts.admission.admit(*spec.id.as_uuid(), call)?;
        let info = upload.seal().await?;
        if info.format != spec.format {
            let difference = format!("it is {}, announced was {}", info.format, spec.format);
            return Err(StorageError::Corrupt { image: spec.id, difference });
        }
        let image = Image { spec, virtual_size_bytes: info.virtual_size, owner: call.owner() };
        upload.commit(&image).await?;
        Ok(image)
    }

    /// The equal image that is there, if any.
    async fn cached(&self, call: &Call, spec: &ImageSpec) -> Result<Option<Image>, StorageError> {
        let what = || format!("image {}", spec.id);
        let differs = |old: &Image| StorageError::Differs { what: what(), difference: difference(&old.spec, spec) };
        match self.parts.backend.find_image(spec.id).await? {
            FoundImage::Nothing => Ok(None),
            FoundImage::Foreign(path) => Err(StorageError::Foreign(path)),
            FoundImage::Whole(image) => {
                call.owns(what, &image.owner)?;
                if image.spec == *spec { Ok(Some(image)) } else { Err(differs(&image)) }
            }
            FoundImage::Lost(image) => {
                call.owns(what, &image.owner)?;
                // Volumes that stand on what was lost need exactly that back.
                if image.spec != *spec && !self.parts.backend.users_of_image(spec.id).await?.is_empty() {
                    return Err(differs(&image));
                }
                Ok(None)
            }
        }
    }

    /// Removes a cached image. What is gone is success.
    ///
    /// # Errors
    /// [`StorageError::ImageInUse`] while volumes stand on it.
    pub async fn remove_image(&self, call: Call, id: ImageId) -> Result<(), StorageError> {
        let lock = self.parts.images.write(id);
        self.run(format!("removing image {id}"), lock, |storage| async move {
            storage.parts.admission.admit(*id.as_uuid(), &call)?;
            match storage.parts.backend.find_image(id).await? {
                FoundImage::Nothing => {}
                FoundImage::Foreign(path) => return Err(StorageError::Foreign(path)),
                FoundImage::Whole(image) | FoundImage::Lost(image) => storage.remove_unused(&call, &image).await?,
            }
            storage.parts.admission.removed(*id.as_uuid());
            Ok(())
        })
        .await
    }

    async fn remove_unused(&self, call: &Call, image: &Image) -> Result<(), StorageError> {
        let id = image.spec.id;
        call.owns(|| format!("image {id}"), &image.owner)?;
        let users = self.parts.backend.users_of_image(id).await?;
        if let Some(example) = users.first() {
            return Err(StorageError::ImageInUse { image: id, count: users.len(), example: example.clone() });
        }
        self.parts.backend.remove_image(id).await
    }
}

fn difference(old: &ImageSpec, new: &ImageSpec) -> String {
    if old.sha256 != new.sha256 {
        format!("its SHA-256 is {}, not {}", old.sha256, new.sha256)
    } else if old.size_bytes != new.size_bytes {
        format!("it has {} bytes, not {}", old.size_bytes, new.size_bytes)
    } else {
        format!("it is {}, not {}", old.format, new.format)
    }
}

/// Counts and digests the bytes of an image as they come.
struct Verifier {
    spec: ImageSpec,
    received: u64,
    digest: sha2::Sha256,
}

impl Verifier {
    fn new(spec: ImageSpec) -> Self {
        Self { spec, received: 0, digest: sha2::Sha256::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.received += bytes.len() as u64;
        if self.received > self.spec.size_bytes {
            return self.corrupt(format!("more than the announced {} bytes came", self.spec.size_bytes));
        }
        self.digest.update(bytes);
        Ok(())
    }

    fn finish(self) -> Result<(), StorageError> {
        if self.received < self.spec.size_bytes {
            return self.corrupt(format!("{} bytes came, announced were {}", self.received, self.spec.size_bytes));
        }
        let digest = Sha256::from(<[u8; 32]>::from(self.digest.clone().finalize()));
        if digest != self.spec.sha256 {
            return self.corrupt(format!("its SHA-256 is {digest}, announced was {}", self.spec.sha256));
        }
        Ok(())
    }

    fn corrupt(&self, difference: String) -> Result<(), StorageError> {
        Err(StorageError::Corrupt { image: self.spec.id, difference })
    }
}
