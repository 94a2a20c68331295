//! The server loop: HTTP/1.1 and HTTP/2 (with prior knowledge, or by ALPN under TLS) on one listener, for REST, gRPC and WebSockets.
//!
//! `axum::serve` has no HTTP/2 keepalive, no limits on streams and headers, and no bounded drain; this loop has. Every connection
//! and every HTTP/2 stream is a task of a tracker, so that nothing survives [`serve`].

mod connection;
mod drain;
mod tls;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use tokio::{sync::Semaphore, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use connection::{Connection, Guard, Peer};
pub use tls::{ServerCertificate, TlsArgs, TlsError, TlsFiles};

use crate::listen::{Listener, Stream};

/// Limits and times of a server. The defaults suit a daemon of this project.
#[derive(Clone)]
pub struct ServerOptions {
    /// TLS, as [`TlsFiles::load`] makes it; plain without.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Decides on connections with a certificate; see [`Guard`].
    pub guard: Option<Arc<dyn Guard>>,
    /// How long requests that run at shutdown may take to end.
    pub grace: Duration,
    /// Connections at a time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// HTTP/2 streams per connection at a time.
    pub max_concurrent_streams: u32,
    /// Bytes of all headers of a request.
    pub max_header_bytes: u32,
    /// How long a client may take for the TLS handshake, and for the headers of an HTTP/1.1 request.
    pub header_timeout: Duration,
    /// How often an HTTP/2 connection is pinged.
    pub keepalive_interval: Duration,
    /// How long a ping may stay without an answer.
    pub keepalive_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            tls: None,
            guard: None,
            grace: Duration::from_secs(10),
            max_connections: 4096,
            max_concurrent_streams: 1024,
            max_header_bytes: 32 << 10,
            header_timeout: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file of the TLS configuration cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Serves `router` until `shutdown`, then drains: no new connections, no new requests, and what runs has [`ServerOptions::grace`]
/// to end before it is cut off. Streams that wait for something to happen end at once (see [`crate::layers::trace_layer`]).
///
/// # Errors
/// None at present; a failing connection is logged and ends alone.
pub async fn serve(
    listener: Listener,
    router: Router,
    options: ServerOptions,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let tasks = TaskTracker::new();
    let kill = CancellationToken::new();
    let _cut_off_when_dropped = kill.clone().drop_guard();
    let slots = Arc::new(Semaphore::new(options.max_connections));
    let server = connection::Server::new(router, &options, tasks.clone(), kill.clone(), shutdown.clone());
    tracing::info!(address = %listener.local_addr(), tls = options.tls.is_some(), "listening");
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (accept(&listener).await, slot)
        };
        let (stream, slot) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        let (server, kill) = (server.clone(), kill.clone());
        tasks.spawn(async move {
            let _slot = slot;
            kill.run_until_cancelled(server.run(stream)).await;
        });
    }
    // Closes the socket (and removes its file), so that a successor can listen while this one drains.
    drop(listener);
    tasks.close();
    if time::timeout(options.grace, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), grace = ?options.grace, "requests are still running: cutting them off");
        kill.cancel();
        tasks.wait().await;
    }
    Ok(())
}

/// Accepts, however often accepting fails: out of file descriptors is a state that passes.
async fn accept(listener: &Listener) -> Stream {
    loop {
        match listener.accept().await {
            Ok(stream) => return stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
