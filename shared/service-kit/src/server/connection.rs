//! One connection: its TLS handshake, its protocol and its end.

use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc};

use axum::Router;
use http::Request;
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

use super::{ServerOptions, drain::drained};
use crate::listen::Stream;

/// What a client may send ahead of what was read, in bytes: 80 MB/s over 50 ms.
const WINDOW: u32 = 4 << 20;

/// The connection that a request came over; in the request's extensions, as `Arc<Connection>`.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Who is at the other end.
    pub peer: Peer,
    /// Whether it is encrypted.
    pub tls: bool,
    /// The client's certificate chain, verified; empty without one.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Cancelled when the server shuts down.
    pub shutdown: CancellationToken,
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine, with its user id as the kernel says.
    Unix {
        /// User id.
        uid: Option<u32>,
    },
    /// A TCP address; `None` where the client was gone before it was asked.
    Tcp(Option<SocketAddr>),
}

/// Decides on connections whose client showed a certificate, beyond what the handshake checked.
pub trait Guard: Send + Sync + 'static {
    /// Lets a connection in, with a token that cuts it off when it is cancelled; none: not let in. The server cancels it too, when the connection
    /// is over.
    fn admit(&self, certificates: &[CertificateDer<'static>]) -> Option<CancellationToken>;
}

/// What all connections of a server share.
#[derive(Clone)]
pub(super) struct Server {
    router: Router,
    builder: Arc<auto::Builder<Tasks>>,
    tls: Option<TlsAcceptor>,
    guard: Option<Arc<dyn Guard>>,
    handshake_timeout: time::Duration,
    shutdown: CancellationToken,
}

impl Server {
    pub(super) fn new(
        router: Router,
        options: &ServerOptions,
        tasks: TaskTracker,
        kill: CancellationToken,
        shutdown: CancellationToken,
    ) -> Self {
        let mut builder = auto::Builder::new(Tasks { tasks, kill });
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            // hyper's least buffer is 8 KiB.
            .max_buf_size((options.max_header_bytes as usize).max(8 << 10));
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .max_concurrent_streams(options.max_concurrent_streams)
            .max_header_list_size(options.max_header_bytes)
            // Not the adaptive window, which answers every small message with a ping of its own.
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        Self {
            router,
            builder: Arc::new(builder),
            tls: options.tls.clone().map(TlsAcceptor::from),
            guard: options.guard.clone(),
            handshake_timeout: options.header_timeout,
            shutdown,
        }
    }

    pub(super) async fn run(self, stream: Stream) {
        // The time limits of the protocols start with the first byte, which alone tells the protocol.
        let first_byte = time::timeout(self.handshake_timeout, stream.readable());
        match self.shutdown.run_until_cancelled(first_byte).await {
            Some(Ok(Ok(()))) => {}
            None | Some(Ok(Err(_)) | Err(_)) => return,
        }
        let plain = |peer| Connection { peer, tls: false, certificates: vec![], shutdown: self.shutdown.clone() };
        match stream {
            Stream::Unix(stream) => {
                let uid = stream.peer_cred().ok().map(|c| c.uid());
                self.http(stream, plain(Peer::Unix { uid })).await;
            }
            Stream::Tcp(stream) => {
                let peer = Peer::Tcp(stream.peer_addr().ok());
                let Some(acceptor) = &self.tls else {
                    return self.http(stream, plain(peer)).await;
                };
                match time::timeout(self.handshake_timeout, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let certificates = stream.get_ref().1.peer_certificates();
                        let certificates: Vec<_> =
                            certificates.unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
                        let admitted = match &self.guard {
                            Some(guard) if !certificates.is_empty() => guard.admit(&certificates),
                            _ => Some(CancellationToken::new()),
                        };
                        let Some(cut_off) = admitted else {
                            return tracing::info!(?peer, "a connection was not let in: its certificate was revoked");
                        };
                        // Tells the guard that the connection is over.
                        let _over = cut_off.clone().drop_guard();
                        let connection = Connection { tls: true, certificates, ..plain(peer.clone()) };
                        if cut_off.run_until_cancelled(Box::pin(self.http(stream, connection))).await.is_none() {
                            tracing::info!(?peer, "a connection was cut off: its certificate was revoked");
                        }
                    }
                    Ok(Err(error)) => tracing::debug!(?peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(?peer, "TLS handshake took too long"),
                }
            }
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, connection: Connection) {
        let connection = Arc::new(connection);
        let service = {
            let (router, connection) = (self.router.clone(), connection.clone());
            service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(connection.clone());
                router.clone().call(drained(request, &connection.shutdown))
            })
        };
        let mut serving = pin!(self.builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = ?connection.peer, %error, "connection failed");
        }
    }
}

/// Runs HTTP/2 streams as tasks that the server owns.
#[derive(Clone)]
struct Tasks {
    tasks: TaskTracker,
    kill: CancellationToken,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, stream: F) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            kill.run_until_cancelled(stream).await;
        });
    }
}
