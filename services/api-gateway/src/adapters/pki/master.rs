//! The operator's master key: what the keys in the database are sealed by. A file that only its owner reads.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::admin_key::write_new;

/// Bytes of a key.
const LEN: usize = 32;

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The system refused.
    #[error("cannot {what} the master key file {}", path.display())]
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
    #[error("the master key file {} has mode {mode:03o}: others may have read it; make it 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no key.
    #[error("the master key file {} does not hold 64 digits of hex: restore it", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

/// The operator's master key.
pub struct MasterKey(Box<LessSafeKey>);

impl MasterKey {
    /// The key in the file; none where there is no file.
    ///
    /// # Errors
    /// See [`MasterKeyError`].
    pub fn read(path: &Path) -> Result<Option<Self>, MasterKeyError> {
        let failed = |source| MasterKeyError::Io { what: "read", path: path.to_owned(), source };
        let mode = match fs::metadata(path) {
            Ok(metadata) => metadata.mode() & 0o777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if mode & 0o077 != 0 {
            return Err(MasterKeyError::Exposed { path: path.to_owned(), mode });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let bytes = hex::decode(text.trim()).ok().filter(|bytes| bytes.len() == LEN);
        let key = bytes.and_then(|bytes| UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok());
        let key = key.ok_or_else(|| MasterKeyError::Content { path: path.to_owned() })?;
        Ok(Some(Self(Box::new(LessSafeKey::new(key)))))
    }

    /// The key in the file; a new one, written first, where there is none.
    ///
    /// # Errors
    /// See [`MasterKeyError`].
    pub fn ensure(path: &Path) -> Result<Self, MasterKeyError> {
        if let Some(key) = Self::read(path)? {
            return Ok(key);
        }
        let text = format!("{}\n", hex::encode(rand::random::<[u8; LEN]>()));
        write_new(path, &text).map_err(|source| MasterKeyError::Io { what: "write", path: path.to_owned(), source })?;
        // Another gateway that starts on the same directory may have been first.
        Self::read(path)?.ok_or_else(|| MasterKeyError::Content { path: path.to_owned() })
    }

    /// Seals a text, for this purpose only; in hex.
    pub fn seal(&self, purpose: &str, text: &str) -> Option<String> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = text.as_bytes().to_vec();
        let aad = Aad::from(purpose.as_bytes());
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some(hex::encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Opens what was sealed for this purpose; none where it was sealed by another key or for another purpose.
    pub fn open(&self, purpose: &str, sealed: &str) -> Option<String> {
        let mut bytes = hex::decode(sealed).ok()?;
        let sealed = bytes.split_off_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(&bytes).ok()?;
        let mut sealed = sealed;
        let text = self.0.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut sealed).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// `Vec::split_off`, which does not panic.
trait SplitOff: Sized {
    fn split_off_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitOff for Vec<u8> {
    fn split_off_checked(&mut self, at: usize) -> Option<Self> {
        (at <= self.len()).then(|| self.split_off(at))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_for_the_same_purpose_only() {
        let dir = tempfile::tempdir().unwrap();
        let key = MasterKey::ensure(&dir.path().join("master.key")).unwrap();
        let sealed = key.seal("ca-1", "a secret").unwrap();
        assert!(!sealed.contains(&hex::encode("a secret")));
        assert_ne!(sealed, key.seal("ca-1", "a secret").unwrap());
        let again = MasterKey::ensure(&dir.path().join("master.key")).unwrap();
        assert_eq!(again.open("ca-1", &sealed).as_deref(), Some("a secret"));
        assert_eq!(again.open("ca-2", &sealed), None);
        let other = MasterKey::ensure(&dir.path().join("other.key")).unwrap();
        assert_eq!(other.open("ca-1", &sealed), None);
        let mut broken = sealed.clone().into_bytes();
        let last = broken.len() - 1;
        broken[last] = if broken[last] == b'0' { b'1' } else { b'0' };
        assert_eq!(key.open("ca-1", &String::from_utf8(broken).unwrap()), None);
        assert_eq!(key.open("ca-1", "00"), None);
    }

    #[test]
    fn a_file_that_others_read_or_that_is_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        assert!(MasterKey::read(&path).unwrap().is_none());
        MasterKey::ensure(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(MasterKey::read(&path), Err(MasterKeyError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "abcd\n").unwrap();
        assert!(matches!(MasterKey::ensure(&path), Err(MasterKeyError::Content { .. })));
    }
}
