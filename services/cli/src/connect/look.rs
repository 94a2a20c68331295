//! What certificate a gateway shows, before anything is sent to it.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cloud_domain::join::Fingerprint;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::channel::CONNECT;
use crate::error::Error;

/// What a gateway shows.
#[derive(Debug, Default)]
pub struct Shown {
    /// The authorities that its certificate really comes from, among those that it shows: fingerprint and PEM.
    pub authorities: Vec<(Fingerprint, String)>,
    /// Whether the system knows its authority.
    pub by_system: bool,
}

/// Shakes hands with a gateway, and hangs up.
pub async fn look_at(uri: &http::Uri) -> Result<Shown, Error> {
    let endpoint = uri.to_string();
    let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unreachable {
        endpoint: endpoint.clone(),
        local: super::is_loopback(&endpoint),
        source,
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|e| unreachable(e.into()))?;
    let recorder = Arc::new(Recorder { shown: Mutex::default() });
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| unreachable(e.into()))?
        .dangerous()
        .with_custom_certificate_verifier(recorder.clone())
        .with_no_client_auth();
    let shaking = async {
        let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let shaken = timeout(CONNECT, shaking).await.map_err(|late| unreachable(late.into()))?;
    let ended = shaken.map(drop);
    let shown = std::mem::take(&mut *recorder.shown.lock().unwrap_or_else(PoisonError::into_inner));
    // The handshake is refused on purpose where nothing was found; what was found is what was asked.
    match (ended, shown.authorities.is_empty() && !shown.by_system) {
        (Err(error), true) => Err(unreachable(error.into())),
        _ => Ok(shown),
    }
}

/// Records what a server shows, and takes it where its certificate comes from an authority that it shows too, for the name that was asked.
#[derive(Debug)]
struct Recorder {
    shown: Mutex<Shown>,
}

fn verifier(roots: RootCertStore) -> Option<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider())).build().ok()
}

fn system() -> Option<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    verifier(roots)
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let mut shown = Shown::default();
        let mut refusal = TlsError::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        for authority in intermediates {
            let mut roots = RootCertStore::empty();
            if roots.add(authority.clone().into_owned()).is_err() {
                continue;
            }
            let Some(verifier) = verifier(roots) else { continue };
            match verifier.verify_server_cert(certificate, intermediates, name, ocsp, now) {
                Ok(_) => shown.authorities.push((Sha256::digest(authority).into(), pem(authority))),
                Err(error) => refusal = error,
            }
        }
        let by_system = system().map(|s| s.verify_server_cert(certificate, intermediates, name, ocsp, now));
        shown.by_system = matches!(by_system, Some(Ok(_)));
        let found = shown.by_system || !shown.authorities.is_empty();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        if found { Ok(ServerCertVerified::assertion()) } else { Err(refusal) }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
