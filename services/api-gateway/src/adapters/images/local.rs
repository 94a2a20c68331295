//! Images from the operator's import directory. The kernel resolves the path beneath it (openat2(2)): no `..`, no link, no way out, even
//! while somebody changes the directory.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path},
};

use bytes::Bytes;
use cloud_core::ports::FetchError;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use super::{Incoming, incoming::blocking, machine};

const CHUNK: usize = 1 << 20;

/// Checks that a text is a path beneath a directory: relative, of plain names.
///
/// # Errors
/// Why it is not, for the user.
pub fn check_relative(text: &str) -> Result<(), String> {
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    let whole = !text.is_empty() && !text.contains('\0') && !text.ends_with('/');
    // `Path` forgets about `.` within a path.
    if whole && Path::new(text).components().all(plain) && !text.split('/').any(|part| part == "." || part.is_empty()) {
        return Ok(());
    }
    let shown: String = text.chars().take(100).collect();
    Err(format!("`{shown}` is not the path of a file beneath the import directory, such as `debian/12.qcow2`"))
}

/// Copies a file into an image.
pub(super) async fn copy(dir: Option<&Path>, path: &str, to: &mut Incoming) -> Result<(), FetchError> {
    let dir = dir.ok_or_else(|| {
        FetchError::Refused("this gateway has no import directory: its operator sets --import-dir".to_owned())
    })?;
    check_relative(path).map_err(FetchError::Refused)?;
    let (dir, name) = (dir.to_owned(), path.to_owned());
    let opened = blocking(move || Ok(open(&dir, &name))).await.map_err(|e| machine("open the file", &e))?;
    let (mut file, size) = opened.map_err(|error| explain(path, &error))?;
    to.expect(size)?;
    loop {
        let read = blocking(move || {
            let mut chunk = vec![0; CHUNK];
            let read = file.read(&mut chunk)?;
            chunk.truncate(read);
            Ok((file, chunk))
        });
        let (back, chunk) = read.await.map_err(|e| machine("read the file", &e))?;
        if chunk.is_empty() {
            return Ok(());
        }
        file = back;
        to.write(Bytes::from(chunk)).await?;
    }
}

fn open(dir: &Path, name: &str) -> io::Result<(File, u64)> {
    let dir = openat(CWD, dir, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Not blocking: opening a FIFO must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(dir, name, flags, Mode::empty(), resolve)?);
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((file, found.len()))
}

fn explain(path: &str, error: &io::Error) -> FetchError {
    let refused = |why: &str| FetchError::Refused(format!("`{path}` in the import directory {why}"));
    let io::ErrorKind::InvalidInput = error.kind() else {
        return match Errno::from_io_error(error) {
            Some(Errno::NOENT) => refused("does not exist"),
            Some(Errno::LOOP) => refused("is or leads through a symbolic link"),
            Some(Errno::XDEV) => refused("leads out of it"),
            Some(Errno::NOTDIR) => refused("leads through a file that is no directory"),
            Some(Errno::ACCESS) => refused("may not be read by the gateway"),
            _ => FetchError::Later(format!("`{path}` in the import directory cannot be opened: {error}")),
        };
    };
    refused("is not a regular file")
}
