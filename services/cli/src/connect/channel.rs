//! The HTTP/2 channel to the gateway, and the headers of every call.

use std::{fs, path::Path, time::Duration};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::settings::{Settings, is_loopback};
use crate::error::Error;

/// How long it may take to reach the gateway.
pub const CONNECT: Duration = Duration::from_secs(5);

/// Adds who asks to every call.
#[derive(Debug, Clone)]
pub struct Credentials {
    authorization: MetadataValue<Ascii>,
    project: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {}", settings.key.secret())
            .parse()
            .map_err(|_| Error::BadKey { source_name: settings.key.source().to_owned(), problem: "cannot be sent" })?;
        authorization.set_sensitive(true);
        let project = settings.project.as_deref().map(str::parse).transpose().map_err(|_| {
            Error::usage(format!("the project {:?} is not a name", settings.project.as_deref().unwrap_or_default()))
        })?;
        Ok(Self { authorization, project })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert("authorization", self.authorization.clone());
        if let Some(project) = &self.project {
            headers.insert("x-project", project.clone());
        }
        Ok(request)
    }
}

/// Connects, or says why not.
pub async fn open(settings: &Settings) -> Result<Channel, Error> {
    let endpoint = configure(settings)?;
    endpoint.connect().await.map_err(|source| Error::Unreachable {
        endpoint: settings.endpoint.clone(),
        local: is_loopback(&settings.endpoint),
        source: source.into(),
    })
}

fn configure(settings: &Settings) -> Result<Endpoint, Error> {
    let wrong = |why: &str| {
        Error::usage(format!(
            "the endpoint `{}` {why}: write it like http://127.0.0.1:8080 or https://cloud.example",
            settings.endpoint
        ))
    };
    let uri: http::Uri = settings.endpoint.parse().map_err(|_| wrong("is not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("is neither http nor https")),
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("has a path, and the gateway serves gRPC at its root only"));
    }
    if !tls && !is_loopback(&settings.endpoint) {
        eprintln!("warning: the API key goes to {} unencrypted; use https", settings.endpoint);
    }
    let endpoint = Endpoint::from(uri)
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        // A gateway that vanished is noticed even while nothing is sent: consoles stay open for hours.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .user_agent(concat!("cloud/", env!("CARGO_PKG_VERSION")))
        .map_err(|_| wrong("cannot be used"))?;
    if !tls {
        return Ok(endpoint);
    }
    endpoint
        .tls_config(tls_config(settings.ca_file.as_deref())?)
        .map_err(|error| wrong(&format!("cannot be used ({error})")))
}

fn tls_config(ca_file: Option<&Path>) -> Result<ClientTlsConfig, Error> {
    let config = ClientTlsConfig::new();
    let Some(path) = ca_file else { return Ok(config.with_native_roots()) };
    let pem = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
        return Err(Error::usage(format!("{} holds no certificate in PEM form", path.display())));
    }
    Ok(config.ca_certificate(Certificate::from_pem(pem)))
}
