//! Files of this machine that are in the bucket, too: `<image's id>.<SHA-256>`. Any of them can be had again, so the least recently used ones
//! make room for others.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use cloud_domain::ImageId;

use super::{
    holds::{Hold, Holds},
    incoming::blocking,
    private_dir,
};

/// The files of a directory, by use.
#[derive(Clone)]
pub(super) struct Cache {
    dir: PathBuf,
    max_bytes: Option<u64>,
    holds: Holds,
}

/// A file of the cache.
#[derive(Debug, Clone)]
pub(super) struct Cached {
    pub(super) id: ImageId,
    name: String,
    size: u64,
    /// When it was last used.
    pub(super) used: SystemTime,
}

pub(super) fn name(id: ImageId, sha256: &str) -> String {
    format!("{id}.{sha256}")
}

impl Cache {
    pub(super) fn open(dir: PathBuf, max_bytes: Option<u64>) -> io::Result<Self> {
        private_dir(&dir)?;
        Ok(Self { dir, max_bytes, holds: Holds::default() })
    }

    /// Where a file is, or will be.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Keeps a file, there or not, until this is dropped.
    pub(super) fn hold(&self, name: &str) -> Hold {
        self.holds.hold(name)
    }

    /// Where a file is, which is used by that; `None`: nowhere.
    pub(super) async fn used(&self, name: &str) -> io::Result<Option<PathBuf>> {
        let path = self.path(name);
        blocking(move || match File::options().write(true).open(&path) {
            Ok(file) => file.set_modified(SystemTime::now()).map(|()| Some(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// Takes in a file that is elsewhere on the same file system, where it stays.
    pub(super) async fn link(&self, from: &Path, name: &str) -> io::Result<PathBuf> {
        let (from, path) = (from.to_owned(), self.path(name));
        blocking(move || match fs::hard_link(from, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(path),
        })
        .await
    }

    /// What is there.
    pub(super) async fn list(&self) -> io::Result<Vec<Cached>> {
        let cache = self.clone();
        blocking(move || cache.files()).await
    }

    fn files(&self) -> io::Result<Vec<Cached>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(Ok(id)) = name.split_once('.').map(|(id, _)| id.parse()) else { continue };
            match entry.metadata() {
                Ok(found) => files.push(Cached { id, name, size: found.len(), used: found.modified()? }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    /// Removes what was used least recently, until the rest is as small as it must be. What is held stays.
    pub(super) async fn evict(&self) -> io::Result<()> {
        let Some(max_bytes) = self.max_bytes else { return Ok(()) };
        let cache = self.clone();
        blocking(move || {
            let mut files = cache.files()?;
            files.sort_by_key(|file| file.used);
            let mut left: u64 = files.iter().map(|file| file.size).sum();
            for file in files {
                if left <= max_bytes {
                    break;
                }
                if cache.holds.unless_held(&file.name, || remove(&cache.path(&file.name)))?.is_some() {
                    left -= file.size;
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes every file of an image.
    pub(super) async fn forget(&self, id: ImageId) -> io::Result<()> {
        let cache = self.clone();
        blocking(move || {
            let files = cache.files()?;
            files.iter().filter(|file| file.id == id).try_for_each(|file| remove(&cache.path(&file.name)))
        })
        .await
    }
}

/// What is gone is success.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Three files of 10 bytes, the first one used least recently.
    async fn three(max_bytes: u64) -> (tempfile::TempDir, Cache, [String; 3]) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("cache"), Some(max_bytes)).unwrap();
        let names = [(); 3].map(|()| name(ImageId::random(), "00"));
        for (age, name) in [300, 200, 100].into_iter().zip(&names) {
            fs::write(cache.path(name), [7; 10]).unwrap();
            let file = File::options().write(true).open(cache.path(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        (dir, cache, names)
    }

    fn there(cache: &Cache, names: &[String; 3]) -> [bool; 3] {
        names.each_ref().map(|name| cache.path(name).exists())
    }

    #[tokio::test]
    async fn what_was_used_least_recently_makes_room() {
        let (_dir, cache, names) = three(20).await;
        cache.evict().await.unwrap();
        assert_eq!(there(&cache, &names), [false, true, true]);
        assert!(cache.used(&names[1]).await.unwrap().is_some());
        assert_eq!(cache.used(&names[0]).await.unwrap(), None);
        fs::write(cache.path(&names[0]), [7; 10]).unwrap();
        cache.evict().await.unwrap();
        assert_eq!(there(&cache, &names), [true, true, false], "being used counts, not being written");
    }

    #[tokio::test]
    async fn what_is_held_stays() {
        let (_dir, cache, names) = three(0).await;
        let (first, second) = (cache.hold(&names[0]), cache.hold(&names[0]));
        drop(first);
        cache.evict().await.unwrap();
        assert_eq!(there(&cache, &names), [true, false, false]);
        drop(second);
        cache.evict().await.unwrap();
        assert_eq!(there(&cache, &names), [false; 3]);
    }

    #[tokio::test]
    async fn an_image_is_forgotten_alone() {
        let (_dir, cache, names) = three(100).await;
        cache.evict().await.unwrap();
        assert_eq!(there(&cache, &names), [true; 3]);
        let id = cache.list().await.unwrap().into_iter().find(|file| file.name == names[1]).unwrap().id;
        cache.forget(id).await.unwrap();
        cache.forget(id).await.unwrap();
        assert_eq!(there(&cache, &names), [true, false, true]);
    }
}
