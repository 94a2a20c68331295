//! An authority of the test's own, and connections with what it issues.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use cloud_domain::{CloudId, Daemon, HostId, Identity};
use cloud_service_kit::tls::{Credentials, Expect, Material, client_config};
use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// An authority.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn key(&self) -> String {
        self.0.key().serialize_pem()
    }

    pub fn issue(&self, identity: Identity) -> Pair {
        self.issue_for(identity, Duration::from_secs(3600))
    }

    /// Zero: it has ended already.
    pub fn issue_for(&self, identity: Identity, lifetime: Duration) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params(identity, lifetime).signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A certificate that nobody but its own key vouches for.
pub fn self_made(identity: Identity) -> Pair {
    let key = KeyPair::generate().unwrap();
    let certificate = params(identity, Duration::from_secs(3600)).self_signed(&key).unwrap();
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}

fn params(identity: Identity, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(7200);
    params.not_after = match lifetime {
        Duration::ZERO => OffsetDateTime::now_utc() - Duration::from_secs(60),
        lifetime => OffsetDateTime::now_utc() + lifetime,
    };
    params
}

pub fn agent(cloud: CloudId, host: HostId, daemon: Daemon) -> Identity {
    Identity::Agent { cloud, host, daemon }
}

/// A client that shows what it is given, and takes any server that the authority vouches for: what is tested is the server.
pub fn client(shown: Option<&Pair>) -> Arc<ClientConfig> {
    #[derive(Debug)]
    struct Anybody;
    impl rustls::client::danger::ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

pub async fn connect(address: &str, config: Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    Ok(TlsConnector::from(config).connect("localhost".try_into()?, stream).await?)
}

/// Calls a method with an empty message, on a connection of its own. The gRPC status, where the server answered.
pub async fn call(address: &str, config: Arc<ClientConfig>, path: &str) -> anyhow::Result<String> {
    let calling = async {
        let stream = connect(address, config).await?;
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let running = tokio::spawn(connection);
        let request = Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(&[0; 5])))?;
        let response = send.send_request(request).await?;
        let status = response.headers().get("grpc-status").map(|s| s.to_str().unwrap_or_default().to_owned());
        running.abort();
        Ok(format!("{} {}", response.status().as_u16(), status.unwrap_or_else(|| "streams".to_owned())))
    };
    tokio::time::timeout(Duration::from_secs(10), calling).await.context("no answer, and no refusal either")?
}

/// The certificate that a gateway shows to an agent.
pub async fn presented(address: &str, agent: Material) -> anyhow::Result<CertificateDer<'static>> {
    Ok(chain(address, agent).await?.remove(0))
}

/// The authority's certificate that a gateway shows after its own.
pub async fn presented_authority(address: &str, agent: Material) -> anyhow::Result<CertificateDer<'static>> {
    chain(address, agent).await?.pop().context("none")
}

async fn chain(address: &str, agent: Material) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let config = client_config(&Credentials::new(agent), Expect::Gateway)?;
    let stream = connect(address, config).await?;
    let shown = stream.get_ref().1.peer_certificates().context("none")?;
    Ok(shown.iter().map(|certificate| certificate.clone().into_owned()).collect())
}
