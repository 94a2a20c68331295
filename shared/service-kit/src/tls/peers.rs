//! Who is at the other end: checked in the handshake, before a byte of a request is read.

use std::sync::Arc;

use cloud_domain::{CloudId, HostId};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::{Credentials, Daemon, Fingerprint, Identity, fingerprint};

/// Who may be at the other end. Always of the cloud that the own certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A gateway.
    Gateway,
    /// A daemon of any host.
    AnyAgent,
    /// A certain daemon of a certain host.
    Agent(HostId, Daemon),
}

impl Expect {
    fn check(self, cloud: CloudId, found: Identity) -> Result<(), String> {
        let fits = match (self, found) {
            (Self::Gateway, Identity::Gateway { .. }) | (Self::AnyAgent, Identity::Agent { .. }) => true,
            (Self::Agent(host, daemon), Identity::Agent { host: h, daemon: d, .. }) => host == h && daemon == d,
            _ => false,
        };
        if fits && found.cloud() == cloud {
            return Ok(());
        }
        let expected = match self {
            Self::Gateway => Identity::Gateway { cloud }.to_string(),
            Self::AnyAgent => format!("an agent of cloud://{cloud}"),
            Self::Agent(host, daemon) => Identity::Agent { cloud, host, daemon }.to_string(),
        };
        Err(format!("it is {found}, and {expected} is expected"))
    }
}

/// Whom a certificate speaks for. It has one URI, and that is an identity.
///
/// # Errors
/// Why it speaks for nobody.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| format!("it is no certificate: {e}"))?;
    let names = parsed.subject_alternative_name().map_err(|e| format!("its names cannot be read: {e}"))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().map_err(|e: cloud_domain::IdentityError| e.to_string()),
        (None, _) => Err("it has no URI, which would say whom it is for".to_owned()),
        (Some(_), Some(_)) => Err("it has several URIs".to_owned()),
    }
}

/// A certificate's serial number in hex.
///
/// # Errors
/// It is no certificate.
pub fn serial_of(certificate: &CertificateDer<'_>) -> Result<String, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| format!("it is no certificate: {e}"))?;
    Ok(hex::encode(parsed.raw_serial()))
}

fn refused(why: &str) -> Error {
    tracing::warn!(why, "a certificate was refused");
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    ring::default_provider().signature_verification_algorithms
}

/// Checks whoever connects, or is connected to.
#[derive(Debug)]
pub(super) struct Peers {
    credentials: Arc<Credentials>,
    expect: Expect,
    optional: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Peers {
    pub(super) fn new(credentials: Arc<Credentials>, expect: Expect, optional: bool) -> Self {
        Self { credentials, expect, optional, algorithms: algorithms() }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let cloud = self.credentials.now().identity.cloud();
        identity_of(certificate).and_then(|found| self.expect.check(cloud, found)).map_err(|why| refused(&why))
    }
}

/// Signatures of handshakes, the same for every verifier: TLS 1.2 is not spoken.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is not spoken".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.credentials.now().clients.verify_client_cert(certificate, intermediates, now)?;
        self.check(certificate)?;
        Ok(verified)
    }

    signatures!();
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = Arc::clone(&self.credentials.now().roots);
        signed(certificate, &roots, intermediates, now, self.algorithms)?;
        self.check(certificate)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

/// Sees that a server's certificate comes from one of these authorities, and counts now.
fn signed(
    certificate: &CertificateDer<'_>,
    roots: &RootCertStore,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms.all)
}

/// Knows a gateway by the authority behind its certificate, which it must show too.
#[derive(Debug)]
pub(super) struct Pinned {
    authorities: Vec<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    pub(super) fn new(authorities: Vec<Fingerprint>) -> Self {
        Self { authorities, algorithms: algorithms() }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut roots = RootCertStore::empty();
        for shown in intermediates.iter().filter(|c| self.authorities.contains(&fingerprint(c))) {
            roots.add(shown.clone().into_owned())?;
        }
        if roots.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        signed(certificate, &roots, intermediates, now, self.algorithms)?;
        match identity_of(certificate) {
            Ok(Identity::Gateway { .. }) => Ok(ServerCertVerified::assertion()),
            Ok(other) => Err(refused(&format!("it is {other}, and a gateway is expected"))),
            Err(why) => Err(refused(&why)),
        }
    }

    signatures!();
}
