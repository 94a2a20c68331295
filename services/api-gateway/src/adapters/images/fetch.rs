//! Images from the web.
//!
//! The URL is a stranger's, and the gateway stands inside the operator's network. So a host is resolved once per hop, every address
//! it has must be public, and the connection goes to the very address that was checked: a name server that answers differently the next time changes
//! nothing. Redirects are followed by hand, each as carefully as the first URL.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cloud_core::ports::FetchError;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming as Body, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::Incoming;

/// Redirects followed.
const REDIRECTS: usize = 5;
/// For a name to be resolved, and for each connection and TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// For the head of an answer, and between two chunks of a body.
const IDLE: Duration = Duration::from_secs(60);

/// Which addresses may be connected to.
pub(super) type Allowed = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// How images are fetched.
#[derive(Clone)]
pub(super) struct Fetcher {
    tls: TlsConnector,
    allowed: Allowed,
}

/// The parts of a URL that can be fetched.
struct Target {
    uri: Uri,
    https: bool,
    host: String,
    port: u16,
}

/// Checks that a text is a URL that images can be fetched from; the host is looked at when it is fetched.
///
/// # Errors
/// Why it is not, for the user.
pub fn check_url(text: &str) -> Result<(), String> {
    Target::parse(text).map(|_| ())
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(200).collect();
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(format!("`{shown}` must begin with https:// or http://")),
        };
        let uri: Uri = text.parse().map_err(|e| format!("`{shown}` is not a URL: {e}"))?;
        let authority = uri.authority().ok_or_else(|| format!("`{shown}` has no host"))?;
        if authority.as_str().contains('@') {
            return Err("a URL with a user name or password is not taken: give one that needs none".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(format!("`{shown}` has no host"));
        }
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        Ok(Self { https, host, port, uri })
    }

    /// Where a redirect leads.
    fn redirect(&self, location: &str) -> Result<Self, String> {
        let location = location.split('#').next().unwrap_or_default();
        let (scheme, authority) =
            (self.uri.scheme_str().unwrap_or_default(), self.uri.authority().map_or("", |a| a.as_str()));
        let next = if location.contains("://") {
            location.to_owned()
        } else if let Some(rest) = location.strip_prefix("//") {
            format!("{scheme}://{rest}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else {
            let dir = self.uri.path().rsplit_once('/').map_or("", |(dir, _)| dir);
            format!("{scheme}://{authority}{dir}/{location}")
        };
        let next = Self::parse(&next)?;
        if self.https && !next.https {
            return Err(format!("it leads from https to `{}`, which is not encrypted", next.uri));
        }
        Ok(next)
    }
}

impl Fetcher {
    /// Trusts what the machine trusts.
    pub(super) fn new(allowed: Allowed) -> io::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "cannot read some of the machine's certificate authorities");
        }
        roots.add_parsable_certificates(found.certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), allowed })
    }

    /// Writes what a URL answers into an image.
    pub(super) async fn fetch(&self, url: &str, to: &mut Incoming) -> Result<(), FetchError> {
        let mut target = Target::parse(url).map_err(FetchError::Refused)?;
        for _ in 0..=REDIRECTS {
            // The connection lives as long as its task.
            let (response, _connection) = self.request(&target).await?;
            match response.status() {
                StatusCode::OK => return receive(&target, response, to).await,
                status if status.is_redirection() && response.headers().contains_key(header::LOCATION) => {
                    let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
                    let next = target.redirect(location.unwrap_or_default());
                    target = next.map_err(|why| FetchError::Refused(format!("`{}` redirects: {why}", target.uri)))?;
                }
                status => return Err(unwanted(&target, status)),
            }
        }
        Err(FetchError::Refused(format!("`{url}` redirects more than {REDIRECTS} times")))
    }

    async fn request(&self, target: &Target) -> Result<(Response<Body>, AbortOnDropHandle<()>), FetchError> {
        let stream = self.connect(target).await?;
        if !target.https {
            return send(target, stream).await;
        }
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| FetchError::Refused(format!("`{}` is not a host name", target.host)))?;
        match timeout(CONNECT, self.tls.connect(name, stream)).await {
            Ok(Ok(stream)) => send(target, stream).await,
            Ok(Err(error)) => Err(later(target, &format!("no TLS connection: {error}"))),
            Err(_) => Err(later(target, "no TLS connection in time")),
        }
    }

    /// Connects to an address of the host, all of which are allowed.
    async fn connect(&self, target: &Target) -> Result<TcpStream, FetchError> {
        let addresses = resolve(target).await?;
        if let Some(refused) = addresses.iter().find(|a| !(self.allowed)(a.ip())) {
            return Err(FetchError::Refused(format!(
                "`{}` is at {}, which is not a public address: the operator may allow that (--import-allow-private)",
                target.host,
                refused.ip(),
            )));
        }
        let mut last = "it has no address".to_owned();
        for address in addresses {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address} does not answer"),
            }
        }
        Err(later(target, &last))
    }
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, FetchError> {
    if let Ok(ip) = target.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    match timeout(CONNECT, lookup_host((target.host.as_str(), target.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(later(target, &format!("its name cannot be resolved: {error}"))),
        Err(_) => Err(later(target, "its name cannot be resolved in time")),
    }
}

async fn send(
    target: &Target,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(Response<Body>, AbortOnDropHandle<()>), FetchError> {
    let failed = |error: hyper::Error| later(target, &cloud_service_kit::error::chain(&error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection of an image fetch");
        }
    }));
    let path = target.uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::get(path)
        .header(header::HOST, target.uri.authority().map_or("", |a| a.as_str()))
        .header(header::USER_AGENT, concat!("thecloud/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::ACCEPT_ENCODING, "identity")
        .body(Empty::<Bytes>::new())
        .map_err(|e| FetchError::Refused(format!("`{}` cannot be asked for: {e}", target.uri)))?;
    match timeout(IDLE, sender.send_request(request)).await {
        Ok(Ok(response)) => Ok((response, connection)),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(later(target, "it does not answer in time")),
    }
}

async fn receive(target: &Target, response: Response<Body>, to: &mut Incoming) -> Result<(), FetchError> {
    if let Some(length) = length(response.headers()) {
        to.expect(length)?;
    }
    if let Some(encoding) = response.headers().get(header::CONTENT_ENCODING).filter(|e| *e != "identity") {
        return Err(FetchError::Refused(format!("`{}` answers with the encoding {encoding:?}", target.uri)));
    }
    let mut body = response.into_body();
    loop {
        match timeout(IDLE, body.frame()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    to.write(data).await?;
                }
            }
            Ok(Some(Err(error))) => return Err(later(target, &cloud_service_kit::error::chain(&error))),
            Err(_) => return Err(later(target, &format!("no bytes came for {} s", IDLE.as_secs()))),
        }
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn unwanted(target: &Target, status: StatusCode) -> FetchError {
    let message = format!("`{}` answers {status}", target.uri);
    let passes = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::TOO_EARLY);
    if passes { FetchError::Later(message) } else { FetchError::Refused(message) }
}

fn later(target: &Target, why: &str) -> FetchError {
    FetchError::Later(format!("`{}` cannot be fetched: {why}", target.uri))
}
