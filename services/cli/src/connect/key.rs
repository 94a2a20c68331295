//! API keys.

use std::{fmt, fs, path::Path};

use crate::error::Error;

/// An API key and where it came from. Its `Debug` does not tell it.
#[derive(Clone)]
pub struct Key {
    secret: String,
    source: String,
}

impl Key {
    /// The key itself.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Where it came from, for messages.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(from {})", self.source)
    }
}

/// Reads the key from a file.
pub fn read(path: &Path) -> Result<Key, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::KeyFile { path: path.to_owned(), source })?;
    parse(&text, &path.display().to_string())
}

/// Takes a key that came from `source`, without the white space around it.
pub fn parse(text: &str, source: &str) -> Result<Key, Error> {
    let secret = text.trim();
    if secret.is_empty() || !secret.chars().all(|c| c.is_ascii_graphic()) {
        let problem = if secret.is_empty() { "is empty" } else { "has characters that no API key has" };
        return Err(Error::BadKey { source_name: source.to_owned(), problem });
    }
    Ok(Key { secret: secret.to_owned(), source: source.to_owned() })
}
