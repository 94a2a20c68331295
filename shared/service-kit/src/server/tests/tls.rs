//! TLS by files.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::PrivateKeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use super::*;

/// An authority, with a server's and a client's certificate by it, as files and in memory.
struct Authority {
    directory: TempDir,
    root: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { directory: tempfile::tempdir().unwrap(), root }
    }

    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.root).unwrap(), key)
    }

    fn files(&self, client_ca: bool) -> TlsFiles {
        let (certificate, key) = self.issue();
        let write = |name: &str, text: String| {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            cert: write("cert.pem", certificate.pem()),
            key: write("key.pem", key.serialize_pem()),
            client_ca: client_ca.then(|| write("ca.pem", self.root.pem())),
        }
    }

    fn client(
        &self,
        certificate: bool,
        alpn: &[u8],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if certificate {
            let (certificate, key) = self.issue();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

const NEW: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
const OLD: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

async fn start(files: &TlsFiles) -> Running {
    Running::start("127.0.0.1:0", ServerOptions { tls: Some(files.load().unwrap()), ..ServerOptions::default() }).await
}

async fn handshake(
    server: &Running,
    connector: &TlsConnector,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    connector.connect("localhost".try_into().unwrap(), server.connect().await).await
}

const GET_PEER: &str = "GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn both_protocols_by_alpn_and_nothing_older_than_tls_1_3() {
    let authority = Authority::new();
    let server = start(&authority.files(false)).await;
    let stream = handshake(&server, &authority.client(false, b"http/1.1", NEW)).await.unwrap();
    let answer = talk(stream, GET_PEER).await;
    assert!(answer.contains("tls: true, certificates: []"), "{answer}");
    let stream = handshake(&server, &authority.client(false, b"h2", NEW)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut send, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("https://localhost/ids").body(String::new()).unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    drop((send, response));
    assert!(handshake(&server, &authority.client(false, b"h2", OLD)).await.is_err());
    server.stop().await;
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn with_an_authority_for_clients_a_certificate_is_needed_and_seen() {
    let authority = Authority::new();
    let server = start(&authority.files(true)).await;
    let stream = handshake(&server, &authority.client(true, b"http/1.1", NEW)).await.unwrap();
    let answer = talk(stream, GET_PEER).await;
    assert!(answer.contains("certificates: [CertificateDer"), "{answer}");
    for client in [authority.client(false, b"http/1.1", NEW), Authority { ..Authority::new() }.client(true, b"h2", NEW)]
    {
        // In TLS 1.3 the client may learn of the refusal at its first read.
        let answered = async {
            let mut stream = handshake(&server, &client).await?;
            stream.write_all(GET_PEER.as_bytes()).await?;
            stream.read_u8().await
        };
        assert!(answered.await.is_err());
    }
    server.stop().await;
}

#[test]
fn wrong_files_are_named() {
    let authority = Authority::new();
    let files = authority.files(false);
    let error = TlsFiles { key: "/no/key.pem".into(), ..files.clone() }.load().unwrap_err().to_string();
    assert_eq!(error, "cannot read /no/key.pem");
    let error = TlsFiles { key: files.cert.clone(), ..files.clone() }.load().unwrap_err().to_string();
    assert!(error.ends_with("cert.pem has no private key in PEM form"), "{error}");
    let (_, other) = authority.issue();
    std::fs::write(&files.key, other.serialize_pem()).unwrap();
    let error = files.load().unwrap_err().to_string();
    assert!(error.contains("cannot be used together"), "{error}");
    let args = TlsArgs { tls_cert: Some("/c".into()), tls_key: None };
    assert_eq!(args.files().unwrap_err().to_string(), "TLS needs a certificate and a key, --tls-key is missing");
}
