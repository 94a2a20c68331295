//! Clients of other daemons.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
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

/// A channel that connects at its first call, and again whenever the connection was lost. Calls fail with UNAVAILABLE meanwhile.
/// Must be called in a tokio runtime.
#[must_use]
pub fn connect_lazy(address: &Address) -> Channel {
    let endpoint = Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_secs(3))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .http2_adaptive_window(true);
    match address.clone() {
        Address::Unix(path) => endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        })),
        Address::Tcp { host, port } => endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let host = host.clone();
            async move {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        })),
    }
}

/// [`connect_lazy`] with the client layer, and [`DEFAULT_DEADLINE`] for calls that have no other.
#[must_use]
pub fn agent_channel(address: &Address) -> AgentChannel {
    ClientContextLayer { default_deadline: DEFAULT_DEADLINE }.layer(connect_lazy(address))
}
