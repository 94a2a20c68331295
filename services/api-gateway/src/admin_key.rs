//! The first operator's key: a file that only its owner reads, there before anything in the database refers to it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use cloud_core::services::new_secret;

/// The shortest secret that is taken from an existing file.
const SHORTEST: usize = 24;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system refused.
    #[error("cannot {what} the API key file {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("the API key file {} has mode {mode:03o}: others may have read it; make it 600, or remove it to get a new key", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no key.
    #[error("the API key file {} holds no key (one line of at least {SHORTEST} characters): remove it to get a new one", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

/// The secret in the file; a new one, written first, where there is none.
///
/// # Errors
/// See [`KeyError`].
pub fn ensure(path: &Path) -> Result<String, KeyError> {
    let failed = |what| move |source| KeyError::Io { what, path: path.to_owned(), source };
    match read(path) {
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let secret = new_secret();
    write_new(path, &format!("{secret}\n")).map_err(failed("write"))?;
    // Another gateway that starts on the same directory may have been first.
    read(path)
}

fn read(path: &Path) -> Result<String, KeyError> {
    let failed = |source| KeyError::Io { what: "read", path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let secret = text.trim();
    if secret.len() < SHORTEST || !secret.chars().all(|c| c.is_ascii_graphic()) {
        return Err(KeyError::Content { path: path.to_owned() });
    }
    Ok(secret.to_owned())
}

/// Writes a file whole or not at all, mode 0600. One that is there stays.
pub(crate) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"))?;
    let temporary = dir.join(format!(".{}.{:016x}", name.to_string_lossy(), rand::random::<u64>()));
    let written = write_and_link(&temporary, path, text);
    let removed = fs::remove_file(&temporary);
    written?;
    removed?;
    File::open(dir)?.sync_all()
}

fn write_and_link(temporary: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // Unlike a rename, a link does not replace what is there.
    match fs::hard_link(temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use cloud_core::services::SECRET_PREFIX;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/admin.key");
        let secret = ensure(&path).unwrap();
        assert!(secret.starts_with(SECRET_PREFIX) && secret.len() == SECRET_PREFIX.len() + 64, "{secret}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(ensure(&path).unwrap(), secret, "an existing key is kept");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_file_that_others_read_or_without_a_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.key");
        ensure(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(ensure(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short\n").unwrap();
        assert!(matches!(ensure(&path), Err(KeyError::Content { .. })));
    }
}
