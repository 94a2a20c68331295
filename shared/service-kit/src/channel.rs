//! Clients of other daemons.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::{Layer, service_fn};

use crate::{
    Address,
    layers::{ClientContext, ClientContextLayer},
};

/// The deadline of calls that have no other. Agent calls are short.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// A channel whose calls carry the request's trace, id and remaining deadline. Cheap to clone; give it to a generated client:
/// `ComputeServiceClient::new(channel)`.
pub type AgentChannel = ClientContext<Channel>;

/// How long a connection, with its TLS handshake, may take.
const CONNECT: Duration = Duration::from_secs(3);

/// A channel that connects at its first call, and again whenever the connection was lost. Calls fail with UNAVAILABLE meanwhile.
/// Must be called in a tokio runtime.
#[must_use]
pub fn connect_lazy(address: &Address) -> Channel {
    connect_lazy_by(address, None)
}

/// [`connect_lazy`], with TLS where the address is TCP and `tls` is given.
#[must_use]
pub fn connect_lazy_by(address: &Address, tls: Option<Arc<ClientConfig>>) -> Channel {
    let endpoint = Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        // Not while idle: what is lost then is found by the next call.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    match (address.clone(), tls) {
        (Address::Unix(path), _) => endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        })),
        (Address::Tcp { host, port }, None) => endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let host = host.clone();
            async move { tcp(&host, port).await.map(TokioIo::new) }
        })),
        (Address::Tcp { host, port }, Some(config)) => {
            let connector = TlsConnector::from(config);
            endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let (host, connector) = (host.clone(), connector.clone());
                async move {
                    let handshake = async { connector.connect(nobody(), tcp(&host, port).await?).await };
                    let slow = || io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
                    timeout(CONNECT, handshake).await.map_err(|_| slow())?.map(TokioIo::new)
                }
            }))
        }
    }
}

/// The name to ask for in a handshake. An address is not sent; certificates are checked for identities, not for names.
fn nobody() -> ServerName<'static> {
    ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// [`connect_lazy`] with the client layer, and [`DEFAULT_DEADLINE`] for calls that have no other.
#[must_use]
pub fn agent_channel(address: &Address) -> AgentChannel {
    agent_channel_by(address, None)
}

/// [`agent_channel`], with TLS where the address is TCP and `tls` is given.
#[must_use]
pub fn agent_channel_by(address: &Address, tls: Option<Arc<ClientConfig>>) -> AgentChannel {
    ClientContextLayer { default_deadline: DEFAULT_DEADLINE }.layer(connect_lazy_by(address, tls))
}
