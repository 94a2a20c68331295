//! Renewing an agent's certificate before it ends.
//!
//! At two thirds of its lifetime, or when the gateway says so, the agent asks for a new certificate of the key that it has, with the one that
//! still counts. New connections show the new one; open ones stay. A failure is tried again, more often than the time that is left runs out.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use cloud_contracts::agent::RenewRequest;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Gateways;
use crate::{
    error::chain,
    tls::{CredentialError, CredentialFiles, Credentials, Material, request::certificate_request},
};

/// How long the gateway may take to answer.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Between two tries, at least and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error("no gateway is configured")]
    NoGateway,
    #[error("the gateway refused: {}", .0.message())]
    Refused(Status),
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error("the new certificate is for {0}")]
    SomebodyElse(String),
    #[error("cannot write the new certificate")]
    Write(#[source] io::Error),
}

/// Keeps the certificate in `files` renewed until `shutdown`; `now` asks for it at once.
pub(super) async fn keep_renewed(
    gateways: Gateways,
    credentials: Arc<Credentials>,
    files: CredentialFiles,
    now: Arc<Notify>,
    shutdown: CancellationToken,
) {
    loop {
        let due = credentials.now().validity.renew_at().duration_since(SystemTime::now()).unwrap_or_default();
        let mut replaced = credentials.watch();
        replaced.mark_unchanged();
        let waited = async {
            tokio::select! {
                () = tokio::time::sleep(due) => true,
                () = now.notified() => true,
                // By somebody else: it may be due at another time.
                _ = replaced.changed() => false,
            }
        };
        match shutdown.run_until_cancelled(waited).await {
            None => return,
            Some(false) => continue,
            Some(true) => {}
        }
        if let Err(error) = renew(&gateways, &credentials, &files).await {
            let left = credentials.now().validity.until.duration_since(SystemTime::now()).unwrap_or_default();
            tracing::warn!(
                error = chain(&error),
                left_seconds = left.as_secs(),
                "the certificate was not renewed: trying again"
            );
            let pause = (left / 20).clamp(RETRY.0, RETRY.1).mul_f64(rand::random_range(0.5..1.0));
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            // However it was asked for, it is still to be done.
            now.notify_one();
        }
    }
}

async fn renew(gateways: &Gateways, credentials: &Credentials, files: &CredentialFiles) -> Result<(), RenewalError> {
    let key = files.read_key()?;
    let certificate_request = certificate_request(&key)?;
    let mut refusal = RenewalError::NoGateway;
    for mut client in gateways.clients()? {
        let mut request = tonic::Request::new(RenewRequest { certificate_request: certificate_request.clone() });
        request.set_timeout(CALL_DEADLINE);
        let answer = match client.renew(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                refusal = RenewalError::Refused(status);
                continue;
            }
        };
        let material = Material::from_pem(&answer.certificate, &key, &answer.ca_certificate)?;
        if material.identity != credentials.now().identity {
            return Err(RenewalError::SomebodyElse(material.identity.to_string()));
        }
        let written = files.clone();
        let writing = tokio::task::spawn_blocking(move || {
            // The authorities first: they are the old and the new ones, and do no harm beside the old certificate.
            replace(&written.authorities, &answer.ca_certificate)?;
            replace(&written.certificate, &answer.certificate)
        });
        writing.await.map_err(io::Error::other).flatten().map_err(RenewalError::Write)?;
        let until = material.validity.until;
        credentials.replace(material);
        let days = until.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 86_400;
        tracing::info!(days, "the certificate was renewed");
        return Ok(());
    }
    Err(refusal)
}

/// Writes a file whole or not at all, for its owner alone.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push("~");
    let temporary = Path::new(&temporary);
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}
