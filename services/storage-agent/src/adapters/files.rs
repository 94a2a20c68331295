//! Files as the pool needs them: made whole or not at all, on stable storage before anybody relies on them.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FlockOperation, RenameFlags, fcntl_lock, renameat_with};
use uuid::Uuid;

/// Blocks of zeros of this size stay holes.
const BLOCK: usize = 64 << 10;

/// Only root, and whoever libvirt hands the file to while a guest runs.
pub(in crate::adapters) const PRIVATE: u32 = 0o600;
/// The hypervisor's user reads it.
pub(in crate::adapters) const SHARED: u32 = 0o644;

/// A temporary file that is removed unless it gets its place.
#[derive(Debug)]
pub(in crate::adapters) struct Temporary {
    path: PathBuf,
    placed: bool,
}

impl Temporary {
    /// A name in `dir` that nothing has; the file is still to be made.
    pub(in crate::adapters) fn name(dir: &Path, stem: &str) -> Self {
        Self { path: dir.join(format!(".{stem}.{}.tmp", Uuid::new_v4().simple())), placed: false }
    }

    /// Makes the file, for its owner only.
    pub(in crate::adapters) fn create(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&self.path)
    }

    pub(in crate::adapters) fn path(&self) -> &Path {
        &self.path
    }

    /// Brings the file to stable storage.
    pub(in crate::adapters) fn sync(&self, mode: u32) -> io::Result<()> {
        let file = File::open(&self.path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    }

    /// Gives the file its name for good. What has the name already is replaced, or the reason of an error.
    pub(in crate::adapters) fn place(mut self, path: &Path, replace: bool) -> io::Result<()> {
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &self.path, CWD, path, flags)?;
        self.placed = true;
        sync_directory(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        if let Err(error) = remove(&self.path) {
            // The next start removes it.
            tracing::warn!(path = %self.path.display(), %error, "failed to remove a temporary file");
        }
    }
}

/// Whether a name is one of [`Temporary`].
pub(in crate::adapters) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Writes a small file, whole or not at all.
pub(in crate::adapters) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let stem = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = Temporary::name(dir, &stem);
    temporary.create()?.write_all(bytes)?;
    temporary.sync(mode)?;
    temporary.place(path, true)
}

/// Reads a small file; `None` where there is none.
pub(in crate::adapters) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    present(fs::read(path))
}

/// What a file is, without following links; `None` where there is none.
pub(in crate::adapters) fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
    present(fs::symlink_metadata(path))
}

/// Removes a file; whether there was one. Not yet for good: see [`sync_directory`].
pub(in crate::adapters) fn remove(path: &Path) -> io::Result<bool> {
    Ok(present(fs::remove_file(path))?.is_some())
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Brings the names in the directory of `path` to stable storage.
pub(in crate::adapters) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
}

/// Whether another process has locked any byte of the file. QEMU locks every image that it opens (its "image locking",
/// see qemu(1) `locking`), with open file description locks, which an exclusive lock of the whole file conflicts with.
pub(in crate::adapters) fn is_locked(path: &Path) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The names in a directory, in order.
pub(in crate::adapters) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        // A name that is not UTF-8 is not ours.
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Writes the next bytes; blocks of zeros stay holes.
pub(in crate::adapters) fn write_sparse(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    for block in bytes.chunks(BLOCK) {
        if block.iter().all(|b| *b == 0) {
            file.seek(SeekFrom::Current(i64::try_from(block.len()).map_err(io::Error::other)?))?;
        } else {
            file.write_all(block)?;
        }
    }
    Ok(())
}
