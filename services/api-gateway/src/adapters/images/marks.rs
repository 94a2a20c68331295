//! What this gateway began to put into the bucket, on its disk before the first byte is sent: a crash leaves no object that nobody knows.
//!
//! A mark is a file `<image's id>.<SHA-256>`, with the id of the upload where the object goes in parts. It stays until the image's row says what the
//! object is for.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use cloud_domain::ImageId;

use super::{
    cache::remove,
    holds::{Hold, Holds},
    incoming::blocking,
    private_dir,
};

#[derive(Clone)]
pub(super) struct Marks {
    dir: PathBuf,
    /// Puts under way.
    active: Holds,
}

/// What was begun.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) id: ImageId,
    pub(super) sha256: String,
    /// The name of its file.
    pub(super) name: String,
    /// The upload in parts, where there is one.
    pub(super) upload: Option<String>,
    /// Since it was written.
    pub(super) age: Duration,
}

impl Marks {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        private_dir(&dir)?;
        Ok(Self { dir, active: Holds::default() })
    }

    /// Says that a put of that name is under way.
    pub(super) fn begin(&self, name: &str) -> Hold {
        self.active.hold(name)
    }

    pub(super) fn is_active(&self, name: &str) -> bool {
        self.active.is_held(name)
    }

    /// Writes a mark, in the place of the one that is there.
    pub(super) async fn write(&self, name: &str, upload: &str) -> io::Result<()> {
        let (marks, name, upload) = (self.clone(), name.to_owned(), upload.to_owned());
        blocking(move || {
            let temporary = marks.dir.join(format!(".{name}"));
            let mut file = File::create(&temporary)?;
            file.write_all(upload.as_bytes())?;
            file.sync_all()?;
            fs::rename(temporary, marks.dir.join(name))?;
            File::open(&marks.dir)?.sync_all()
        })
        .await
    }

    pub(super) async fn read(&self, name: &str) -> io::Result<Option<Mark>> {
        let (marks, name) = (self.clone(), name.to_owned());
        blocking(move || marks.one(name)).await
    }

    fn one(&self, name: String) -> io::Result<Option<Mark>> {
        let Some((id, sha256)) = name.split_once('.') else { return Ok(None) };
        let Ok(id) = id.parse() else { return Ok(None) };
        let path = self.dir.join(&name);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        // A clock that was set back makes it young.
        let age = SystemTime::now().duration_since(fs::metadata(&path)?.modified()?).unwrap_or_default();
        let upload = Some(text).filter(|text| !text.is_empty());
        Ok(Some(Mark { id, sha256: sha256.to_owned(), upload, age, name }))
    }

    /// All that are there.
    pub(super) async fn list(&self) -> io::Result<Vec<Mark>> {
        let marks = self.clone();
        blocking(move || {
            let names = fs::read_dir(&marks.dir)?.map(|entry| entry.map(|e| e.file_name().into_string()));
            let names = names.collect::<io::Result<Vec<_>>>()?;
            names.into_iter().flatten().filter_map(|name| marks.one(name).transpose()).collect()
        })
        .await
    }

    pub(super) async fn clear(&self, name: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        blocking(move || remove(&path)).await
    }

    /// Clears those of an image of which nothing is under way.
    pub(super) async fn forget(&self, id: ImageId) -> io::Result<()> {
        for mark in self.list().await? {
            if mark.id == id && !self.is_active(&mark.name) {
                self.clear(&mark.name).await?;
            }
        }
        Ok(())
    }
}
