//! Images in a bucket, which all gateways of a cloud share.
//!
//! # Theory of operation
//!
//! The object is the image; files of this machine are copies. An image is verified on this machine's disk as without a bucket, then marked (see
//! [`marks`](super::marks)), put into the bucket, and only then taken for kept: so a row is READY only where the object is there. Whichever
//! gateway needs an image that it has no file of gets the object, sees that its SHA-256 is the row's, and has a file of it; all that want one image at a time
//! wait for one download. Files make room for others when they are more than the operator allows, save those that are being sent.
//!
//! What is left behind when something goes wrong is found by its mark. [`Shared::upkeep`] looks at every mark of which no put is under way: the parts that
//! were sent are given up; then the row decides. READY with this SHA-256: the object stays, the mark goes. READY with another one: this object goes. ERROR, DELETED, or no
//! row for an hour (an upload that was never entered): all objects of the image go. Otherwise whoever works on the row decides, later.
//!
//! A directory that was used before there was a bucket has files `<image's id>`. They are put into the bucket the same way.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use cloud_core::{
    model::{Image, ImageStatus},
    ports::{FetchError, HeldImage, ImageFile, Store},
};
use cloud_domain::{CloudId, ImageId};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared as SharedFuture, WeakShared},
};
use sha2::{Digest as _, Sha256};

use super::{
    BucketOptions, Incoming,
    bucket::Bucket,
    cache::{self, Cache},
    holds::Hold,
    incoming::{Verified, blocking},
    machine,
    marks::{Mark, Marks},
};

/// How long after its bytes an upload's row may come.
const ENTERING: Duration = Duration::from_secs(3600);

type Download = BoxFuture<'static, Result<PathBuf, FetchError>>;

/// A bucket, and this machine's files of what is in it.
pub(super) struct Shared {
    bucket: Bucket,
    cache: Cache,
    marks: Marks,
    /// Held while a mark is begun or looked at.
    deciding: tokio::sync::Mutex<()>,
    downloads: Mutex<HashMap<String, WeakShared<Download>>>,
    /// Where files were before there was a bucket.
    dir: PathBuf,
    incoming: PathBuf,
}

/// What becomes of what a mark stands for.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is the image.
    Stays,
    /// The image is another object.
    Goes,
    /// There is no such image.
    AllGo,
    /// Not known yet.
    Later,
}

fn fate(row: Option<&Image>, sha256: &str, age: Duration) -> Fate {
    match row.map(|row| row.status) {
        Some(ImageStatus::Ready) if row.is_some_and(|row| row.sha256 == sha256) => Fate::Stays,
        Some(ImageStatus::Ready) => Fate::Goes,
        Some(ImageStatus::Error | ImageStatus::Deleted) => Fate::AllGo,
        Some(ImageStatus::Importing | ImageStatus::Deleting) => Fate::Later,
        None if age > ENTERING => Fate::AllGo,
        None => Fate::Later,
    }
}

impl Shared {
    pub(super) fn open(options: &BucketOptions, cloud: CloudId, dir: &Path, incoming: &Path) -> io::Result<Self> {
        Ok(Self {
            bucket: Bucket::new(options, cloud)?,
            cache: Cache::open(dir.join("cache"), options.cache_max_bytes)?,
            marks: Marks::open(dir.join("marks"))?,
            deciding: tokio::sync::Mutex::default(),
            downloads: Mutex::default(),
            dir: dir.to_owned(),
            incoming: incoming.to_owned(),
        })
    }

    /// Sees that the bucket can be used.
    pub(super) async fn check(&self) -> Result<(), FetchError> {
        self.bucket.check().await
    }

    /// Puts a verified file into the bucket, and has it in the cache.
    pub(super) async fn put(&self, verified: Verified) -> Result<ImageFile, FetchError> {
        let name = cache::name(verified.id, &verified.image.sha256);
        let _stays = self.cache.hold(&name);
        self.put_file(verified.id, &verified.image.sha256, &verified.image.path).await?;
        let kept = verified.keep(&self.cache.path(&name)).await?;
        self.make_room().await;
        Ok(kept)
    }

    async fn put_file(&self, id: ImageId, sha256: &str, file: &Path) -> Result<(), FetchError> {
        let name = cache::name(id, sha256);
        let _active = self.begin(&name).await?;
        let begun = async |upload: &str| self.mark(&name, upload).await;
        self.bucket.put(id, sha256, file, begun).await?;
        // From now on its row may come.
        self.mark(&name, "").await
    }

    /// Marks a put that begins. What an earlier one sent of the same is given up.
    async fn begin(&self, name: &str) -> Result<Hold, FetchError> {
        let _decided = self.deciding.lock().await;
        if !self.marks.is_active(name)
            && let Some(mark) = self.marks.read(name).await.map_err(|e| machine("read a mark", &e))?
        {
            self.give_up(&mark).await?;
        }
        let active = self.marks.begin(name);
        self.mark(name, "").await?;
        Ok(active)
    }

    async fn mark(&self, name: &str, upload: &str) -> Result<(), FetchError> {
        self.marks.write(name, upload).await.map_err(|e| machine("mark an image", &e))
    }

    async fn give_up(&self, mark: &Mark) -> Result<(), FetchError> {
        match &mark.upload {
            Some(upload) => self.bucket.abort(mark.id, &mark.sha256, upload).await,
            None => Ok(()),
        }
    }

    /// Has a file of an image, which stays while it is held.
    pub(super) async fn hold(self: &Arc<Self>, id: ImageId, sha256: &str, size: u64) -> Result<HeldImage, FetchError> {
        let name = cache::name(id, sha256);
        let hold = self.cache.hold(&name);
        let path = match self.cache.used(&name).await.map_err(|e| machine("look for the image file", &e))? {
            Some(path) => path,
            None => match self.cache.link(&self.before(id), &name).await {
                Ok(path) => path,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let path = self.download(id, sha256, size).await?;
                    self.make_room().await;
                    path
                }
                Err(error) => return Err(machine("look for the image file", &error)),
            },
        };
        Ok(HeldImage::held(path, hold))
    }

    /// An image's file of the time before there was a bucket.
    fn before(&self, id: ImageId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// One download of an image at a time, whose end all get who want it meanwhile.
    async fn download(self: &Arc<Self>, id: ImageId, sha256: &str, size: u64) -> Result<PathBuf, FetchError> {
        let name = cache::name(id, sha256);
        let download = {
            let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for those any more.
            downloads.retain(|_, download| download.upgrade().is_some());
            let going = downloads.get(&name).and_then(WeakShared::upgrade).filter(|going| going.peek().is_none());
            going.unwrap_or_else(|| {
                let new: SharedFuture<Download> = Arc::clone(self).get(id, sha256.to_owned(), size).boxed().shared();
                downloads.extend(new.downgrade().map(|weak| (name, weak)));
                new
            })
        };
        download.await
    }

    async fn get(self: Arc<Self>, id: ImageId, sha256: String, size: u64) -> Result<PathBuf, FetchError> {
        let name = cache::name(id, &sha256);
        // Another download may have ended since its file was missed.
        if let Some(path) = self.cache.used(&name).await.map_err(|e| machine("look for the image file", &e))? {
            return Ok(path);
        }
        let to = self.cache.path(&name);
        let mut incoming = Incoming::create(&self.incoming, id, size).await?;
        tracing::info!(image = %id, size, "getting an image from the bucket");
        self.bucket.get(id, &sha256, size, &mut incoming).await?;
        match incoming.copied(&sha256, &to).await? {
            Ok(()) => Ok(to),
            Err(found) => Err(self.bucket.damaged(id, &sha256, &format!("its SHA-256 is {found}"))),
        }
    }

    /// Removes every object and every file of an image.
    pub(super) async fn remove(&self, id: ImageId) -> Result<(), FetchError> {
        self.bucket.remove(id).await?;
        self.remove_files(id).await?;
        self.marks.forget(id).await.map_err(|e| machine("forget a mark", &e))
    }

    async fn remove_files(&self, id: ImageId) -> Result<(), FetchError> {
        let before = self.before(id);
        let removed = async {
            self.cache.forget(id).await?;
            blocking(move || cache::remove(&before)).await
        };
        removed.await.map_err(|e| machine("remove the image file", &e))
    }

    async fn make_room(&self) {
        if let Err(error) = self.cache.evict().await {
            tracing::warn!(%error, "cannot remove image files that were not used for long");
        }
    }

    /// Puts in order what crashes, deletions by other gateways and the time before there was a bucket left here. What fails is done the next time.
    pub(super) async fn upkeep<S: Store>(&self, store: &S, before: Vec<ImageId>) {
        for id in before {
            let moved = async {
                let row = row(store, id).await?;
                self.take_in(id, row.as_ref()).await
            };
            if let Err(error) = moved.await {
                tracing::warn!(image = %id, %error, "the file of an image is not in the bucket yet");
            }
        }
        if let Err(error) = self.settle_marks(store).await {
            tracing::warn!(%error, "what was begun in the bucket is not settled yet");
        }
        if let Err(error) = self.forget_deleted(store).await {
            tracing::warn!(%error, "files of deleted images stay for now");
        }
        self.make_room().await;
    }

    /// Puts a file of the time before there was a bucket into it.
    async fn take_in(&self, id: ImageId, row: Option<&Image>) -> Result<(), FetchError> {
        let path = self.before(id);
        match row {
            Some(row) if row.status == ImageStatus::Ready => {
                if !self.bucket.has(id, &row.sha256).await? {
                    let found = hash(&path).await.map_err(|e| machine("read the image", &e))?;
                    if found != row.sha256 {
                        let message = format!("{} is not the image: its SHA-256 is {found}", path.display());
                        return Err(FetchError::Refused(message));
                    }
                    self.put_file(id, &found, &path).await?;
                    let name = cache::name(id, &found);
                    self.cache.link(&path, &name).await.map_err(|e| machine("keep the image", &e))?;
                }
            }
            Some(row) if matches!(row.status, ImageStatus::Error | ImageStatus::Deleted) => {}
            // Another gateway, which has no bucket yet, may be entering it.
            _ => return Ok(()),
        }
        blocking(move || cache::remove(&path)).await.map_err(|e| machine("remove the image file", &e))
    }

    async fn settle_marks<S: Store>(&self, store: &S) -> Result<(), FetchError> {
        let marks = self.marks.list().await.map_err(|e| machine("read the marks", &e))?;
        for listed in marks {
            let _decided = self.deciding.lock().await;
            // It may have begun again, or ended, since it was listed.
            let mark = self.marks.read(&listed.name).await.map_err(|e| machine("read a mark", &e))?;
            let Some(mark) = mark.filter(|mark| !self.marks.is_active(&mark.name)) else { continue };
            self.give_up(&mark).await?;
            match fate(row(store, mark.id).await?.as_ref(), &mark.sha256, mark.age) {
                Fate::Later => continue,
                Fate::Stays => {}
                Fate::Goes => self.bucket.remove_one(mark.id, &mark.sha256).await?,
                Fate::AllGo => {
                    tracing::info!(image = %mark.id, "removing from the bucket an image that did not become one");
                    self.bucket.remove(mark.id).await?;
                    self.remove_files(mark.id).await?;
                }
            }
            self.marks.clear(&mark.name).await.map_err(|e| machine("forget a mark", &e))?;
        }
        Ok(())
    }

    /// Removes the files of images that another gateway deleted.
    async fn forget_deleted<S: Store>(&self, store: &S) -> Result<(), FetchError> {
        for file in self.cache.list().await.map_err(|e| machine("list image files", &e))? {
            let age = SystemTime::now().duration_since(file.used).unwrap_or_default();
            let gone = match row(store, file.id).await? {
                Some(row) => matches!(row.status, ImageStatus::Error | ImageStatus::Deleted),
                None => age > ENTERING,
            };
            if gone {
                self.cache.forget(file.id).await.map_err(|e| machine("remove the image file", &e))?;
            }
        }
        Ok(())
    }
}

async fn row<S: Store>(store: &S, id: ImageId) -> Result<Option<Image>, FetchError> {
    let unknown = |error| FetchError::Later(cloud_service_kit::error::chain(&error));
    store.get::<Image>(*id.as_uuid()).await.map_err(unknown)
}

/// The SHA-256 of a file.
async fn hash(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    blocking(move || {
        let mut hash = Sha256::new();
        io::copy(&mut File::open(path)?, &mut hash)?;
        Ok(hex::encode(hash.finalize()))
    })
    .await
}

#[cfg(test)]
mod tests;
