//! Credentials in files, taken over whenever they change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::{CredentialError, Credentials, Identity, Material};
use crate::error::chain;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The files of a daemon's credentials, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The certificate, first of its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities to trust.
    pub authorities: PathBuf,
}

impl CredentialFiles {
    /// Reads them.
    ///
    /// # Errors
    /// A file is missing, is not PEM or does not fit the others.
    pub fn load(&self) -> Result<Material, CredentialError> {
        let [certificate, key, authorities] = self.read()?;
        Material::from_pem(&certificate, &key, &authorities)
    }

    fn read(&self) -> Result<[String; 3], CredentialError> {
        Ok([read(&self.certificate)?, read(&self.key)?, read(&self.authorities)?])
    }

    /// The key in PEM.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_key(&self) -> Result<String, CredentialError> {
        read(&self.key)
    }

    fn digest(&self) -> Option<[u8; 32]> {
        let texts = self.read().ok()?;
        let mut hash = Sha256::new();
        texts.iter().for_each(|text| hash.update(Sha256::digest(text)));
        Some(hash.finalize().into())
    }
}

fn read(path: &Path) -> Result<String, CredentialError> {
    fs::read_to_string(path).map_err(|source| CredentialError::File { path: path.to_owned(), source })
}

/// Takes over what the files say whenever that changes, until `shutdown`. What cannot be used, or is for somebody else, is said and left: what
/// counted before goes on counting. (Several files are not replaced in one moment: between two of them they do not fit each other.)
pub async fn keep_loaded(files: CredentialFiles, credentials: Arc<Credentials>, shutdown: CancellationToken) {
    let identity = credentials.now().identity;
    let mut known = digest(&files).await;
    let mut ticks = tokio::time::interval(LOOK);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let found = digest(&files).await;
        if found == known {
            continue;
        }
        match load(&files, identity).await {
            Ok(material) => {
                tracing::info!(certificate = %files.certificate.display(), "the certificate was replaced");
                credentials.replace(material);
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(certificate = %files.certificate.display(), error, "the new files cannot be used: going on with what was there before");
            }
        }
        known = found;
    }
}

async fn digest(files: &CredentialFiles) -> Option<[u8; 32]> {
    let files = files.clone();
    tokio::task::spawn_blocking(move || files.digest()).await.ok().flatten()
}

async fn load(files: &CredentialFiles, identity: Identity) -> Result<Material, CredentialError> {
    let files = files.clone();
    let loaded = tokio::task::spawn_blocking(move || files.load()).await;
    let material = loaded.map_err(|e| CredentialError::Certificate(e.to_string()))??;
    if material.identity != identity {
        let (found, expected) = (material.identity.to_string(), identity.to_string());
        return Err(CredentialError::SomebodyElse { found, expected });
    }
    Ok(material)
}
