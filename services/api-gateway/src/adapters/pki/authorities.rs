//! The authorities of a cloud, as one gateway knows them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cloud_core::{
    CoreError,
    model::{Authority, Labels, Meta, Timestamp},
    ports::{AuthorityError, CertificateAuthority, Issued, Query, Store, StoreError, TrustedAuthority, Tx},
};
use cloud_domain::{CloudId, Identity, ProjectId};
use cloud_service_kit::tls::{Validity, fingerprint};
use rcgen::{CertificateSigningRequestParams, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use uuid::Uuid;

use super::{
    MasterKey, MasterKeyError,
    issue::{self, Signer, Subject},
};

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The authority in the database was sealed by another master key.
    #[error(
        "the certificate authority in the database was sealed with another master key than {}: put the master key of this cloud there (it was made by the first gateway)", .0.display()
    )]
    OtherKey(PathBuf),
    /// The operator's own files.
    #[error("cannot use the certificate authority in {} and {}", certificate.display(), key.display())]
    Files {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The authority is in files, and is replaced by replacing them.
    #[error(
        "the certificate authority is in files: replace those, and keep the certificate before it in --ca-cert until no host shows one of it"
    )]
    InFiles,
    /// The database.
    #[error("cannot read the certificate authority")]
    Store(#[from] CoreError),
    /// Making one.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

impl From<StoreError> for PkiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

/// Where the authority is.
enum Source {
    /// In the database, sealed.
    BuiltIn { master: Option<MasterKey>, master_file: PathBuf },
    /// In files.
    Files { certificate: PathBuf, key: PathBuf },
}

/// What is known now.
#[derive(Default)]
struct Known {
    /// Hosts get their certificates of it.
    signer: Option<Arc<Signer>>,
    /// Gateways show certificates of it.
    shown: Option<Arc<Signer>>,
    trusted: Vec<TrustedAuthority>,
    pem: String,
    /// The rows, or the files' texts, that this was made of.
    from: Vec<String>,
}

/// The authorities of a cloud.
pub struct Authorities {
    cloud: CloudId,
    source: Source,
    /// Of a host's certificate: how long the old authority goes on beside a new one.
    overlap: Duration,
    lifetime: Duration,
    known: RwLock<Arc<Known>>,
}

impl Authorities {
    /// The authority in the database; made where there is none.
    ///
    /// # Errors
    /// The master key or the database. That it was sealed by another master key is none here: see [`Self::closed`].
    pub async fn built_in<S: Store>(
        store: &S,
        master_file: &Path,
        overlap: Duration,
        lifetime: Duration,
    ) -> Result<Self, PkiError> {
        let rows: Vec<Authority> = store.list(&Query::default()).await?;
        let master =
            if rows.is_empty() { Some(MasterKey::ensure(master_file)?) } else { MasterKey::read(master_file)? };
        let source = Source::BuiltIn { master, master_file: master_file.to_owned() };
        let cloud = store.identity().0;
        let this = Self { cloud, source, overlap, lifetime, known: RwLock::default() };
        if rows.is_empty() {
            this.add(store, 1, Timestamp::now()).await?;
        }
        this.refresh(store).await?;
        Ok(this)
    }

    /// The authority in these files; looked at again now and then.
    ///
    /// # Errors
    /// The files.
    pub fn of_files(cloud: CloudId, certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let source = Source::Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let (overlap, lifetime) = (Duration::ZERO, Duration::ZERO);
        let this = Self { cloud, source, overlap, lifetime, known: RwLock::default() };
        this.refresh_files(certificate, key)?;
        Ok(this)
    }

    /// Why its key cannot be used; none where it can.
    #[must_use]
    pub fn closed(&self) -> Option<PkiError> {
        match &self.source {
            Source::BuiltIn { master_file, .. } if self.known().signer.is_none() => {
                Some(PkiError::OtherKey(master_file.clone()))
            }
            _ => None,
        }
    }

    /// Adds an authority, which replaces the present one in time.
    ///
    /// # Errors
    /// The database; it is in files, or its key cannot be used.
    pub(super) async fn rotate<S: Store>(&self, store: &S) -> Result<(), PkiError> {
        let rows: Vec<Authority> = store.list(&Query::default()).await?;
        let newest = rows.iter().filter_map(Authority::number).max().unwrap_or(0);
        self.add(store, newest + 1, Timestamp::now().plus(self.overlap)).await?;
        self.refresh(store).await?;
        Ok(())
    }

    /// Whether the newest authority is near its end, and another one is to be made.
    pub(super) async fn is_ending<S: Store>(&self, store: &S) -> Result<bool, PkiError> {
        if !matches!(&self.source, Source::BuiltIn { master: Some(_), .. }) {
            return Ok(false);
        }
        let rows: Vec<Authority> = store.list(&Query::default()).await?;
        let newest = rows.iter().map(|row| row.expires_at).max();
        let needed = self.overlap * 2 + self.lifetime / 5;
        Ok(newest.is_some_and(|end| end <= Timestamp::now().plus(needed.min(self.lifetime / 2))))
    }

    async fn add<S: Store>(&self, store: &S, number: u32, active_at: Timestamp) -> Result<(), PkiError> {
        let row = self.make(number, active_at)?;
        let mut tx = store.begin().await?;
        match tx.insert(&row).await {
            Ok(()) => Ok(tx.commit().await?),
            // Another gateway was faster.
            Err(StoreError::Taken) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    fn make(&self, number: u32, active_at: Timestamp) -> Result<Authority, PkiError> {
        let (master, file) = match &self.source {
            Source::BuiltIn { master: Some(master), master_file } => (master, master_file),
            Source::BuiltIn { master: None, master_file } => return Err(PkiError::OtherKey(master_file.clone())),
            Source::Files { .. } => return Err(PkiError::InFiles),
        };
        let (certificate, key) = issue::new_authority(self.cloud, number, self.lifetime)?;
        let name = format!("ca-{number}");
        let sealed_key = master.seal(&purpose(self.cloud, &name), &key);
        Ok(Authority {
            meta: Meta::new(Uuid::new_v4(), ProjectId::from(Uuid::nil()), "", &name, Labels::new()),
            certificate,
            sealed_key: sealed_key.ok_or_else(|| PkiError::OtherKey(file.clone()))?,
            active_at,
            expires_at: Timestamp::now().plus(self.lifetime),
        })
    }

    /// Looks for what has changed. True where something has.
    ///
    /// # Errors
    /// The database, or the files.
    pub async fn refresh<S: Store>(&self, store: &S) -> Result<bool, PkiError> {
        let (master, master_file) = match &self.source {
            Source::Files { certificate, key } => return self.refresh_files(certificate, key),
            Source::BuiltIn { master, master_file } => (master, master_file),
        };
        let mut rows: Vec<Authority> = store.list(&Query::default()).await?;
        rows.sort_by_key(Authority::number);
        let now = Timestamp::now();
        // The newest one that gateways show; those before it are forgotten a little later, when all gateways show it.
        let shown = rows.iter().rposition(|row| row.active_at <= now).unwrap_or(0);
        let settled = now.minus(self.overlap / 10);
        let first = rows.iter().rposition(|row| row.active_at <= settled).unwrap_or(0).min(shown);
        let from = rows.iter().enumerate().skip(first);
        let from = from.map(|(at, row)| format!("{}{}", row.meta.name, if at == shown { "*" } else { "" })).collect();
        if self.known().from == from {
            return Ok(false);
        }
        let open = |row: &Authority| {
            let key = master.as_ref()?.open(&purpose(self.cloud, &row.meta.name), &row.sealed_key)?;
            signer(&row.certificate, &key).ok().map(Arc::new)
        };
        let rows: Vec<_> = rows.into_iter().skip(first).collect();
        let newest = rows.len().saturating_sub(1);
        let trusted = rows.iter().enumerate().filter_map(|(at, row)| trusted(row, at == newest)).collect();
        let known = Known {
            signer: rows.last().and_then(open),
            shown: rows.get(shown - first).and_then(open),
            trusted,
            pem: rows.iter().map(|row| row.certificate.as_str()).collect(),
            from,
        };
        if known.signer.is_none() {
            tracing::warn!(file = %master_file.display(), "the master key is not this cloud's: no certificate can be issued here");
        }
        self.set(known);
        Ok(true)
    }

    fn refresh_files(&self, certificate: &Path, key: &Path) -> Result<bool, PkiError> {
        let failed = |source| PkiError::Files { certificate: certificate.to_owned(), key: key.to_owned(), source };
        let read = |path: &Path| fs::read_to_string(path).map_err(|e| failed(e.into()));
        let from = vec![read(certificate)?, read(key)?];
        if self.known().from == from {
            return Ok(false);
        }
        let [pem, key] = from.as_slice() else { return Ok(false) };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let certificates: Vec<CertificateDer<'static>> = certificates.map_err(|e| failed(e.to_string().into()))?;
        let in_file = |(at, certificate): (usize, &CertificateDer<'static>)| {
            let validity = Validity::of(certificate).map_err(|e| failed(e.into()))?;
            Ok(TrustedAuthority {
                name: "files".to_owned(),
                fingerprint: fingerprint(certificate),
                active_at: moment(validity.from),
                expires_at: moment(validity.until),
                issues: at == 0,
            })
        };
        let trusted = certificates.iter().enumerate().map(in_file).collect::<Result<_, PkiError>>()?;
        let signer = Arc::new(signer(pem, key).map_err(|e| failed(e.into()))?);
        let (signer, shown, pem) = (Some(Arc::clone(&signer)), Some(signer), pem.clone());
        self.set(Known { signer, shown, trusted, pem, from });
        Ok(true)
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    /// A gateway's own certificate, followed by its authority's.
    pub(super) fn gateway_chain(&self, key: &KeyPair, lifetime: Duration) -> Result<String, PkiError> {
        let subject = Subject::Daemon(Identity::Gateway { cloud: self.cloud });
        self.chain(key, &subject, lifetime)
    }

    /// A certificate for the public port, followed by its authority's.
    ///
    /// # Errors
    /// The authority's key cannot be used, or a name is none.
    pub fn server_chain(&self, key: &KeyPair, names: &[String], lifetime: Duration) -> Result<String, PkiError> {
        self.chain(key, &Subject::Server(names), lifetime)
    }

    fn chain(&self, key: &KeyPair, subject: &Subject<'_>, lifetime: Duration) -> Result<String, PkiError> {
        let known = self.known();
        let closed = || self.closed().unwrap_or_else(|| PkiError::OtherKey(PathBuf::new()));
        let signer = known.shown.as_ref().ok_or_else(closed)?;
        Ok(issue::issue(signer, key, subject, lifetime)?.certificate + &signer.pem)
    }

    /// Whether a certificate is of the authority that hosts get theirs from now.
    #[must_use]
    pub fn is_of_the_newest(&self, certificate: &CertificateDer<'_>) -> bool {
        let known = self.known();
        known.signer.as_ref().is_none_or(|signer| issue::issued_by(certificate, &signer.certificate))
    }
}

impl CertificateAuthority for Authorities {
    fn issue(&self, request: &str, identity: Identity, lifetime: Duration) -> Result<Issued, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|e| AuthorityError::Request(format!("is no certificate request (PKCS #10, PEM): {e}")))?;
        let known = self.known();
        let closed = || self.closed().map_or_else(String::new, |error| error.to_string());
        let signer = known.signer.as_ref().ok_or_else(|| AuthorityError::Closed(closed()))?;
        let issued = issue::issue(signer, &request.public_key, &Subject::Daemon(identity), lifetime);
        issued.map_err(|error| AuthorityError::Fault(error.into()))
    }

    fn trusted(&self) -> String {
        self.known().pem.clone()
    }

    fn authorities(&self) -> Vec<TrustedAuthority> {
        self.known().trusted.clone()
    }

    fn successor(&self, number: u32) -> Result<Authority, AuthorityError> {
        self.make(number, Timestamp::now().plus(self.overlap)).map_err(|error| match error {
            PkiError::InFiles | PkiError::OtherKey(_) => AuthorityError::Closed(error.to_string()),
            other => AuthorityError::Fault(other.into()),
        })
    }
}

fn trusted(row: &Authority, issues: bool) -> Option<TrustedAuthority> {
    Some(TrustedAuthority {
        name: row.meta.name.clone(),
        fingerprint: fingerprint(&der(&row.certificate)?),
        active_at: row.active_at,
        expires_at: row.expires_at,
        issues,
    })
}

fn moment(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// What an authority's key is sealed for: in another cloud's database, or as another authority's, it does not open.
fn purpose(cloud: CloudId, name: &str) -> String {
    format!("{cloud}/{name}")
}

fn der(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// The first certificate of a text, with its key.
fn signer(pem: &str, key: &str) -> Result<Signer, io::Error> {
    let other = |what: String| io::Error::other(what);
    let certificate = der(pem).ok_or_else(|| other("there is no certificate in PEM form".to_owned()))?;
    let key = KeyPair::from_pem(key).map_err(|e| other(format!("the key cannot be used: {e}")))?;
    if Validity::of(&certificate).map_err(io::Error::other)?.is_over() {
        return Err(other("the authority's certificate has ended".to_owned()));
    }
    issue::belongs(&certificate, &key).map_err(other)?;
    Ok(Signer { pem: issue::pem(&certificate), certificate, key })
}
